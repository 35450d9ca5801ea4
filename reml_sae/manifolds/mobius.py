"""The Mobius strip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.linalg import block_diag

from reml_sae.manifolds._band import Band, band_roughness
from reml_sae.manifolds._checks import check_integer
from reml_sae.manifolds._fourier import (
    fourier_derivatives,
    harmonic_derivatives,
    harmonic_frequencies,
    harmonic_rotation,
    rotation_generator,
    wrap_angle,
)
from reml_sae.manifolds._product import product_jet
from reml_sae.typing import Array


@dataclass(frozen=True)
class Mobius(Band):
    """Angle t in [-pi, pi), uniform, and height w, N(0, 1); (t + 2 pi, w) is the point (t, -w).

    The basis has an even part 1, 2^(1/2) cos ht, 2^(1/2) sin ht, h <= H, and an odd part
    2^(1/2) w cos kt, 2^(1/2) w sin kt, k = 1/2, 3/2, .., H + 1/2; every function has mean square 1.
    The roughness is E ||Hess f||^2, but 0 on the first harmonics and on k = 1/2, so that the
    strip that makes half a turn about an ellipse is unpenalised. The gauge is the rotation of t.

    Parameters
    ----------
    n_harmonics : int
        H >= 1.
    """

    n_harmonics: int = 1
    name: ClassVar[str] = "mobius"
    size_parameter: ClassVar[str | None] = "n_harmonics"

    def __post_init__(self) -> None:
        check_integer("n_harmonics", self.n_harmonics, 1)

    @property
    def half_frequencies(self) -> Array:
        """1/2, 3/2, .., H + 1/2."""
        return np.arange(self.n_harmonics + 1.0) + 0.5

    @property
    def basis_size(self) -> int:
        """4 H + 3."""
        return 4 * self.n_harmonics + 3

    def jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """Even and odd part and their derivatives."""
        even = harmonic_derivatives(t[:, 0], self.n_harmonics, order)
        odd = fourier_derivatives(t[:, 0], self.half_frequencies, order)
        angular = [np.column_stack([e, np.sqrt(2.0) * o])
                   for e, o in zip(even, odd, strict=True)]
        # derivatives of 1 and of w
        one, height = np.zeros((4, len(t), 1)), np.zeros((4, len(t), 1))
        one[0] = height[1] = 1.0
        height[0] = t[:, 1:]
        n_odd = odd[0].shape[1]
        radial = [np.repeat(np.column_stack([one[m], height[m]]), [even[0].shape[1], n_odd], axis=1)
                  for m in range(order + 1)]
        return product_jet(angular, radial)

    def roughness(self) -> Array | None:
        """Diagonal of E ||Hess f||^2, with the first harmonics and the half turn free."""
        h, k = harmonic_frequencies(self.n_harmonics), np.repeat(self.half_frequencies, 2)
        even = np.where(h > 1.0, band_roughness(h, np.zeros_like(h)), 0.0)
        odd = np.where(k > 0.5, band_roughness(k, np.ones_like(k)), 0.0)
        return np.diag(np.concatenate([even, odd]))

    @property
    def linear_axes(self) -> tuple[int, ...]:
        """The height."""
        return (1,)

    @property
    def log_multiplicity(self) -> float:
        """Log 2: the reflection of the angle; one turn of it is that of the height."""
        return float(np.log(2.0))


    def gauge_generators(self) -> Array:
        """One."""
        return block_diag(harmonic_rotation(self.n_harmonics),
                          rotation_generator(self.half_frequencies))[None]

    def log_gauge_volume(self, kept: Sequence[int]) -> float:
        """Log 4 pi: one turn of t reflects the strip, two restore it."""
        return float(len(kept) * np.log(4.0 * np.pi))

    def retract(self, t: Array, step: Array) -> Array:
        """Move, wrap the angle into [-pi, pi), and flip the height for each turn."""
        moved = t + step
        turns = np.floor((moved[:, 0] + np.pi) / (2.0 * np.pi))
        return np.column_stack([moved[:, 0] - 2.0 * np.pi * turns,
                                np.where(turns % 2.0 == 0.0, moved[:, 1], -moved[:, 1])])

    def distance(self, t1: Array, t2: Array) -> Array:
        """Length of the shortest line on the flat strip."""
        zero = np.zeros_like(t1)
        first, second = self.retract(t1, zero), self.retract(t2, zero)
        gap = first[:, 0] - second[:, 0]
        straight = np.hypot(gap, first[:, 1] - second[:, 1])
        across = np.hypot(2.0 * np.pi - np.abs(gap), first[:, 1] + second[:, 1])
        return np.minimum(straight, across)

    def to_config(self) -> dict[str, Any]:
        """Name and H."""
        return {"topology": self.name, "n_harmonics": int(self.n_harmonics)}

    @property
    def ambient_names(self) -> tuple[str, ...]:
        """Cosine and sine of t, and the height times those of t / 2."""
        return ("cos", "sin", "height_cos_half", "height_sin_half")

    def ambient(self, t: Array) -> Array:
        """The strip in R^4, where (t + 2 pi, w) is (t, -w)."""
        angle, height = t.T
        return np.column_stack([np.cos(angle), np.sin(angle), height * np.cos(0.5 * angle),
                                height * np.sin(0.5 * angle)])

    def from_ambient(self, x: Array) -> Array:
        """Angle of the first two, and the height along the direction of half of it."""
        angle = wrap_angle(np.arctan2(x[:, 1], x[:, 0]))
        angle[(x[:, 0] == 0.0) & (x[:, 1] == 0.0)] = np.nan
        height = x[:, 2] * np.cos(0.5 * angle) + x[:, 3] * np.sin(0.5 * angle)
        return np.column_stack([angle, height])
