"""The Poisson family with log link, mu = exp(eta).

    deviance = 2 [mu - z - z (eta - log z)]        saturated loss = log z! - z log z + z

With d = eta - log z the deviance is 2 z (e^d - 1 - d), and 2 mu at z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from reml_sae.families._base import Family
from reml_sae.families._checks import check_counts, check_order
from reml_sae.families._special import EXP_LIMIT, LOG_2PI, exp_limited, stirling_error
from reml_sae.typing import Array


@dataclass(frozen=True)
class Poisson(Family):
    """Counts with variance equal to their mean; see `Family`."""

    name: ClassVar[str] = "poisson"
    link: ClassVar[str] = "log"

    def check(self, z: Array) -> None:
        """Refuse entries that are not non-negative integers."""
        check_counts(z, "Poisson")

    def saturated_loss(self, z: Array, psi: Array) -> Array:
        """(1/2) log(2 pi z) plus the Stirling error of z, and 0 at z = 0."""
        return count_constant(z)

    def deviance(self, z: Array, eta: Array, psi: Array) -> Array:
        """2 z (e^d - 1 - d), d = eta - log z."""
        z, eta = np.asarray(z, float), np.minimum(eta, EXP_LIMIT)
        d = eta - np.log(np.where(z > 0.0, z, 1.0))
        return 2.0 * np.where(z > 0.0, z * (np.expm1(d) - d), np.exp(eta))

    def loss_eta(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """mu - z, then mu, then mu."""
        check_order("loss_eta", order, (1, 2, 3))
        mean = self.mean(eta)
        return mean - z if order == 1 else mean + np.zeros(np.shape(z))

    def open_side(self, z: Array) -> NDArray[np.int8]:
        """Down at z = 0."""
        return np.where(np.asarray(z) == 0, -1, 0).astype(np.int8)

    def weight(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """mu, and its derivative mu."""
        check_order("weight", order, (0, 1))
        return self.mean(eta) + np.zeros(np.shape(z))

    def mean(self, eta: Array) -> Array:
        """exp(eta)."""
        return exp_limited(eta)

    def variance(self, eta: Array, psi: Array) -> Array:
        """exp(eta)."""
        return self.mean(eta)

    def sample(self, rng: np.random.Generator, eta: Array, psi: Array) -> Array:
        """Poisson draws; numpy refuses means above 9e18."""
        return rng.poisson(self.mean(eta)).astype(float)

    def initial_eta(self, z: Array) -> Array:
        """log(z + 1/10)."""
        return np.log(np.asarray(z, float) + 0.1)


def count_constant(z: Array) -> Array:
    """log z! - z log z + z, by Stirling's series; 0 at z = 0."""
    z, positive = np.asarray(z, float), np.asarray(z) > 0.0
    out = np.zeros(z.shape)
    z = z[positive]
    out[positive] = 0.5 * (LOG_2PI + np.log(z)) + stirling_error(z)
    return out
