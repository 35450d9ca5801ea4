"""The Gaussian family with identity link and one variance phi = exp(psi[0]).

Its deviance is (z - eta)^2 and its saturated loss (1/2) log(2 pi phi). With known weights w the
variances are phi / w: the deviance is w (z - eta)^2, the saturated loss (1/2) log(2 pi phi / w).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from reml_sae.families._base import ScaledFamily
from reml_sae.families._checks import check_finite, check_order, refuse
from reml_sae.families._special import LOG_2PI
from reml_sae.typing import Array


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


@dataclass(frozen=True, eq=False)
class WeightedGaussian(Gaussian):
    """Normal entries whose variances are phi over known weights; see `Family`.

    Parameters
    ----------
    weights : array of positive numbers that broadcasts to the data
    """

    weights: Any = 1.0

    equal_weights: ClassVar[bool] = False
    row_weights: ClassVar[bool] = False

    def __post_init__(self) -> None:
        weights = np.array(self.weights, float)
        refuse(~(np.isfinite(weights) & (weights > 0.0)), weights, "weights must be positive",
               name="weights")
        object.__setattr__(self, "weights", weights)

    def restrict(self, rows: NDArray[np.intp], shape: tuple[int, ...]) -> Self:
        """The family with the weights of the given rows."""
        return type(self)(np.broadcast_to(self.weights, shape)[rows])

    def initial_psi(self, z: Array) -> Array:
        """Log of the weighted mean square about the weighted mean."""
        weights = np.broadcast_to(self.weights, np.shape(z))
        centre = np.average(z, axis=0, weights=weights)
        square = float(np.mean(weights * (z - centre) ** 2))
        return np.clip(np.log([max(square, np.finfo(float).tiny)]), *self.psi_bounds()[0])

    def saturated_loss(self, z: Array, psi: Array) -> Array:
        """(1/2) log(2 pi phi / w)."""
        return np.broadcast_to(0.5 * (LOG_2PI + psi[0] - np.log(self.weights)), np.shape(z))

    def deviance(self, z: Array, eta: Array, psi: Array) -> Array:
        """W (z - eta)^2."""
        return self.weights * np.square(z - eta)

    def loss_eta(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """W (eta - z) / phi, then w / phi, then 0."""
        return self.weights * super().loss_eta(z, eta, psi, order)

    def weight(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """W / phi, and its derivative 0."""
        return self.weights * super().weight(z, eta, psi, order)

    def variance(self, eta: Array, psi: Array) -> Array:
        """Phi / w."""
        return np.broadcast_to(self.dispersion(psi) / self.weights, np.shape(eta))

    def sample(self, rng: np.random.Generator, eta: Array, psi: Array) -> Array:
        """Normal draws."""
        return rng.normal(eta, np.sqrt(self.variance(eta, psi)))
