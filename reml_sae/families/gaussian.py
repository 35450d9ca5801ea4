"""The Gaussian family: loss (z - eta)^2 / (2 phi) + log(2 pi phi) / 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Gaussian:
    """Normal observations with identity link and one variance phi; see `Family`."""

    name: ClassVar[str] = "gaussian"
    equal_weights: ClassVar[bool] = True

    def precision(self, log_dispersion: float) -> float:
        """1 / phi, the weight of every entry."""
        return float(np.exp(-log_dispersion))

    def loss(self, z: Array, eta: Array, log_dispersion: float) -> Array:
        """Negative log density of every row, (N,)."""
        residual = z - eta
        square = np.einsum("np,np->n", residual, residual)
        constant = 0.5 * z.shape[1] * (np.log(2.0 * np.pi) + log_dispersion)
        return 0.5 * self.precision(log_dispersion) * square + constant

    def loss_log_dispersion(self, z: Array, eta: Array, log_dispersion: float) -> float:
        """N p / 2 - RSS / (2 phi)."""
        rss = float(((z - eta) ** 2).sum())
        return 0.5 * z.size - 0.5 * self.precision(log_dispersion) * rss

    def score(self, z: Array, eta: Array, log_dispersion: float) -> Array:
        """(z - eta) / phi, (N, p)."""
        return self.precision(log_dispersion) * (z - eta)

    def weights(self, z: Array, eta: Array, log_dispersion: float) -> Array:
        """1 / phi, (N, p)."""
        return np.broadcast_to(np.asarray(self.precision(log_dispersion)), z.shape)
