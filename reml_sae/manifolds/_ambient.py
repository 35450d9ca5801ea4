"""What the sphere and the projective plane share: unit vectors of R^3 and spherical harmonics.

Coordinates t (n, 3) are unit vectors. The basis does not change along the rays of R^3, and the
prior (|t|^2 - 1)^2 / 8 holds the radius: its gradient vanishes at |t| = 1 and its Hessian is
t t^T, so that the row block is regular and the radial direction contributes (1/2) log 2 pi to a
Laplace approximation, as it does to `log_prior_volume`. Everything is finite at the origin too,
where rows that do not use the atom may stand.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from scipy.linalg import block_diag
from scipy.spatial.transform import Rotation

from reml_sae.manifolds._base import Manifold
from reml_sae.manifolds._harmonics import harmonic_jet, one_index, rotation_generators
from reml_sae.manifolds._rules import Rule, sphere_rule
from reml_sae.typing import Array


class UnitVectors(Manifold):
    """Unit vectors of R^3 with the spherical harmonics of some degrees, uniform prior, gauge SO(3).

    The harmonics of degree l come in the order m = 0, then for m = 1 .. l one as cos(m longitude)
    and one as sin(m longitude); they are orthonormal under the uniform distribution.
    """

    is_euclidean: ClassVar[bool] = False
    reach: ClassVar[float]
    """Length up to which steps lead to distinct points."""
    antipodal: ClassVar[bool] = False
    """Whether a vector and its opposite are one point."""
    degree: int

    @property
    @abstractmethod
    def degrees(self) -> range:
        """Degrees of the harmonics in the basis, 0 first."""

    @abstractmethod
    def degree_roughness(self, degree: int) -> float:
        """Roughness of a harmonic."""

    @property
    def latent_dim(self) -> int:
        """3."""
        return 3

    @property
    def intrinsic_dim(self) -> int:
        """2."""
        return 2

    @property
    def basis_size(self) -> int:
        """Sum of 2 l + 1 over the degrees."""
        return sum(2 * degree + 1 for degree in self.degrees)

    def jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """Harmonics and their derivatives in R^3."""
        parts = [harmonic_jet(t, degree, order) for degree in self.degrees]
        return tuple(np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))

    def roughness(self) -> Array | None:
        """Diagonal; None where it would be zero."""
        values = np.repeat([self.degree_roughness(degree) for degree in self.degrees],
                           [2 * degree + 1 for degree in self.degrees])
        return np.diag(values) if values.any() else None

    def prior_jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """(|t|^2 - 1)^2 / 8."""
        excess = np.einsum("nd,nd->n", t, t) - 1.0
        jet = (
            excess**2 / 8.0,
            0.5 * excess[:, None] * t,
            0.5 * excess[:, None, None] * np.eye(3) + np.einsum("ni,nj->nij", t, t),
            one_index(t),
        )
        return jet[:order + 1]

    def rule(self, spacing: Array) -> Rule:
        """Gauss-Legendre in the height times even longitudes."""
        return sphere_rule(float(spacing.min()))

    def prior_mean_basis(self) -> Array:
        """(1, 0, .., 0)."""
        return np.eye(self.basis_size)[0]

    def gauge_generators(self) -> Array:
        """Three, (3, M, M): rotations about the axes."""
        parts = [rotation_generators(degree) for degree in self.degrees]
        return np.stack([block_diag(*[part[a] for part in parts]) for a in range(3)])

    def gauge_field(self, t: Array) -> Array:
        """e_a x t."""
        return np.cross(np.eye(3)[:, None], t)

    def gauge_move(self, t: Array, c: Array) -> Array:
        """Rotated by |c| about c."""
        return np.asarray(t @ Rotation.from_rotvec(c).as_matrix().T, float)

    def log_gauge_volume(self, kept: Sequence[int]) -> float:
        """Log 2 pi for one axis; log 8 pi^2, the volume of SO(3), for more, as they make all."""
        return float(np.log([1.0, 2.0 * np.pi, 8.0 * np.pi**2])[min(len(kept), 2)])

    def retract(self, t: Array, step: Array) -> Array:
        """Exponential map of the tangential part of the step; the radial part has no effect."""
        base, tangent = _split(t, step)[:2]
        length = np.linalg.norm(tangent, axis=1, keepdims=True)
        return _unit(np.cos(length) * base + np.sinc(length / np.pi) * tangent)

    def log_step_volume(self, t: Array, step: Array) -> Array:
        """log(sin v / v) for a tangential part of length v <= reach, less half the squared radial.

        The radial term is the density by which the prior holds the radius.
        """
        _, tangent, radial = _split(t, step)
        length = np.linalg.norm(tangent, axis=1)
        inside = (length <= self.reach) & (length < np.pi)
        ratio = np.sinc(np.where(inside, length, 0.0) / np.pi)
        return np.where(inside, np.log(ratio) - 0.5 * radial**2, -np.inf)

    def distance(self, t1: Array, t2: Array) -> Array:
        """Length of the shorter arc of the great circle, or the angle between the lines."""
        return _arc(t1, t2, self.antipodal)

    @property
    def ambient_names(self) -> tuple[str, ...]:
        """x, y, z."""
        return ("x", "y", "z")

    def ambient(self, t: Array) -> Array:
        """The unit vectors themselves."""
        return _unit(t)

    def from_ambient(self, x: Array) -> Array:
        """Vectors over their length; NaN of the origin."""
        return np.where((x == 0.0).all(axis=1, keepdims=True), np.nan, _unit(x))

    def to_config(self) -> dict[str, Any]:
        """Name and degree."""
        return {"topology": self.name, "degree": int(self.degree)}


def _arc(t1: Array, t2: Array, antipodal: bool) -> Array:
    """Angle (n,) between vectors, or between their lines; accurate where it is small."""
    dot = np.einsum("nd,nd->n", t1, t2)
    return np.arctan2(np.linalg.norm(np.cross(t1, t2), axis=1), np.abs(dot) if antipodal else dot)


def spiral(height: Array) -> Array:
    """Unit vectors (n, 3) at given heights, turned by the golden angle from one to the next."""
    angle = np.pi * (3.0 - np.sqrt(5.0)) * np.arange(len(height))
    radius = np.sqrt(1.0 - height**2)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle), height])


def _unit(t: Array) -> Array:
    """Vectors over their length; the origin stays."""
    length = np.linalg.norm(t, axis=1, keepdims=True)
    return t / np.where(length > 0.0, length, 1.0)


def _split(t: Array, step: Array) -> tuple[Array, Array, Array]:
    """Unit base point, tangential part and radial length of a step."""
    base = _unit(t)
    radial = np.einsum("nd,nd->n", base, step)
    return base, step - radial[:, None] * base, radial
