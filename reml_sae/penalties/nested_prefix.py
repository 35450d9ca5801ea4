"""Nested prefixes (Matryoshka): shells of axes, each with its own strength.

    P = sum_k lambda_k sum_{i < m_k} sum over rows of s(t_i) = sum_i c_i sum over rows of s(t_i),
    s(t) = sqrt(t^2 + eps^2),   c_i = sum_{k: m_k > i} lambda_k,   m strictly increasing.

Convex, and proper since the last prefix is all of the axes: per entry 2 eps K_1(c_i eps), so
    d log C / d rho_k = n_rows sum_{i < m_k} (lambda_k / c_i) d log K_1 / d log c_i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from reml_sae.errors import InputError
from reml_sae.penalties import _fields
from reml_sae.penalties._curvature import RowInverse
from reml_sae.penalties._elementwise import (
    ElementwisePenalty,
    Placed,
    log_smooth_abs_partition,
    smooth_abs,
)
from reml_sae.penalties._registry import register
from reml_sae.typing import Array, Curvature


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class NestedPrefixPenalty(Placed, ElementwisePenalty):
    """Sparsity that orders the axes: coordinates (n, d), or the rows of a decoder (d, p).

    Parameters
    ----------
    prefixes : sequence of int
        Sizes m_k of the shells, strictly increasing; the last one is d.
    eps : float
        Smoothing length > 0.
    target : {"coordinates", "decoder"}
        What it acts on.
    weight, weight_schedule, learnable
        See `Penalty`; one log strength for each shell.
    """

    prefixes: Any
    eps: float = 0.01

    KIND_TAG: ClassVar[str] = "nested_prefix"
    PYTHON_WRAPPER: ClassVar[str] = "NestedPrefixPenalty"
    FORMULA: ClassVar[str] = (
        "sum_k lambda_k sum_i sum_{j < prefixes_k} sqrt(t_ij^2 + eps^2)")

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefixes", _increasing("prefixes", self.prefixes))
        _fields.positive("eps", self.eps)
        super().__post_init__()

    def n_strengths(self) -> int:
        """Number of shells."""
        return len(self.prefixes)

    def width(self) -> int:
        """The last prefix d."""
        return self.prefixes[-1]

    def by_output(self) -> bool:
        """Whether the axes are the rows of a decoder."""
        return self.target == "decoder"

    def _shells(self, rho: Array) -> Array:
        """lambda_k where i < m_k, else 0, (shells, d); its sum over shells is c."""
        inside = np.arange(self.width()) < np.array(self.prefixes)[:, None]
        return self.strengths(rho)[:, None] * inside

    def derivative(self, t: Array, rho: Array, order: int) -> Array:
        """Of c_i s(t_i)."""
        return self._shells(rho).sum(0) * smooth_abs(t, self.eps, order)

    def grad_rho(self, target: Array, rho: Array) -> Array:
        """lambda_k sum_{i < m_k} sum over rows of s, (rho_count,)."""
        total = smooth_abs(self.rows(target), self.eps, 0).sum(0)
        return (self._shells(rho) @ total)[: self.rho_count()]

    def grad_target_rho(self, target: Array, rho: Array) -> Array:
        """lambda_k s' on the axes of the shell, (rho_count, n, d)."""
        slope = smooth_abs(self.rows(target), self.eps, 1)
        return self._shells(rho)[: self.rho_count(), None, :] * slope

    def curvature_rho(
        self, target: Array, rho: Array, G: RowInverse, which: Curvature
    ) -> Array:
        """lambda_k sum_{i < m_k} sum over rows of s'' G_ii, (rho_count,)."""
        curved = smooth_abs(self.rows(target), self.eps, 2)
        total = np.einsum("na,naa->a", curved, G.blocks)
        return (self._shells(rho) @ total)[: self.rho_count()]

    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array]:
        """Log partition and its gradient; ``n_rows`` counts outputs for a decoder."""
        shells = self._shells(rho)
        c = shells.sum(0)
        values, slopes = log_smooth_abs_partition(c, self.eps)
        return n_rows * float(values.sum()), n_rows * (shells @ (slopes / c))[: self.rho_count()]


def _increasing(name: str, value: Any) -> tuple[int, ...]:
    """Strictly increasing positive integers; raises `InputError` where they are not."""
    if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, str) or not len(value):
        raise InputError(f"{name} must be a list of one or more integers, got {value!r}")
    out: list[int] = []
    for k, item in enumerate(value):
        out.append(_fields.integer(f"{name}[{k}]", item, 1))
        if k and out[k] <= out[k - 1]:
            raise InputError(
                f"{name}[{k}] must be above {name}[{k - 1}] = {out[k - 1]}, got {item!r}")
    return tuple(out)
