"""The Tweedie family of power 1 < p < 2 with log link, mu = exp(eta), and phi = exp(psi[0]).

Sums of a Poisson number of Gamma variables: zeros and positive numbers, of variance phi mu^p. With
d = log z - eta,

    deviance = 2 z^(2-p) [(e^((p-1) d) - 1) / (p-1) + (e^(-(2-p) d) - 1) / (2-p)],  z > 0
    deviance = 2 mu^(2-p) / (2-p),                                                 z = 0

The density is a series over the number j of Gamma variables (Dunn and Smyth 2005, "Series
evaluation of Tweedie exponential dispersion model densities"). Its terms peak near
j* = z^(2-p) / ((2-p) phi), and in Stirling's form the saturated part is all that is left to sum:
with alpha = (2-p) / (p-1),

    saturated loss = log z - log sum_j W_j,        0 at z = 0
    log W_j = -(1+alpha) D_j + (1/2) log alpha - log 2 pi
              - stirling_error(j) - stirling_error(alpha j),   D_j = j log(j / j*) - j + j*

Its derivative in log phi is (1+alpha) E[j - j*] under W. Where the peak is wide that difference is
lost in rounding, but the sum is an integral there, and in the variable j / j* its derivative is

    1 - (1+alpha) E[D_j] + E[j digamma_error(j) + alpha j digamma_error(alpha j)].
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError
from reml_sae.families._base import Array, ScaledFamily
from reml_sae.families._checks import check_finite, check_order, refuse
from reml_sae.families._special import (
    EXP_LIMIT,
    LOG_2PI,
    digamma_error,
    exp_limited,
    expm1_limited,
    stirling_error,
)

TAIL = 9.0
"""Half-width of the summed window in standard deviations of the terms' peak: exp(-40)."""
TAIL_SMALL = 12.0
"""What is added to it, for peaks near j = 1, whose tail is that of a factorial."""
STRIDE = 0.5
"""Largest step in the same unit; by Poisson summation its error is exp(-2 pi^2 / step^2)."""
CHUNK = 1 << 20
"""Terms that are held at once."""
WIDE, FAR = 2.0, 60.0
"""A peak of this width, at this j or above, is summed as an integral over j from 0."""


@dataclass(frozen=True)
class Tweedie(ScaledFamily):
    """Non-negative entries with exact zeros; see `Family`.

    Parameters
    ----------
    power : float
        Exponent p of the variance function, between 1 and 2.
    """

    power: float = 1.5

    name: ClassVar[str] = "tweedie"
    link: ClassVar[str] = "log"

    def __post_init__(self) -> None:
        if not (isinstance(self.power, numbers.Real) and 1.0 < self.power < 2.0):
            raise InputError(f"power must lie between 1 and 2, got {self.power!r}; use the poisson "
                             "family for 1 and gamma for 2")

    def check(self, z: Array) -> None:
        """Refuse negative entries."""
        check_finite(z, "Tweedie")
        refuse(np.asarray(z) < 0.0, z, "Tweedie data must not be negative")

    def initial_psi(self, z: Array) -> Array:
        """Log of variance / mean^p, pooled over columns."""
        mean, variance = np.mean(z, axis=0), np.var(z, axis=0)
        level = float(np.mean(np.power(mean, self.power)))
        ratio = float(np.mean(variance)) / level if level > 0.0 else 1.0
        return np.clip(np.log([max(ratio, np.finfo(float).tiny)]), *self.psi_bounds()[0])

    def saturated_loss(self, z: Array, psi: Array) -> Array:
        """log z less the log of the series, 0 at z = 0."""
        z, positive = np.asarray(z, float), np.asarray(z) > 0.0
        out = np.zeros(z.shape)
        out[positive] = np.log(z[positive]) - self._series(z[positive], psi, slope=False)
        return out

    def saturated_loss_psi(self, z: Array, psi: Array) -> Array:
        """Derivative of minus the log of the series, 0 at z = 0; see the module."""
        z, positive = np.asarray(z, float), np.asarray(z) > 0.0
        out = np.zeros(z.shape)
        out[positive] = self._series(z[positive], psi, slope=True)
        return out

    def _series(self, z: Array, psi: Array, *, slope: bool) -> Array:
        """log sum_j W_j, or minus its derivative in log phi, for entries (n,) > 0."""
        power, alpha = self.power, (2.0 - self.power) / (self.power - 1.0)
        log_peak = (2.0 - power) * np.log(z) - np.log(2.0 - power) - psi[0]
        peak = exp_limited(np.maximum(log_peak, -EXP_LIMIT))
        width = np.sqrt((power - 1.0) * peak)
        stride = np.where(peak > FAR, np.maximum(np.floor(STRIDE * width), 1.0), 1.0)
        first = np.maximum(np.floor(peak - TAIL * width - TAIL_SMALL), 1.0)
        count = np.ceil((peak + TAIL * width + TAIL_SMALL - first) / stride).astype(int) + 1
        out = np.empty(z.shape)
        size = max(CHUNK // int(count.max(initial=1)), 1)
        for start in range(0, z.size, size):
            part = slice(start, start + size)
            steps = np.arange(count[part].max())
            centre = peak[part, None]
            excess = (first - peak)[part, None] + stride[part, None] * steps
            j = np.maximum(np.round(centre + excess), 1.0)
            away = (1.0 + alpha) * centre * _entropy(excess / centre)
            terms = -away - stirling_error(j) - stirling_error(alpha * j)
            top = terms.max(axis=1, keepdims=True)
            terms = np.exp(terms - top)
            total = terms.sum(axis=1)
            if not slope:
                out[part] = top[:, 0] + np.log(stride[part] * total)
                out[part] += 0.5 * np.log(alpha) - LOG_2PI
                continue
            by_sum = (1.0 + alpha) * (terms * excess).sum(axis=1) / total
            errors = j * digamma_error(j) + alpha * j * digamma_error(alpha * j)
            by_integral = 1.0 + (terms * (errors - away)).sum(axis=1) / total
            is_wide = (width[part] > WIDE) & (peak[part] > FAR)
            out[part] = np.where(is_wide, by_integral, by_sum)
        return out

    def deviance(self, z: Array, eta: Array, psi: Array) -> Array:
        """2 z^(2-p) times the bracket of the module's formula."""
        z, a, b = np.asarray(z, float), self.power - 1.0, 2.0 - self.power
        log_z = np.log(np.where(z > 0.0, z, 1.0))
        d = log_z - eta
        scale = np.exp(b * log_z)
        inside = scale * (expm1_limited(a * d) / a + expm1_limited(-b * d) / b)
        return 2.0 * np.where(z > 0.0, np.maximum(inside, 0.0), self._power_mean(eta) / b)

    def _power_mean(self, eta: Array) -> Array:
        """mu^(2-p)."""
        return exp_limited((2.0 - self.power) * np.asarray(eta))

    def loss_eta(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """Derivatives of [z mu^(1-p) / (p-1) + mu^(2-p) / (2-p)] / phi."""
        check_order("loss_eta", order, (1, 2, 3))
        a, b = self.power - 1.0, 2.0 - self.power
        fall = np.asarray(z, float) * exp_limited(-a * np.asarray(eta))
        value = b ** (order - 1) * self._power_mean(eta) + (-1.0) ** order * a ** (order - 1) * fall
        return value / self.dispersion(psi)

    def open_side(self, z: Array) -> NDArray[np.int8]:
        """Down at z = 0."""
        return np.where(np.asarray(z) == 0, -1, 0).astype(np.int8)

    def weight(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """mu^(2-p) / phi, and its derivative."""
        check_order("weight", order, (0, 1))
        value = self._power_mean(eta) / self.dispersion(psi) + np.zeros(np.shape(z))
        return (2.0 - self.power) * value if order else value

    def mean(self, eta: Array) -> Array:
        """exp(eta)."""
        return exp_limited(eta)

    def variance(self, eta: Array, psi: Array) -> Array:
        """phi mu^p."""
        return exp_limited(psi[0] + self.power * np.asarray(eta))

    def sample(self, rng: np.random.Generator, eta: Array, psi: Array) -> Array:
        """Poisson sums of Gamma draws; numpy refuses Poisson means above 9e18."""
        a, b, phi = self.power - 1.0, 2.0 - self.power, self.dispersion(psi)
        number = rng.poisson(self._power_mean(eta) / (b * phi))
        return rng.gamma(b / a * number, a * phi * exp_limited(a * np.asarray(eta)))

    def initial_eta(self, z: Array) -> Array:
        """Log of z, and of a tenth of the mean added to it where some entry is zero."""
        z = np.asarray(z, float)
        level = 0.1 * float(z.mean()) or 1.0
        return np.log(z + level) if (z == 0.0).any() else np.log(z)


def _entropy(x: Array) -> Array:
    """(1 + x) log(1 + x) - x for x > -1, by its power series near 0."""
    small = np.clip(x, -0.05, 0.05)
    series = np.zeros_like(small)
    for k in range(12, 1, -1):
        series = 1.0 / (k * (k - 1)) - small * series
    return np.where(np.abs(x) < 0.05, small**2 * series, (1.0 + x) * np.log1p(x) - x)
