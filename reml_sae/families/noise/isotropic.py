"""Noise that is alike in all directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from reml_sae.families.noise._base import Noise
from reml_sae.typing import Array


@dataclass(frozen=True)
class Isotropic(Noise):
    """Omega = I.

    Attributes
    ----------
    p : int
        Columns.
    """

    p: int
    kind: ClassVar[str] = "isotropic"

    @classmethod
    def best(cls, second: Array, n_rows: int) -> Isotropic:
        """The only one."""
        return Isotropic(len(second))

    @classmethod
    def of(cls, arrays: Mapping[str, Array], p: int) -> Self:
        """That of p columns."""
        return cls(p)

    def arrays(self) -> dict[str, Array]:
        """None."""
        return {}

    @property
    def shape(self) -> Array:
        """The identity, (p, p)."""
        return np.eye(self.p)

    def whiten(self, Z: Array) -> Array:
        """The rows as they are."""
        return Z

    def colour(self, Z: Array) -> Array:
        """The rows as they are."""
        return Z

    def colour_variances(self, covariances: Array) -> Array:
        """The covariances as they are."""
        return covariances

    def parameters(self) -> Array:
        """None, (0,)."""
        return np.zeros(0)

    def at(self, parameters: Array) -> Self:
        """The same."""
        return self

    def gradient(self, parameters: Array, slope: Array, n_rows: int) -> Array:
        """None, (0,)."""
        return np.zeros(0)

    def cost(self, n_rows: int) -> float:
        """Nothing."""
        return 0.0
