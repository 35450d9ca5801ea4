"""The Gaussian family with identity link and one variance phi = exp(psi[0]).

Its deviance is (z - eta)^2 and its saturated loss (1/2) log(2 pi phi).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reml_sae.families._base import Array, ScaledFamily
from reml_sae.families._checks import check_finite, check_order
from reml_sae.families._special import LOG_2PI


@dataclass(frozen=True)
class Gaussian(ScaledFamily):
    """Normal entries of one variance; see `Family`."""

    name: ClassVar[str] = "gaussian"
    link: ClassVar[str] = "identity"
    has_dispersion: ClassVar[bool] = True
    equal_weights: ClassVar[bool] = True
    row_weights: ClassVar[bool] = True

    def precision(self, log_dispersion: float) -> float:
        """1 / phi, the weight of every entry."""
        return float(np.exp(-log_dispersion))

    def row_losses(self, squares: Array, p: int, psi: Array) -> tuple[Array, Array]:
        """Losses of rows of p entries at squared distances, and their weights of 1."""
        loss = 0.5 * squares / self.dispersion(psi) + 0.5 * p * (LOG_2PI + psi[0])
        return loss, np.ones_like(loss)

    def check(self, z: Array) -> None:
        """Refuse entries that are not finite."""
        check_finite(z, "Gaussian")

    def initial_psi(self, z: Array) -> Array:
        """Log variance about the means of the columns."""
        square = float(np.mean((z - np.mean(z, axis=0)) ** 2))
        return np.clip(np.log([max(square, np.finfo(float).tiny)]), *self.psi_bounds()[0])

    def saturated_loss(self, z: Array, psi: Array) -> Array:
        """(1/2) log(2 pi phi); a read-only view of one number."""
        return np.broadcast_to(np.asarray(0.5 * (LOG_2PI + psi[0])), np.shape(z))

    def saturated_loss_psi(self, z: Array, psi: Array) -> Array:
        """1/2; a read-only view of one number."""
        return np.broadcast_to(np.asarray(0.5), np.shape(z))

    def deviance(self, z: Array, eta: Array, psi: Array) -> Array:
        """(z - eta)^2."""
        return np.square(z - eta)

    def loss_eta(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """(eta - z) / phi, then 1 / phi, then 0."""
        check_order("loss_eta", order, (1, 2, 3))
        precision = self.precision(psi[0])
        if order == 1:
            return precision * (eta - z)
        shape = np.broadcast_shapes(np.shape(z), np.shape(eta))
        return np.full(shape, precision if order == 2 else 0.0)

    def weight(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """1 / phi, and its derivative 0."""
        check_order("weight", order, (0, 1))
        shape = np.broadcast_shapes(np.shape(z), np.shape(eta))
        return np.full(shape, 0.0 if order else self.precision(psi[0]))

    def mean(self, eta: Array) -> Array:
        """The linear predictor itself."""
        return np.array(eta, float)

    def variance(self, eta: Array, psi: Array) -> Array:
        """phi."""
        return np.full(np.shape(eta), self.dispersion(psi))

    def sample(self, rng: np.random.Generator, eta: Array, psi: Array) -> Array:
        """Normal draws."""
        return rng.normal(eta, np.exp(0.5 * psi[0]))

    def initial_eta(self, z: Array) -> Array:
        """The data."""
        return np.array(z, float)
