"""Every family at several parameter values, each with an independent log density."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit, logsumexp

from reml_sae.families import (
    Binomial,
    Family,
    Gamma,
    Gaussian,
    NegativeBinomial,
    Poisson,
    StudentT,
    Tweedie,
)

ETA = np.array([-2.0, -0.3, 0.4, 1.7])
TRIALS = np.array([1.0, 2.0, 7.0, 40.0])


@dataclass(frozen=True, eq=False)
class Case:
    """A family at one psi.

    ``log_density(z, eta, psi)`` is the reference; ``support`` decides how expectations over z are
    taken: "counts" by summation, the others by quadrature.
    """

    label: str
    family: Family
    psi: np.ndarray
    log_density: Callable
    support: str
    saturated: Callable = field(default=np.log)

    def data(self, n: int = 50, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Draws (n, 4) and their linear predictors."""
        eta = ETA + 0.3 * np.random.default_rng(seed).normal(size=(n, len(ETA)))
        return self.family.sample(np.random.default_rng(seed + 1), eta, self.psi), eta

    def nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Values of z (n, 4) and their quadrature weights, for linear predictors `ETA`."""
        if self.support == "counts":
            z = np.arange(60_000.0)[:, None] + np.zeros(4)
            return z, np.ones(z.shape)
        if self.support == "trials":
            z = np.arange(TRIALS.max() + 1)[:, None] + np.zeros(4)
            return np.minimum(z, TRIALS), (z <= TRIALS).astype(float)
        if self.support == "real":
            t, step = np.linspace(-45.0, 45.0, 6001, retstep=True)
            scale = np.exp(self.psi[0] * (0.5 if self.family.name == "gaussian" else 1.0))
            return ETA + scale * np.sinh(t)[:, None], step * scale * np.cosh(t)[:, None]
        t, step = np.linspace(-330.0, 12.0, 20_001, retstep=True)
        z = np.exp(t[:, None] + ETA)
        weights = step * z
        if self.support == "zero and positive":
            z, weights = (np.concatenate([np.full((1, 4), start), array])
                          for start, array in ((0.0, z), (1.0, weights)))
        return z, weights

    def expectation(self, function: Callable) -> np.ndarray:
        """Means over z of ``function(z, eta)`` at the linear predictors `ETA`."""
        z, probability = self.probabilities
        return (probability * function(z, ETA)).sum(axis=-2)

    @cached_property
    def probabilities(self) -> tuple[np.ndarray, np.ndarray]:
        """The nodes, and what each has of the probability."""
        z, weights = self.nodes()
        return z, weights * np.exp(-self.family.loss(z, ETA, self.psi))


def binomial_log_density(z, eta, psi):
    return stats.binom.logpmf(z, TRIALS, expit(eta))


def gamma_log_density(z, eta, psi):
    return stats.gamma.logpdf(z, np.exp(-psi[0]), scale=np.exp(eta + psi[0]))


def negative_binomial_log_density(z, eta, psi):
    theta = np.exp(psi[0])
    return stats.nbinom.logpmf(z, theta, theta / (theta + np.exp(eta)))


def tweedie_log_density(power):
    """A Poisson sum of Gamma variables, added up over the number of them."""
    def log_density(z, eta, psi):
        mu, phi, a, b = np.exp(eta), np.exp(psi[0]), power - 1.0, 2.0 - power
        rate = mu**b / (b * phi)
        number = np.arange(1, 4000).reshape(-1, 1, 1)
        shape, scale = number * b / a, phi * a * mu**a
        terms = stats.poisson.logpmf(number, rate)
        terms = terms + stats.gamma.logpdf(np.where(z > 0, z, 1.0), shape, scale=scale)
        return np.where(z > 0, logsumexp(terms, axis=0), -rate)

    return log_density


def identity(z):
    return z


CASES = [
    *(Case(f"gaussian {phi}", Gaussian(), np.log([phi]),
           lambda z, eta, psi: stats.norm.logpdf(z, eta, np.exp(0.5 * psi[0])), "real", identity)
      for phi in (0.02, 3.0)),
    Case("poisson", Poisson(), np.zeros(0),
         lambda z, eta, psi: stats.poisson.logpmf(z, np.exp(eta)), "counts"),
    Case("binomial", Binomial(TRIALS), np.zeros(0), binomial_log_density, "trials",
         lambda z: np.log(z / (TRIALS - z))),
    *(Case(f"gamma {phi}", Gamma(), np.log([phi]), gamma_log_density, "positive")
      for phi in (0.01, 1.0, 6.0)),
    *(Case(f"negative binomial {theta}", NegativeBinomial(), np.log([theta]),
           negative_binomial_log_density, "counts") for theta in (0.2, 3.0, 50.0)),
    *(Case(f"student {scale} {df}", StudentT(df if fixed else None),
           np.log([scale] if fixed else [scale, df]),
           lambda z, eta, psi, df=df: stats.t.logpdf(z, df, eta, np.exp(psi[0])), "real", identity)
      for scale, df, fixed in ((0.3, 1.0, True), (2.0, 5.5, False), (0.1, 300.0, False),
                               (1.0, 2.5, False))),
    *(Case(f"tweedie {power} {phi}", Tweedie(power), np.log([phi]), tweedie_log_density(power),
           "zero and positive") for power, phi in ((1.2, 0.3), (1.5, 2.0), (1.9, 0.6))),
    *(Case(f"tweedie of free power {power} {phi}", Tweedie(), [np.log(phi), logit(power - 1.0)],
           tweedie_log_density(power), "zero and positive")
      for power, phi in ((1.2, 0.05), (1.6, 1.0))),
]

every = pytest.mark.parametrize("case", CASES, ids=[case.label for case in CASES])
