"""The circle with a Fourier basis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError
from reml_sae.manifolds._base import Manifold

Array = NDArray[np.float64]


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
    prior_precision: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.n_harmonics, (int, np.integer)) or self.n_harmonics < 1:
            raise InputError(f"n_harmonics must be an integer >= 1, got {self.n_harmonics!r}")

    @property
    def latent_dim(self) -> int:
        """1."""
        return 1

    @property
    def basis_size(self) -> int:
        """2 H + 1."""
        return 2 * self.n_harmonics + 1

    @property
    def linear_dim(self) -> int:
        """2: the plane of the ellipse."""
        return 2

    def jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """Basis and derivatives; the m-th derivative of cos ht is h^m cos(ht + m pi / 2)."""
        h = np.arange(1, self.n_harmonics + 1)
        cos, sin = np.cos(t * h), np.sin(t * h)
        out = []
        for m in range(order + 1):
            values = np.empty((len(t), self.basis_size))
            values[:, 0] = 1.0 if m == 0 else 0.0
            values[:, 1::2] = h**m * cos
            values[:, 2::2] = h**m * sin
            out.append(values.reshape((len(t),) + (1,) * m + (self.basis_size,)))
            cos, sin = -sin, cos
        return tuple(out)

    def roughness(self) -> Array | None:
        """Diagonal of h^4 for h >= 2; None for a single harmonic."""
        if self.n_harmonics == 1:
            return None
        h = np.repeat(np.arange(1, self.n_harmonics + 1), 2).astype(float)
        return np.diag(np.concatenate([[0.0], np.where(h >= 2, h**4, 0.0)]))

    def log_prior_volume(self) -> float:
        """Log 2 pi."""
        return float(np.log(2.0 * np.pi))

    def prior_mean_basis(self) -> Array:
        """(1, 0, .., 0)."""
        return np.eye(self.basis_size)[0]

    def gauge_generators(self) -> Array:
        """One: Phi(t + eps) = Phi(t) (I + eps E), so R = -E."""
        generator = np.zeros((1, self.basis_size, self.basis_size))
        for h in range(1, self.n_harmonics + 1):
            cos, sin = 2 * h - 1, 2 * h
            generator[0, sin, cos] = h
            generator[0, cos, sin] = -h
        return generator

    def gauge_field(self, t: Array) -> Array:
        """Unit speed everywhere."""
        return np.ones((1, *t.shape))

    def gauge_move(self, t: Array, c: Array) -> Array:
        """Rotated by c."""
        return wrap_angle(t + c)

    def log_gauge_volume(self, kept: Sequence[int]) -> float:
        """Log 2 pi."""
        return float(np.log(2.0 * np.pi))

    def retract(self, t: Array, step: Array) -> Array:
        """Move and wrap into [-pi, pi)."""
        return wrap_angle(t + step)

    def distance(self, t1: Array, t2: Array) -> Array:
        """Length of the shorter arc."""
        return np.abs(wrap_angle(t1 - t2))[:, 0]

    def grid(self, n: int) -> Array:
        """Evenly spaced angles."""
        return (2.0 * np.pi * np.arange(n) / n - np.pi)[:, None]

    def to_config(self) -> dict[str, Any]:
        """Name and H."""
        return {"topology": self.name, "n_harmonics": int(self.n_harmonics)}


def wrap_angle(t: Array) -> Array:
    """Angles wrapped into [-pi, pi)."""
    return np.mod(t + np.pi, 2.0 * np.pi) - np.pi
