"""The negative binomial family NB2 with log link, mu = exp(eta), and theta = exp(psi[0]).

Counts with variance mu + mu^2 / theta; theta -> inf is the Poisson family. With u = eta - log
theta, p = expit(u) = mu / (mu + theta), and R = log((theta + mu) / (theta + z)),

    deviance = 2 [(z + theta) R - z d],    d = eta - log z
             = 2 [z log(1 + theta / (z + theta) (e^-d - 1)) + theta R]
    saturated loss = count_constant(z) + (1/2) log(1 + z / theta)
                     + stirling_error(theta) - stirling_error(theta + z)

The second form has terms of the size of theta where the first one has terms of the size of z, which
cancel. The derivative in log theta is theta R - (theta p - z (1 - p)) plus that of the saturated
loss: the difference of digamma functions of the textbook, without its cancellation at large theta.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from reml_sae.families._base import Family
from reml_sae.families._checks import check_counts, check_order
from reml_sae.families._special import (
    EXP_LIMIT,
    digamma_error,
    exp_limited,
    softplus,
    stirling_error,
)
from reml_sae.families.poisson import count_constant
from reml_sae.typing import Array


@dataclass(frozen=True)
class NegativeBinomial(Family):
    """Counts with more variance than Poisson ones; see `Family`."""

    name: ClassVar[str] = "negative_binomial"
    link: ClassVar[str] = "log"

    def check(self, z: Array) -> None:
        """Refuse entries that are not non-negative integers."""
        check_counts(z, "negative binomial")

    @property
    def psi_names(self) -> tuple[str, ...]:
        """The log of theta."""
        return ("log_theta",)

    def psi_bounds(self) -> Array:
        """Box of log theta; at its upper end the counts are Poisson in all but name."""
        return np.array([[-10.0, 15.0]])

    def initial_psi(self, z: Array) -> Array:
        """Log of mu^2 / (variance - mu), pooled over columns; theta = 100 without an excess."""
        mean, variance = np.mean(z, axis=0), np.var(z, axis=0)
        excess, square = float(np.mean(variance - mean)), float(np.mean(mean**2))
        theta = square / excess if excess > 0.0 < square else 100.0
        return np.log([np.clip(theta, 1e-2, 1e3)])

    def saturated_loss(self, z: Array, psi: Array) -> Array:
        """Loss at mu = z; see the module."""
        z, theta = np.asarray(z, float), np.exp(psi[0])
        excess = 0.5 * np.log1p(z / theta) + stirling_error(theta) - stirling_error(theta + z)
        return count_constant(z) + excess

    def deviance(self, z: Array, eta: Array, psi: Array) -> Array:
        """2 [z log(1 + theta / (z + theta) (e^-d - 1)) + theta R]."""
        z, eta, theta = np.asarray(z, float), np.minimum(eta, EXP_LIMIT), np.exp(psi[0])
        d = eta - np.log(np.where(z > 0.0, z, 1.0))
        ratio = self._log_ratio(z, eta, psi)
        change = theta / (z + theta) * np.expm1(np.minimum(-d, EXP_LIMIT))
        is_near = change > -0.5
        rest = np.where(is_near, np.log1p(np.where(is_near, change, 0.0)), ratio - d)
        value = z * rest + theta * ratio
        return 2.0 * np.maximum(value, 0.0)

    def _log_ratio(self, z: Array, eta: Array, psi: Array) -> Array:
        """R = log((theta + mu) / (theta + z)), without cancellation where mu is near z."""
        theta = np.exp(psi[0])
        d = np.minimum(eta, EXP_LIMIT) - np.log(np.where(z > 0.0, z, 1.0))
        change = z / (z + theta) * np.expm1(d)
        is_near = (z > 0.0) & (change > -0.5)
        far = softplus(eta - psi[0]) - np.log1p(z / theta)
        return np.where(is_near, np.log1p(np.where(is_near, change, 0.0)), far)

    def loss_eta(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """theta p - z (1 - p), then (theta + z) p (1 - p), then that times 1 - 2 p."""
        check_order("loss_eta", order, (1, 2, 3))
        u, theta = np.asarray(eta) - psi[0], np.exp(psi[0])
        p, rest = expit(u), expit(-u)
        if order == 1:
            return theta * p - z * rest
        second = (theta + np.asarray(z, float)) * p * rest
        return second if order == 2 else -second * np.tanh(0.5 * u)

    def open_side(self, z: Array) -> NDArray[np.int8]:
        """Down at z = 0."""
        return np.where(np.asarray(z) == 0, -1, 0).astype(np.int8)

    def weight(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """theta p, and its derivative theta p (1 - p)."""
        check_order("weight", order, (0, 1))
        u = np.asarray(eta) - psi[0] + np.zeros(np.shape(z))
        value = np.exp(psi[0]) * expit(u)
        return value * expit(-u) if order else value

    def loss_psi(self, z: Array, eta: Array, psi: Array) -> Array:
        """Derivative in log theta, (1, ..); see the module."""
        z, theta = np.asarray(z, float), np.exp(psi[0])
        normaliser = theta * (digamma_error(theta + z) - digamma_error(theta))
        normaliser -= 0.5 * z / (theta + z)
        value = theta * self._log_ratio(z, eta, psi) - self.loss_eta(z, eta, psi, 1)
        return (value + normaliser)[None]

    def loss_eta_psi(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """p times the first derivative, then theta p (1 - p) less the third, (1, ..)."""
        check_order("loss_eta_psi", order, (1, 2))
        if order == 1:
            return (expit(np.asarray(eta) - psi[0]) * self.loss_eta(z, eta, psi, 1))[None]
        return (self.weight(z, eta, psi, 1) - self.loss_eta(z, eta, psi, 3))[None]

    def weight_psi(self, z: Array, eta: Array, psi: Array) -> Array:
        """theta p^2, (1, ..)."""
        return (self.weight(z, eta, psi, 0) * expit(np.asarray(eta) - psi[0]))[None]

    def mean(self, eta: Array) -> Array:
        """exp(eta)."""
        return exp_limited(eta)

    def variance(self, eta: Array, psi: Array) -> Array:
        """mu + mu^2 / theta."""
        return self.mean(eta) + exp_limited(2.0 * np.asarray(eta) - psi[0])

    def sample(self, rng: np.random.Generator, eta: Array, psi: Array) -> Array:
        """Poisson draws with Gamma means; numpy refuses means above 9e18."""
        theta = np.exp(psi[0])
        return rng.poisson(rng.gamma(theta, self.mean(eta) / theta)).astype(float)

    def initial_eta(self, z: Array) -> Array:
        """log(z + 1/10)."""
        return np.log(np.asarray(z, float) + 0.1)
