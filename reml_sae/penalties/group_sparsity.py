"""Group sparsity of latent columns over all rows, and of decoder features per latent.

Both are convex, so the majorizer is the Hessian, and both are sums of c sqrt(||x||^2 + eps^2) over
disjoint groups of m entries, so log C is a sum of `log_smooth_l1_partition`.

Blocks of columns T_g, with a_g = tr G_gg = ||T_g||^2 and r_g = sqrt(a_g + eps^2), are a function
of the Gram matrix through the traces a_g:

    h = sum_g sqrt|g| r_g,   2 dh/da_g = sqrt|g| / r_g,   d2h/da_g^2 = -sqrt|g| / (4 r_g^3)

Mechanisms, for every row x = W_kg of a decoder restricted to a group, r = sqrt(||x||^2 + eps^2):

    Hessian = w sqrt|g| (I / r - x x^T / r^3)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from reml_sae.penalties import _fields
from reml_sae.penalties._base import PenaltyTier
from reml_sae.penalties._curvature import RowCurvature, RowInverse
from reml_sae.penalties._gram import Directions, GramPenalty, group_index, sums
from reml_sae.penalties._matrix import MatrixPenalty
from reml_sae.penalties._registry import register
from reml_sae.penalties._smooth_l1 import log_smooth_l1_partition
from reml_sae.typing import Array, Curvature


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class BlockSparsityPenalty(GramPenalty):
    """Few groups of latent columns in use; target: coordinates (n, d).

    Parameters
    ----------
    groups : list of lists of int
        A partition of the d columns.
    eps : float
        Smoothing length > 0.
    weight, weight_schedule, learnable
        See `Penalty`.
    """

    groups: Any
    eps: float = 0.01

    KIND_TAG: ClassVar[str] = "block_sparsity"
    PYTHON_WRAPPER: ClassVar[str] = "BlockSparsityPenalty"
    FORMULA: ClassVar[str] = "w sum_g sqrt(|g|) sqrt(||T_g||^2 + eps^2)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", _fields.partition("groups", self.groups))
        _fields.positive("eps", self.eps)
        super().__post_init__()

    def width(self) -> int:
        """The dimension d."""
        return sum(map(len, self.groups))

    @cached_property
    def directions(self) -> Directions:
        """The identity of every group."""
        return Directions.traces(group_index(self.groups))

    @cached_property
    def _factors(self) -> Array:
        """The factors sqrt|g|, (groups,)."""
        return np.sqrt([len(group) for group in self.groups])

    def _lengths(self, T: Array) -> Array:
        """r_g, (groups,)."""
        return np.sqrt(self._by_group(np.einsum("na,na->a", T, T)) + self.eps**2)

    def _by_group(self, columns: Array) -> Array:
        """Sums over the columns of every group."""
        return sums(columns, self.directions.index, len(self.groups))

    def gram_value(self, T: Array) -> float:
        """sum_g sqrt|g| r_g."""
        return float(self._factors @ self._lengths(T))

    def gram_first(self, T: Array, which: Curvature) -> Array:
        """Diagonal sqrt|g| / r_g, (d, d)."""
        return np.diag((self._factors / self._lengths(T))[self.directions.index])

    def gram_core(self, T: Array, which: Curvature) -> Array:
        """Diagonal -sqrt|g| / (4 r_g^3)."""
        return np.diag(-0.25 * self._factors / self._lengths(T) ** 3)

    def gram_vjp(self, T: Array, W: Array, K: Array, which: Curvature) -> Array:
        """Diagonal, (d, d)."""
        r = self._lengths(T)
        trace = self._by_group(np.diagonal(W))
        slope = self._factors * (0.375 * np.diagonal(K) / r**5 - 0.5 * trace / r**3)
        return np.diag(slope[self.directions.index])

    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array]:
        """Smooth l1 in n |g| dimensions for every group."""
        w = self.strength(rho)
        parts = np.array([log_smooth_l1_partition(n_rows * len(group), w * factor, self.eps)
                          for group, factor in zip(self.groups, self._factors, strict=True)])
        value, slope = parts.sum(0)
        return float(value), np.full(self.rho_count(), slope)


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class MechanismSparsityPenalty(MatrixPenalty):
    """Each latent drives few groups of features; target: a decoder (d_latent, p).

    The rows of the matrix view are the latents. The products avoid the (d_latent, p, p) blocks.

    Parameters
    ----------
    feature_groups : list of lists of int
        A partition of the p features.
    eps : float
        Smoothing length > 0.
    weight, weight_schedule, learnable
        See `Penalty`.
    """

    feature_groups: Any
    eps: float = 0.01

    KIND_TAG: ClassVar[str] = "mechanism_sparsity"
    PYTHON_WRAPPER: ClassVar[str] = "MechanismSparsityPenalty"
    TIER: ClassVar[PenaltyTier] = PenaltyTier.BETA
    FORMULA: ClassVar[str] = "w sum_latent sum_g sqrt(|g|) sqrt(||W_{latent,g}||^2 + eps^2)"

    def __post_init__(self) -> None:
        groups = _fields.partition("feature_groups", self.feature_groups)
        object.__setattr__(self, "feature_groups", groups)
        _fields.positive("eps", self.eps)
        super().__post_init__()

    def width(self) -> int:
        """Features p."""
        return sum(map(len, self.feature_groups))

    @cached_property
    def _membership(self) -> Array:
        """One where a feature lies in a group, (p, groups)."""
        return np.eye(len(self.feature_groups))[group_index(self.feature_groups)]

    @cached_property
    def _factors(self) -> Array:
        """The factors sqrt|g|, (groups,)."""
        return np.sqrt(self._membership.sum(0))

    def _spread(self, by_group: Array) -> Array:
        """Values of groups at their features, (n, p)."""
        return by_group[:, group_index(self.feature_groups)]

    def _lengths(self, x: Array) -> Array:
        """r, (n, groups)."""
        return np.sqrt(x**2 @ self._membership + self.eps**2)

    def value(self, target: Array, rho: Array) -> float:
        """P, strength folded in."""
        return self.strength(rho) * float((self._lengths(self.rows(target)) @ self._factors).sum())

    def row_gradient(self, target: Array, rho: Array) -> Array:
        """w sqrt|g| x / r, (n, p)."""
        x = self.rows(target)
        return self.strength(rho) * self._spread(self._factors / self._lengths(x)) * x

    def hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """w sqrt|g| (v / r - x (x . v) / r^3), flat."""
        x, v = self.rows(target), self.rows(v)
        r = self._lengths(x)
        inner = (x * v) @ self._membership
        out = self._spread(self._factors / r) * v - self._spread(self._factors * inner / r**3) * x
        return self.flat(self.strength(rho) * out)

    def psd_majorizer_hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """The Hessian: the penalty is convex."""
        return self.hvp(target, rho, v)

    def psd_majorizer_diag(self, target: Array, rho: Array) -> Array:
        """Diagonal of the Hessian, flat."""
        x = self.rows(target)
        r = self._lengths(x)
        out = self._spread(self._factors / r) - self._spread(self._factors / r**3) * x**2
        return self.flat(self.strength(rho) * out)

    def curvature(self, target: Array, rho: Array, which: Curvature) -> RowCurvature:
        """Row blocks (n, p, p)."""
        x = self.rows(target)
        r = self._lengths(x)
        same_group = self._membership @ self._membership.T
        blocks = -self._spread(self._factors / r**3)[:, :, None] * x[:, :, None] * x[:, None, :]
        blocks *= same_group
        np.einsum("naa->na", blocks)[...] += self._spread(self._factors / r)
        return RowCurvature(self.strength(rho) * blocks)

    def curvature_vjp(
        self, target: Array, rho: Array, G: RowInverse, which: Curvature
    ) -> Array:
        """Gradient (n, p) of sum_g sqrt|g| [tr G_gg / r - x^T G_gg x / r^3]."""
        x = self.rows(target)
        r = self._lengths(x)
        same_group = self._membership @ self._membership.T
        Gx = np.einsum("nab,nb->na", G.blocks * same_group, x)
        trace = np.einsum("naa->na", G.blocks) @ self._membership
        quadratic = (x * Gx) @ self._membership
        radial = self._factors * (3.0 * quadratic / r**5 - trace / r**3)
        out = self._spread(radial) * x - 2.0 * self._spread(self._factors / r**3) * Gx
        return self.strength(rho) * out

    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array]:
        """Smooth l1 in |g| dimensions for every latent and group."""
        w = self.strength(rho)
        parts = np.array([log_smooth_l1_partition(len(group), w * factor, self.eps)
                          for group, factor in zip(self.feature_groups, self._factors,
                                                   strict=True)])
        value, slope = n_rows * parts.sum(0)
        return float(value), np.full(self.rho_count(), slope)
