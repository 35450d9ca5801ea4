"""The circle with a Fourier basis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from reml_sae.manifolds._base import Manifold, Relaxation
from reml_sae.manifolds._checks import check_integer
from reml_sae.manifolds._fourier import (
    fourier_derivatives,
    harmonic_frequencies,
    harmonic_rotation,
    wrap_angle,
)
from reml_sae.manifolds._rules import Rule, periodic_rule
from reml_sae.typing import Array


@dataclass(frozen=True)
class Circle(Manifold):
    """Circle, angles in radians in [-pi, pi), with a uniform prior.

    The basis is (1, cos t, sin t, .., cos Ht, sin Ht). Its roughness is h^4 on harmonic h >= 2, so
    that ellipses are unpenalised. The gauge is the rotation t -> t + eps.

    Parameters
    ----------
    n_harmonics : int
        H >= 1.
    """

    n_harmonics: int = 2
    name: ClassVar[str] = "circle"
    size_parameter: ClassVar[str | None] = "n_harmonics"
    is_euclidean: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_integer("n_harmonics", self.n_harmonics, 1)

    @property
    def latent_dim(self) -> int:
        """1."""
        return 1

    @property
    def basis_size(self) -> int:
        """2 H + 1."""
        return 2 * self.n_harmonics + 1

    @property
    def angular_axes(self) -> tuple[int, ...]:
        """The angle."""
        return (0,)

    @property
    def linear_dim(self) -> int:
        """2: the plane of the ellipse."""
        return 2

    @property
    def relaxation(self) -> Relaxation:
        """A ring."""
        return "ring"

    @property
    def is_fourier(self) -> bool:
        """True."""
        return True

    def jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """Basis and derivatives."""
        pairs = fourier_derivatives(t[:, 0], np.arange(1.0, self.n_harmonics + 1), order)
        out = []
        for m, pair in enumerate(pairs):
            basis = np.empty((len(t), self.basis_size))
            basis[:, 0], basis[:, 1:] = float(m == 0), pair
            out.append(basis.reshape(len(t), *[1] * m, self.basis_size))
        return tuple(out)

    def roughness(self) -> Array | None:
        """Diagonal of h^4 for h >= 2; None for a single harmonic."""
        if self.n_harmonics == 1:
            return None
        h = harmonic_frequencies(self.n_harmonics)
        return np.diag(np.where(h >= 2, h**4, 0.0))

    def prior_jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """Zero: the prior is uniform."""
        return tuple(np.zeros((len(t),) + (1,) * m) for m in range(order + 1))

    def log_prior_volume(self) -> float:
        """Log 2 pi."""
        return float(np.log(2.0 * np.pi))

    @property
    def log_multiplicity(self) -> float:
        """Log 2: the reflection t -> -t."""
        return float(np.log(2.0))

    def rule(self, spacing: Array) -> Rule:
        """Evenly spaced angles."""
        return periodic_rule(spacing[0])

    def prior_mean_basis(self) -> Array:
        """(1, 0, .., 0)."""
        return np.eye(self.basis_size)[0]

    def gauge_generators(self) -> Array:
        """One: Phi(t + eps) = Phi(t) (I + eps E), so R = -E."""
        return harmonic_rotation(self.n_harmonics)[None]

    def gauge_field(self, t: Array) -> Array:
        """Unit speed everywhere."""
        return np.ones((1, *t.shape))

    def gauge_move(self, t: Array, c: Array) -> Array:
        """Rotated by c."""
        return wrap_angle(t + c)

    def log_gauge_volume(self, kept: Sequence[int]) -> float:
        """Log 2 pi."""
        return float(len(kept) * np.log(2.0 * np.pi))

    def retract(self, t: Array, step: Array) -> Array:
        """Move and wrap into [-pi, pi)."""
        return wrap_angle(t + step)

    def log_step_volume(self, t: Array, step: Array) -> Array:
        """0 up to half a turn."""
        return np.where(np.abs(step[:, 0]) <= np.pi, 0.0, -np.inf)

    def distance(self, t1: Array, t2: Array) -> Array:
        """Length of the shorter arc."""
        return np.abs(wrap_angle(t1 - t2))[:, 0]

    def grid(self, n: int) -> Array:
        """Evenly spaced angles."""
        return (2.0 * np.pi * np.arange(n) / n - np.pi)[:, None]

    def to_config(self) -> dict[str, Any]:
        """Name and H."""
        return {"topology": self.name, "n_harmonics": int(self.n_harmonics)}
