"""The real projective plane with even spherical harmonics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reml_sae.errors import InputError
from reml_sae.manifolds._ambient import UnitVectors, spiral
from reml_sae.typing import Array

FIRST, SECOND = [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]
"""Factors of the products that `ProjectivePlane.ambient` has."""


@dataclass(frozen=True)
class ProjectivePlane(UnitVectors):
    """Lines through the origin of R^3, each given by one of its two unit vectors t and -t.

    The basis has the spherical harmonics of even degree up to L, mean square 1: those of degree 2
    are the Veronese surface in a five-dimensional space, unpenalised. The roughness is
    (l (l + 1) / 4)^2 beyond, which is the squared Laplacian where a closed geodesic has length
    2 pi, as the circle has. The prior is uniform.

    Parameters
    ----------
    degree : int
        L, 2 or 4.
    """

    degree: int = 2
    name: ClassVar[str] = "projective_plane"
    size_parameter: ClassVar[str | None] = "degree"
    size_step: ClassVar[int] = 2
    reach: ClassVar[float] = 0.5 * np.pi
    antipodal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.degree, bool) or self.degree not in (2, 4):
            raise InputError(f"degree must be 2 or 4, got {self.degree!r}")

    @property
    def degrees(self) -> range:
        """0, 2, .., L."""
        return range(0, self.degree + 1, 2)

    def degree_roughness(self, degree: int) -> float:
        """(l (l + 1) / 4)^2, 0 for l <= 2."""
        return (0.25 * degree * (degree + 1)) ** 2 if degree > 2 else 0.0

    @property
    def linear_dim(self) -> int:
        """5: the space of the Veronese surface."""
        return 5

    def log_prior_volume(self) -> float:
        """Log 2 pi, the area of the half sphere, and (1/2) log 2 pi for the radius."""
        return float(1.5 * np.log(2.0 * np.pi))

    def grid(self, n: int) -> Array:
        """Fibonacci spiral on a half sphere: equal areas."""
        return spiral(1.0 - (np.arange(n) + 0.5) / n)

    @property
    def ambient_names(self) -> tuple[str, ...]:
        """Products of x, y, z."""
        return ("xx", "yy", "zz", "xy", "xz", "yz")

    def ambient(self, t: Array) -> Array:
        """Products of the coordinates of a unit vector, the same for its opposite."""
        unit = super().ambient(t)
        return unit[:, FIRST] * unit[:, SECOND]

    def from_ambient(self, x: Array) -> Array:
        """Leading axis of the symmetric matrix of products; NaN of zero."""
        matrix = np.empty((len(x), 3, 3))
        matrix[:, FIRST, SECOND] = matrix[:, SECOND, FIRST] = x
        axis = np.linalg.eigh(matrix)[1][:, :, 2]
        return np.where((x == 0.0).all(axis=1, keepdims=True), np.nan, axis)
