"""The sphere with spherical harmonics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reml_sae.manifolds._ambient import UnitVectors, spiral
from reml_sae.manifolds._base import Relaxation
from reml_sae.manifolds._checks import check_integer
from reml_sae.typing import Array


@dataclass(frozen=True)
class Sphere(UnitVectors):
    """Sphere of unit vectors t = (x, y, z) with a uniform prior.

    The latitude of t is arcsin(z), its longitude arctan2(y, x), in radians; the axes are those of a
    fit, defined up to a rotation. The basis has the spherical harmonics up to a degree L, mean
    square 1. The roughness is (l (l + 1))^2 on degree l >= 2, so that ellipsoids are unpenalised.

    Parameters
    ----------
    degree : int
        L, 1 to 10.
    """

    degree: int = 2
    name: ClassVar[str] = "sphere"
    size_parameter: ClassVar[str | None] = "degree"
    reach: ClassVar[float] = np.pi

    def __post_init__(self) -> None:
        check_integer("degree", self.degree, 1, 10)

    @property
    def degrees(self) -> range:
        """0 .. L."""
        return range(self.degree + 1)

    def degree_roughness(self, degree: int) -> float:
        """Squared eigenvalue of the Laplacian, 0 for l <= 1."""
        return float((degree * (degree + 1)) ** 2) if degree > 1 else 0.0

    @property
    def linear_dim(self) -> int:
        """3: the space of the ellipsoid."""
        return 3

    @property
    def relaxation(self) -> Relaxation:
        """A shell."""
        return "shell"

    def log_prior_volume(self) -> float:
        """Log 4 pi, and (1/2) log 2 pi for the radius."""
        return float(np.log(4.0 * np.pi) + 0.5 * np.log(2.0 * np.pi))

    @property
    def log_multiplicity(self) -> float:
        """Log 2: the antipodal map."""
        return float(np.log(2.0))

    def grid(self, n: int) -> Array:
        """Fibonacci spiral: equal areas."""
        return spiral(1.0 - (2.0 * np.arange(n) + 1.0) / n)
