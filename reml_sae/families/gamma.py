"""The Gamma family with log link, mu = exp(eta), and dispersion phi = exp(psi[0]).

The shape is nu = 1 / phi and the variance phi mu^2. With d = log z - eta,

    loss = nu (e^d - 1 - d) + log Gamma(nu) - nu log nu + nu + log z

    deviance = 2 (e^d - 1 - d)
    saturated loss = log z + (1/2) log(2 pi phi) + stirling_error(nu)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reml_sae.families._base import ScaledFamily
from reml_sae.families._checks import check_finite, check_order, refuse
from reml_sae.families._special import (
    EXP_LIMIT,
    LOG_2PI,
    digamma_error,
    exp_limited,
    stirling_error,
)
from reml_sae.typing import Array


@dataclass(frozen=True)
class Gamma(ScaledFamily):
    """Positive entries with a constant coefficient of variation; see `Family`.

    The expected weights are 1 / phi for every entry, but the observed curvature is not.
    """

    name: ClassVar[str] = "gamma"
    link: ClassVar[str] = "log"

    def check(self, z: Array) -> None:
        """Refuse entries that are not positive."""
        check_finite(z, "Gamma")
        refuse(np.asarray(z) <= 0.0, z,
               "Gamma data must be positive; the tweedie family allows zeros")

    def psi_bounds(self) -> Array:
        """Box of log phi, which has no unit."""
        return np.array([[-25.0, 10.0]])

    def initial_psi(self, z: Array) -> Array:
        """Log of the squared coefficient of variation of the columns."""
        ratio = float(np.mean(np.var(z / np.mean(z, axis=0), axis=0)))
        return np.clip(np.log([max(ratio, np.finfo(float).tiny)]), *self.psi_bounds()[0])

    def saturated_loss(self, z: Array, psi: Array) -> Array:
        """log z + (1/2) log(2 pi phi) + stirling_error(1 / phi)."""
        shape = 1.0 / self.dispersion(psi)
        return np.log(z) + 0.5 * (LOG_2PI + psi[0]) + stirling_error(shape)

    def saturated_loss_psi(self, z: Array, psi: Array) -> Array:
        """1/2 + nu digamma_error(nu)."""
        shape = 1.0 / self.dispersion(psi)
        return np.full(np.shape(z), 0.5 + shape * digamma_error(shape))

    def deviance(self, z: Array, eta: Array, psi: Array) -> Array:
        """2 (e^d - 1 - d), d = log z - eta."""
        d = np.minimum(np.log(z) - eta, EXP_LIMIT)
        return 2.0 * (np.expm1(d) - d)

    def loss_eta(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """nu (1 - z / mu), then nu z / mu, then -nu z / mu."""
        check_order("loss_eta", order, (1, 2, 3))
        shape, d = 1.0 / self.dispersion(psi), np.minimum(np.log(z) - eta, EXP_LIMIT)
        if order == 1:
            return -shape * np.expm1(d)
        return (shape if order == 2 else -shape) * np.exp(d)

    def weight(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """nu, and its derivative 0."""
        check_order("weight", order, (0, 1))
        shape = np.broadcast_shapes(np.shape(z), np.shape(eta))
        return np.full(shape, 0.0 if order else 1.0 / self.dispersion(psi))

    def mean(self, eta: Array) -> Array:
        """exp(eta)."""
        return exp_limited(eta)

    def variance(self, eta: Array, psi: Array) -> Array:
        """phi mu^2."""
        return exp_limited(psi[0] + 2.0 * np.asarray(eta))

    def sample(self, rng: np.random.Generator, eta: Array, psi: Array) -> Array:
        """Gamma draws of mean mu; a draw that underflows is the smallest positive float."""
        shape = 1.0 / self.dispersion(psi)
        draws = rng.gamma(shape, self.mean(eta) / shape)
        return np.maximum(draws, np.finfo(float).tiny)

    def initial_eta(self, z: Array) -> Array:
        """log z."""
        return np.log(z)
