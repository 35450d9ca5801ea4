"""What the cylinder and the Mobius strip share: an angle and a height w with the prior N(0, 1).

Functions are products of a Fourier function of the angle with a Hermite polynomial of the height,
orthonormal under the prior. Their roughness is E ||Hess f||^2, except that the first harmonics are
free: frequency h and degree j have h^4 + 2 h^2 j + j (j - 1). The gauge is the rotation.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from reml_sae.manifolds._base import Manifold
from reml_sae.manifolds._prior import gaussian_prior_jet
from reml_sae.manifolds._product import lattice
from reml_sae.manifolds._rules import Rule, gaussian_rule, held_rule, periodic_rule, product_rule
from reml_sae.typing import Array


class Band(Manifold):
    """Angle in [-pi, pi), uniform, and height, N(0, 1)."""

    is_euclidean: ClassVar[bool] = False

    @property
    def latent_dim(self) -> int:
        """2."""
        return 2

    @property
    def gaussian_axes(self) -> tuple[int, ...]:
        """The height."""
        return (1,)

    @property
    def angular_axes(self) -> tuple[int, ...]:
        """The first."""
        return (0,)

    @property
    def linear_dim(self) -> int:
        """3: the plane of the first harmonic, and the height."""
        return 3

    def prior_jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """w^2 / 2."""
        return gaussian_prior_jet(t, order, np.array([0.0, 1.0]))

    def log_prior_volume(self) -> float:
        """Log 2 pi for the angle, (1/2) log 2 pi for the height."""
        return float(1.5 * np.log(2.0 * np.pi))

    def rule(self, spacing: Array) -> Rule:
        """Even angles, times even heights where the height is not linear."""
        height = held_rule() if self.linear_axes else gaussian_rule(spacing[1])
        return product_rule(periodic_rule(spacing[0]), height)

    def prior_mean_basis(self) -> Array:
        """(1, 0, .., 0)."""
        return np.eye(self.basis_size)[0]

    def gauge_field(self, t: Array) -> Array:
        """Unit speed in the angle."""
        return np.broadcast_to([1.0, 0.0], (1, *t.shape)).copy()

    def gauge_move(self, t: Array, c: Array) -> Array:
        """Rotated by c."""
        return self.retract(t, np.array([c[0], 0.0]))

    def log_step_volume(self, t: Array, step: Array) -> Array:
        """0 up to half a turn."""
        return np.where(np.abs(step[:, 0]) <= np.pi, 0.0, -np.inf)

    def grid(self, n: int) -> Array:
        """Lattice of about n points, over three prior standard deviations of the height."""
        side = max(2, round(np.sqrt(n)))
        return lattice(2.0 * np.pi * np.arange(side) / side - np.pi, np.linspace(-3.0, 3.0, side))


def band_roughness(frequency: Array, degree: Array) -> Array:
    """E ||Hess f||^2 of functions of given frequency (M,) and degree in w (M,), as (M,)."""
    return frequency**4 + 2.0 * frequency**2 * degree + degree * (degree - 1.0)
