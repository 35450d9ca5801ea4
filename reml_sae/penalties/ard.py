"""Automatic relevance determination of Gaussian coordinates.

    P = sum_j [alpha_j / 2 ||t_j||^2 - (n / 2) log alpha_j]

The value carries its own alpha-dependent normaliser, so log int exp(-P) dt = (n d / 2) log 2 pi.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reml_sae.penalties import _fields
from reml_sae.penalties._curvature import RowInverse
from reml_sae.penalties._matrix import RowPenalty
from reml_sae.penalties._registry import register
from reml_sae.typing import Array, Curvature

AXIS_SPREAD = 0.25


def axis_spread(n_axes: int) -> Array:
    """Distinct log precisions (n_axes,) around zero, where a search for them starts."""
    return AXIS_SPREAD * (np.arange(n_axes, dtype=np.float64) - 0.5 * (n_axes - 1))


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class ARDPenalty(RowPenalty):
    """Gaussian prior with a precision for each coordinate; target: coordinates (n, d).

    Parameters
    ----------
    latent_dim : int
        d >= 1.
    weight, weight_schedule, learnable
        See `Penalty`.
    """

    latent_dim: int

    KIND_TAG: ClassVar[str] = "ard"
    PYTHON_WRAPPER: ClassVar[str] = "ARDPenalty"
    FORMULA: ClassVar[str] = "sum_j [alpha_j / 2 ||t_j||^2 - (n / 2) ln alpha_j]"

    def __post_init__(self) -> None:
        _fields.integer("latent_dim", self.latent_dim, 1)
        super().__post_init__()

    @property
    def is_quadratic(self) -> bool:
        """True: the rest of the value is its normaliser."""
        return True

    def n_strengths(self) -> int:
        """The dimension d."""
        return self.latent_dim

    def initial_rho(self) -> Array:
        """Spread about zero: axes of one precision could be rotated into each other."""
        return axis_spread(self.latent_dim)[: self.rho_count()]

    def width(self) -> int:
        """The dimension d."""
        return self.latent_dim

    def row_values(self, target: Array, rho: Array) -> Array:
        """P of every row, (n,)."""
        alpha = self.strengths(rho)
        return 0.5 * self.rows(target) ** 2 @ alpha - 0.5 * np.log(alpha).sum()

    def row_gradient(self, target: Array, rho: Array) -> Array:
        """Gradient alpha t, (n, d)."""
        return self.rows(target) * self.strengths(rho)

    def hessian_diag(self, target: Array, rho: Array) -> Array:
        """Alpha, repeated over rows, flat."""
        return np.tile(self.strengths(rho), len(self.rows(target)))

    def row_blocks(self, target: Array, rho: Array) -> Array:
        """Diag(alpha), (n, d, d)."""
        n, d = self.rows(target).shape
        return np.broadcast_to(np.diag(self.strengths(rho)), (n, d, d))

    def row_blocks_vjp(self, target: Array, rho: Array, weights: Array) -> Array:
        """Zero: the Hessian is constant."""
        return np.zeros_like(self.rows(target))

    def grad_rho(self, target: Array, rho: Array) -> Array:
        """(alpha_j ||t_j||^2 - n) / 2."""
        t = self.rows(target)
        return 0.5 * (self.strengths(rho) * (t**2).sum(0) - len(t))[: self.rho_count()]

    def grad_target_rho(self, target: Array, rho: Array) -> Array:
        """Row j holds alpha_j t_j, (rho_count, n, d)."""
        gradient = self.row_gradient(target, rho)
        return np.eye(self.latent_dim)[: self.rho_count(), None, :] * gradient

    def curvature_rho(
        self, target: Array, rho: Array, G: RowInverse, which: Curvature
    ) -> Array:
        """Alpha_j sum_i G_ijj, (rho_count,)."""
        return (np.einsum("njj->j", G.blocks) * self.strengths(rho))[: self.rho_count()]

    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array]:
        """(n d / 2) log 2 pi; the dependence on alpha is in the value."""
        self.strengths(rho)
        value = 0.5 * n_rows * self.latent_dim * np.log(2.0 * np.pi)
        return value, np.zeros(self.rho_count())
