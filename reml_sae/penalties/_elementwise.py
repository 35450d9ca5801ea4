"""What penalties that are sums over the entries of the target share.

    P = sum_ia f_a(t_ia),    H = diag(f''),    B = diag(b),  b >= max(f'', 0)

A kind gives f with three derivatives, and b with one where f is not convex. The smooth absolute
value of several kinds, with s(t) = sqrt(t^2 + eps^2):

    s' = t / s,   s'' = eps^2 / s^3,   s''' = -3 eps^2 t / s^5,
    int exp(-c s(t)) dt = 2 eps K_1(z),  z = c eps,
    d log K_1(z) / d log z = -(1 + z K_0(z) / K_1(z))
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reml_sae.penalties import _fields
from reml_sae.penalties._base import PenaltyTier
from reml_sae.penalties._curvature import RowCurvature, RowInverse
from reml_sae.penalties._matrix import Held, MatrixPenalty, RowPenalty
from reml_sae.penalties._smooth_l1 import log_centred_partition
from reml_sae.typing import Array, Curvature


def smooth_abs(t: Array, eps: float, order: int) -> Array:
    """Derivative of s(t) of an order from 0 to 3, of the shape of t."""
    s = np.hypot(t, eps)
    if order == 0:
        return s
    if order == 1:
        return t / s
    curved = (eps / s) ** 2 / s
    return curved if order == 2 else -3.0 * curved * (t / s) / s


def log_smooth_abs_partition(c: Array, eps: float) -> tuple[Array, Array]:
    """Log of int exp(-c s(t)) dt over the line, and its derivative in log c."""
    value, slope = log_centred_partition(c, eps)
    return value - c * eps, slope - c * eps


def diagonal_blocks(diagonal: Array) -> Array:
    """(n, d) as the diagonals of (n, d, d)."""
    n, d = diagonal.shape
    out = np.zeros((n, d, d))
    out[:, np.arange(d), np.arange(d)] = diagonal
    return out


class Entrywise(MatrixPenalty):
    """A sum over entries; a subclass gives ``width``, ``derivative`` and, not convex, ``bound``."""

    ROW_BLOCK_DIAGONAL: ClassVar[bool] = True

    @abstractmethod
    def derivative(self, t: Array, rho: Array, order: int) -> Array:
        """Derivative of f of an order from 0 to 3 at t (n, d), strengths folded in."""

    def bound(self, t: Array, rho: Array, order: int) -> Array:
        """b (order 0) or b' (order 1) at t (n, d); f'' and f''' where f is convex."""
        return self.derivative(t, rho, order + 2)

    def _second(self, target: Array, rho: Array, which: Curvature, order: int = 0) -> Array:
        """f'' or b, or the derivative of it, (n, d)."""
        t = self.rows(target)
        if which == "exact":
            return self.derivative(t, rho, 2 + order)
        return self.bound(t, rho, order)

    # --- by rows -----------------------------------------------------------------------------

    def row_values(self, target: Array, rho: Array) -> Array:
        """P of every row, (n,)."""
        return self.derivative(self.rows(target), rho, 0).sum(1)

    def value(self, target: Array, rho: Array) -> float:
        """P, strengths folded in."""
        return float(self.row_values(target, rho).sum())

    def row_gradient(self, target: Array, rho: Array) -> Array:
        """f', (n, d)."""
        return self.derivative(self.rows(target), rho, 1)

    def curvature(self, target: Array, rho: Array, which: Curvature) -> RowCurvature:
        """Diagonal blocks."""
        return RowCurvature(diagonal_blocks(self._second(target, rho, which)))

    def curvature_vjp(
        self, target: Array, rho: Array, G: RowInverse, which: Curvature
    ) -> Array:
        """Gradient (n, d) of <G, B> in the target."""
        return self._vjp(target, rho, G.blocks, which)

    def _vjp(self, target: Array, rho: Array, weights: Array, which: Curvature) -> Array:
        return self._second(target, rho, which, 1) * np.einsum("naa->na", weights)

    # --- the contract, without blocks --------------------------------------------------------

    def hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """Exact Hessian times a flat vector."""
        return self.flat(self._second(target, rho, "exact") * self.rows(v))

    def hessian_diag(self, target: Array, rho: Array) -> Array | None:
        """f'', flat."""
        return self.flat(self._second(target, rho, "exact"))

    def psd_majorizer_diag(self, target: Array, rho: Array) -> Array:
        """b, flat."""
        return self.flat(self._second(target, rho, "majorizer"))

    def psd_majorizer_hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """b times a flat vector."""
        return self.flat(self._second(target, rho, "majorizer") * self.rows(v))


class ElementwisePenalty(Entrywise, RowPenalty):
    """A sum over entries as a penalty on rows."""

    def row_blocks(self, target: Array, rho: Array) -> Array:
        """Exact Hessian blocks, (n, d, d)."""
        return diagonal_blocks(self._second(target, rho, "exact"))

    def row_blocks_vjp(self, target: Array, rho: Array, weights: Array) -> Array:
        """Gradient (n, d) of sum_a W_aa f''_a."""
        return self._vjp(target, rho, weights, "exact")

    def row_majorizer(self, target: Array, rho: Array) -> Array:
        """Blocks of the majorizer, (n, d, d)."""
        return diagonal_blocks(self._second(target, rho, "majorizer"))

    def row_majorizer_vjp(self, target: Array, rho: Array, weights: Array) -> Array:
        """Gradient (n, d) of sum_a W_aa b_a."""
        return self._vjp(target, rho, weights, "majorizer")


class HeldElementwise(Held, ElementwisePenalty):
    """An improper sum over entries: its one strength is the weight, and no rho moves it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed(Entrywise):
    """A sum over the entries of coordinates or of a decoder.

    Parameters
    ----------
    target : {"coordinates", "decoder"}
        What it acts on.
    """

    target: str = "coordinates"

    def __post_init__(self) -> None:
        _fields.choice("target", self.target, ("coordinates", "decoder"))
        super().__post_init__()

    def tier(self) -> PenaltyTier:
        """BETA on a decoder, PSI on coordinates."""
        return PenaltyTier.BETA if self.target == "decoder" else PenaltyTier.PSI
