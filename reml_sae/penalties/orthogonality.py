"""Orthogonality of latent columns, and of groups of them, with G = T^T T.

Orthogonality:

    h = 1/2 ||G / n - I||^2,   h' = (G / n - I) / n,   h''[X] = X / n^2

The part of h'' is positive semidefinite; that of h' is indefinite, and G/n - I <= G/n.

Between groups, with off(G) the entries of G that join two groups:

    h = 1/4 ||off(G)||^2,   h' = off(G) / 2,   h''[X] = off(X) / 2

Here off(G) <= G, since their difference, the block diagonal of G, is positive semidefinite. The
diagonal of the exact Hessian majorizes nothing: off(G) has a zero diagonal.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from reml_sae.errors import InputError
from reml_sae.penalties import _fields
from reml_sae.penalties._gram import Directions, GramPenalty, all_pairs, group_index
from reml_sae.penalties._matrix import Held
from reml_sae.penalties._registry import register
from reml_sae.typing import Array, Curvature


class _QuadraticInGram(Held, GramPenalty):
    """What both share: h'' is ``gram_scale`` times the identity on the directions."""

    @abstractmethod
    def gram_scale(self, T: Array) -> float:
        """What multiplies X in h''[X]."""

    def gram_core(self, T: Array, which: Curvature) -> Array:
        """A multiple of the identity."""
        return self.gram_scale(T) * np.eye(self.directions.count)


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class OrthogonalityPenalty(_QuadraticInGram):
    """Latent columns orthogonal with mean square one; target: coordinates (n, d).

    G is divided by n, so that P does not grow with the number of rows.

    Parameters
    ----------
    latent_dim : int
        d >= 1.
    weight, weight_schedule, learnable
        See `Penalty`.
    """

    latent_dim: int

    KIND_TAG: ClassVar[str] = "orthogonality"
    PYTHON_WRAPPER: ClassVar[str] = "OrthogonalityPenalty"
    FORMULA: ClassVar[str] = "w / 2 ||T^T T / n - I||^2"

    def __post_init__(self) -> None:
        _fields.integer("latent_dim", self.latent_dim, 1)
        super().__post_init__()

    def width(self) -> int:
        """The dimension d."""
        return self.latent_dim

    @cached_property
    def directions(self) -> Directions:
        """All symmetric matrices."""
        return all_pairs(self.latent_dim)

    def gram_scale(self, T: Array) -> float:
        """1 / n^2."""
        return 1.0 / len(T) ** 2

    def gram_value(self, T: Array) -> float:
        """1/2 ||G / n - I||^2."""
        return 0.5 * float(np.sum((T.T @ T / len(T) - np.eye(self.latent_dim)) ** 2))

    def gram_first(self, T: Array, which: Curvature) -> Array:
        """2 (G / n - I) / n, or 2 G / n^2."""
        shift = np.eye(self.latent_dim) if which == "exact" else 0.0
        return 2.0 * (T.T @ T / len(T) - shift) / len(T)

    def gram_vjp(self, T: Array, W: Array, K: Array, which: Curvature) -> Array:
        """2 W / n^2: the core is constant."""
        return 2.0 * self.gram_scale(T) * W


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class BlockOrthogonalityPenalty(_QuadraticInGram):
    """Groups of latent columns orthogonal to one another; target: coordinates (n, d).

    Parameters
    ----------
    groups : list of lists of int
        A partition of the d columns in at least two groups.
    weight, weight_schedule, learnable
        See `Penalty`.
    """

    groups: Any

    KIND_TAG: ClassVar[str] = "block_orthogonality"
    PYTHON_WRAPPER: ClassVar[str] = "BlockOrthogonalityPenalty"
    FORMULA: ClassVar[str] = "w / 2 sum_{g<h} ||T_g^T T_h||^2"

    def __post_init__(self) -> None:
        groups = _fields.partition("groups", self.groups)
        if len(groups) < 2:
            raise InputError(f"groups must hold at least two groups, got {self.groups!r}")
        object.__setattr__(self, "groups", groups)
        super().__post_init__()

    def width(self) -> int:
        """The dimension d."""
        return sum(map(len, self.groups))

    @cached_property
    def _mask(self) -> Array:
        """One where two columns lie in different groups, (d, d)."""
        group = group_index(self.groups)
        return (group[:, None] != group[None, :]).astype(float)

    @cached_property
    def directions(self) -> Directions:
        """Pairs of columns of different groups."""
        a, b = np.nonzero(np.triu(self._mask))
        return Directions.pairs(a, b, self.width())

    def gram_scale(self, T: Array) -> float:
        """One half."""
        return 0.5

    def gram_value(self, T: Array) -> float:
        """1/4 ||off(G)||^2."""
        return 0.25 * float(np.sum((self._mask * (T.T @ T)) ** 2))

    def gram_first(self, T: Array, which: Curvature) -> Array:
        """The entries off(G), or G."""
        G = T.T @ T
        return self._mask * G if which == "exact" else G

    def gram_vjp(self, T: Array, W: Array, K: Array, which: Curvature) -> Array:
        """The entries off(W), or W: the core is constant."""
        return self._mask * W if which == "exact" else W
