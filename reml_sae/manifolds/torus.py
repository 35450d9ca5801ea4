"""The torus with a tensor Fourier basis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from reml_sae.manifolds._base import Manifold
from reml_sae.manifolds._checks import check_integer
from reml_sae.manifolds._fourier import (
    harmonic_derivatives,
    harmonic_frequencies,
    harmonic_rotation,
    wrap_angle,
)
from reml_sae.manifolds._product import lattice, tensor_jet
from reml_sae.manifolds._rules import Rule, periodic_rule, product_rule
from reml_sae.typing import Array


@dataclass(frozen=True)
class Torus(Manifold):
    """Two angles in radians in [-pi, pi), with a uniform prior.

    The basis is the tensor product of (1, 2^(1/2) cos ht, 2^(1/2) sin ht), h <= H, with itself, the
    second angle's varying fastest; every function has mean square 1. The roughness is
    (h1^2 + h2^2)^2, the squared Laplacian, except on the four first harmonics of one angle alone:
    the flat torus in R^4 is unpenalised. The gauge is the rotation of either angle.

    Parameters
    ----------
    n_harmonics : int
        H >= 1.
    """

    n_harmonics: int = 1
    name: ClassVar[str] = "torus"
    size_parameter: ClassVar[str | None] = "n_harmonics"
    is_euclidean: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_integer("n_harmonics", self.n_harmonics, 1)

    @property
    def latent_dim(self) -> int:
        """2."""
        return 2

    @property
    def basis_size(self) -> int:
        """(2 H + 1)^2."""
        return (2 * self.n_harmonics + 1) ** 2

    @property
    def angular_axes(self) -> tuple[int, ...]:
        """Both."""
        return (0, 1)

    @property
    def linear_dim(self) -> int:
        """4: two planes, one for each angle."""
        return 4

    def jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """Products and their derivatives."""
        return tensor_jet(harmonic_derivatives(t[:, 0], self.n_harmonics, order),
                          harmonic_derivatives(t[:, 1], self.n_harmonics, order))

    def roughness(self) -> Array | None:
        """Diagonal of (h1^2 + h2^2)^2, 0 where that is at most 1."""
        h = harmonic_frequencies(self.n_harmonics)
        laplacian = np.add.outer(h**2, h**2).ravel()
        return np.diag(np.where(laplacian > 1.0, laplacian**2, 0.0))

    def prior_jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """Zero: the prior is uniform."""
        return tuple(np.zeros((len(t),) + (2,) * m) for m in range(order + 1))

    def log_prior_volume(self) -> float:
        """2 log 2 pi."""
        return float(2.0 * np.log(2.0 * np.pi))

    @property
    def log_multiplicity(self) -> float:
        """Log 8: the reflection of either angle, and their exchange."""
        return float(np.log(8.0))

    def rule(self, spacing: Array) -> Rule:
        """Lattice of angles."""
        return product_rule(periodic_rule(spacing[0]), periodic_rule(spacing[1]))

    def prior_mean_basis(self) -> Array:
        """(1, 0, .., 0)."""
        return np.eye(self.basis_size)[0]

    def gauge_generators(self) -> Array:
        """Two, (2, M, M)."""
        rotation = harmonic_rotation(self.n_harmonics)
        same = np.eye(len(rotation))
        return np.stack([np.kron(rotation, same), np.kron(same, rotation)])

    def gauge_field(self, t: Array) -> Array:
        """Unit speed in either angle."""
        return np.broadcast_to(np.eye(2)[:, None], (2, *t.shape)).copy()

    def gauge_move(self, t: Array, c: Array) -> Array:
        """Angles rotated by c."""
        return wrap_angle(t + c)

    def log_gauge_volume(self, kept: Sequence[int]) -> float:
        """Log 2 pi for each angle."""
        return float(len(kept) * np.log(2.0 * np.pi))

    def retract(self, t: Array, step: Array) -> Array:
        """Move and wrap into [-pi, pi)."""
        return wrap_angle(t + step)

    def log_step_volume(self, t: Array, step: Array) -> Array:
        """0 up to half a turn of either angle."""
        return np.where((np.abs(step) <= np.pi).all(axis=1), 0.0, -np.inf)

    def distance(self, t1: Array, t2: Array) -> Array:
        """Length of the shortest line on the flat torus."""
        return np.linalg.norm(wrap_angle(t1 - t2), axis=1)

    def grid(self, n: int) -> Array:
        """Square lattice of about n points."""
        side = max(2, round(np.sqrt(n)))
        angles = 2.0 * np.pi * np.arange(side) / side - np.pi
        return lattice(angles, angles)

    def to_config(self) -> dict[str, Any]:
        """Name and H."""
        return {"topology": self.name, "n_harmonics": int(self.n_harmonics)}
