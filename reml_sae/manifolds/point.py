"""A point: an atom without coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from reml_sae.manifolds._base import Manifold
from reml_sae.manifolds._prior import gaussian_prior_jet
from reml_sae.manifolds._rules import Rule, held_rule
from reml_sae.typing import Array


@dataclass(frozen=True)
class Point(Manifold):
    """One place, the same for all rows of the atom: what is left of it is noise."""

    name: ClassVar[str] = "point"
    is_euclidean: ClassVar[bool] = False

    @property
    def latent_dim(self) -> int:
        """0."""
        return 0

    @property
    def basis_size(self) -> int:
        """The constant alone."""
        return 1

    @property
    def linear_dim(self) -> int:
        """0."""
        return 0

    @property
    def is_flat(self) -> bool:
        """It is."""
        return True

    def jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """The constant; there is nothing to differentiate by."""
        n = len(t)
        return tuple(np.ones((n, 1)) if r == 0 else np.zeros((n, *(0,) * r, 1))
                     for r in range(order + 1))

    def roughness(self) -> Array | None:
        """None: nothing is rough."""
        return None

    def prior_jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """Zero."""
        return gaussian_prior_jet(t, order)

    def log_prior_volume(self) -> float:
        """Log of the one point's mass, 0."""
        return 0.0

    def rule(self, spacing: Array) -> Rule | None:
        """The point."""
        return held_rule(0)

    def prior_mean_basis(self) -> Array:
        """The constant."""
        return np.ones(1)

    def retract(self, t: Array, step: Array) -> Array:
        """The point."""
        return t.copy()

    def distance(self, t1: Array, t2: Array) -> Array:
        """Zero."""
        return np.zeros(len(t1))

    def grid(self, n: int) -> Array:
        """The point."""
        return np.zeros((1, 0))

    def to_config(self) -> dict[str, Any]:
        """Its name."""
        return {"topology": self.name}
