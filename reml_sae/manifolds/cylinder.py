"""The cylinder with a Fourier and Hermite basis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from reml_sae.manifolds._band import Band, band_roughness
from reml_sae.manifolds._checks import check_integer
from reml_sae.manifolds._fourier import (
    harmonic_derivatives,
    harmonic_frequencies,
    harmonic_rotation,
    wrap_angle,
)
from reml_sae.manifolds._polynomial import hermite_derivatives
from reml_sae.manifolds._product import tensor_jet
from reml_sae.typing import Array


@dataclass(frozen=True)
class Cylinder(Band):
    """Angle t in [-pi, pi), uniform, and height w with the prior N(0, 1).

    The basis is the tensor product of (1, 2^(1/2) cos ht, 2^(1/2) sin ht), h <= H, with the
    orthonormal Hermite polynomials of w up to a degree, which vary fastest; every function has mean
    square 1. The roughness is E ||Hess f||^2, but 0 on the first harmonics of the angle alone, so
    that straight elliptic cylinders are unpenalised. The gauge is the rotation of the angle.

    Parameters
    ----------
    n_harmonics : int
        H >= 1.
    degree : int
        1, 2 or 3.
    """

    n_harmonics: int = 1
    degree: int = 1
    name: ClassVar[str] = "cylinder"
    size_parameter: ClassVar[str | None] = "n_harmonics"

    def __post_init__(self) -> None:
        check_integer("n_harmonics", self.n_harmonics, 1)
        check_integer("degree", self.degree, 1, 3)

    @property
    def basis_size(self) -> int:
        """(2 H + 1) (degree + 1)."""
        return (2 * self.n_harmonics + 1) * (self.degree + 1)

    def jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """Products and their derivatives."""
        return tensor_jet(harmonic_derivatives(t[:, 0], self.n_harmonics, order),
                          hermite_derivatives(t[:, 1], self.degree, order))

    def roughness(self) -> Array | None:
        """Diagonal of E ||Hess f||^2, with the first harmonics free."""
        h = np.repeat(harmonic_frequencies(self.n_harmonics), self.degree + 1)
        j = np.tile(np.arange(self.degree + 1.0), 2 * self.n_harmonics + 1)
        return np.diag(band_roughness(h, j) * ((h != 1.0) | (j != 0.0)))

    @property
    def linear_axes(self) -> tuple[int, ...]:
        """The height, where the degree is 1."""
        return (1,) if self.degree == 1 else ()

    @property
    def log_multiplicity(self) -> float:
        """Log 4: the reflections of the angle and of the height."""
        return float(np.log(4.0))


    def gauge_generators(self) -> Array:
        """One."""
        same = np.eye(self.degree + 1)
        return np.asarray(np.kron(harmonic_rotation(self.n_harmonics), same), float)[None]

    def log_gauge_volume(self, kept: Sequence[int]) -> float:
        """Log 2 pi."""
        return float(len(kept) * np.log(2.0 * np.pi))

    def retract(self, t: Array, step: Array) -> Array:
        """Move, and wrap the angle into [-pi, pi)."""
        moved = t + step
        return np.column_stack([wrap_angle(moved[:, 0]), moved[:, 1]])

    def distance(self, t1: Array, t2: Array) -> Array:
        """Length of the shortest line on the flat cylinder."""
        return np.hypot(wrap_angle(t1[:, 0] - t2[:, 0]), t1[:, 1] - t2[:, 1])

    def to_config(self) -> dict[str, Any]:
        """Name, H and degree."""
        return {"topology": self.name, "n_harmonics": int(self.n_harmonics),
                "degree": int(self.degree)}
