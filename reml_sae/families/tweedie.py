"""The Tweedie family of power 1 < p < 2 with log link, mu = exp(eta), and phi = exp(psi[0]).

p is a constant, or 1 + expit(psi[1]), as mgcv's `tw` and glmmTMB estimate it. Sums of a Poisson
number of Gamma variables: zeros and positive numbers, of variance phi mu^p. With
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

The derivative of the saturated loss in p has no difference but that one, s:

    -(E[(1+alpha) D_j] - E[j digamma_error(alpha j)] / (p-1) - 1 / (2 (2-p))) / (p-1)
        + s (log z - 1 / (2-p)).
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from reml_sae.errors import InputError
from reml_sae.families._base import LOG_DISPERSION, UNIT_FREE_BOX, ScaledFamily
from reml_sae.families._checks import check_finite, check_order, refuse
from reml_sae.families._special import (
    EXP_LIMIT,
    LOG_2PI,
    digamma_error,
    exp_limited,
    expm1_limited,
    stirling_error,
)
from reml_sae.typing import Array

TAIL = 9.0
"""Half-width of the summed window in standard deviations of the terms' peak: exp(-40)."""
TAIL_SMALL = 12.0
"""What is added to it, for peaks near j = 1, whose tail is that of a factorial."""
STRIDE = 0.5
"""Largest step in the same unit; by Poisson summation its error is exp(-2 pi^2 / step^2)."""
CHUNK = 1 << 20
"""Terms that are held at once."""
FIRST_POWER, CLOSEST = 1.5, 0.01
"""Where a search for the power begins, and how near to 1 and to 2 it may come."""
WIDE, FAR = 2.0, 60.0
"""A peak of this width, at this j or above, is summed as an integral over j from 0."""


@dataclass(frozen=True)
class Tweedie(ScaledFamily):
    """Non-negative entries with exact zeros; see `Family`.

    Parameters
    ----------
    power : float, optional
        Exponent p of the variance function, between 1 and 2; estimated, between 1.01 and 1.99,
        where it is not given.
    """

    power: float | None = None

    name: ClassVar[str] = "tweedie"
    link: ClassVar[str] = "log"

    def __post_init__(self) -> None:
        power = self.power
        if power is not None and not (isinstance(power, numbers.Real) and 1.0 < power < 2.0):
            raise InputError(f"power must lie between 1 and 2, or be None to estimate it, got "
                             f"{power!r}; use the poisson family for 1 and gamma for 2")

    @property
    def psi_names(self) -> tuple[str, ...]:
        """The log dispersion, and the logit of p - 1 where it is estimated."""
        return (LOG_DISPERSION, "logit_power") if self.power is None else (LOG_DISPERSION,)

    def psi_bounds(self) -> Array:
        """Box of the log dispersion and of the logit of p - 1."""
        far = float(logit(1.0 - CLOSEST))
        return np.array([UNIT_FREE_BOX, (-far, far)])[: self.n_psi]

    def natural(self, psi: Array) -> dict[str, float]:
        """Dispersion and power."""
        return {"dispersion": self.dispersion(psi), "power": self._power(psi)}

    def _power(self, psi: Array) -> float:
        """p."""
        return 1.0 + float(expit(psi[1])) if self.power is None else float(self.power)

    def _with_power(self, by_phi: Array, by_power: Callable[[], Array], psi: Array) -> Array:
        """Derivatives in psi (n_psi, ..) from those in log phi and, where it is free, in p."""
        if self.power is not None:
            return np.asarray(by_phi)[None]
        a = self._power(psi) - 1.0
        return np.stack(np.broadcast_arrays(by_phi, a * (1.0 - a) * by_power()))

    def check(self, z: Array) -> None:
        """Refuse negative entries."""
        check_finite(z, "Tweedie")
        refuse(np.asarray(z) < 0.0, z, "Tweedie data must not be negative")

    def initial_psi(self, z: Array) -> Array:
        """Log of variance / mean^p, pooled over columns."""
        mean, variance = np.mean(z, axis=0), np.var(z, axis=0)
        power = FIRST_POWER if self.power is None else self.power
        level = float(np.mean(np.power(mean, power)))
        ratio = float(np.mean(variance)) / level if level > 0.0 else 1.0
        start = np.array([np.log(max(ratio, np.finfo(float).tiny)), logit(power - 1.0)])
        return np.clip(start[: self.n_psi], *self.psi_bounds().T)

    def saturated_loss(self, z: Array, psi: Array) -> Array:
        """log z less the log of the series, 0 at z = 0."""
        z, positive = np.asarray(z, float), np.asarray(z) > 0.0
        out = np.zeros(z.shape)
        out[positive] = np.log(z[positive]) - self._series(z[positive], psi)[0]
        return out

    def saturated_loss_psi(self, z: Array, psi: Array) -> Array:
        """Derivative of minus the log of the series in log phi, 0 at z = 0; see the module."""
        return self._saturated_slopes(z, psi)[0]

    def _saturated_slopes(self, z: Array, psi: Array) -> Array:
        """Derivatives of the saturated loss (2, ..) in log phi and in p, 0 at z = 0."""
        z, positive = np.asarray(z, float), np.asarray(z) > 0.0
        out = np.zeros((2, *z.shape))
        out[:, positive] = self._series(z[positive], psi)[1:]
        return out

    def loss_psi(self, z: Array, eta: Array, psi: Array) -> Array:
        """Derivatives of the loss in log phi and, where it is free, in logit(p - 1)."""
        scale = 0.5 / self.dispersion(psi)
        by_phi, by_power = self._saturated_slopes(z, psi)
        return self._with_power(by_phi - scale * self.deviance(z, eta, psi),
                                lambda: by_power + scale * self._deviance_slope(z, eta, psi), psi)

    def loss_eta_psi(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """Minus `loss_eta`, and its derivative in logit(p - 1)."""
        check_order("loss_eta_psi", order, (1, 2))
        eta = np.asarray(eta)
        a, b = self._power(psi) - 1.0, 2.0 - self._power(psi)

        def by_power() -> Array:
            rise = -(order - 1 + eta * b) * _power_mean(eta, b) * b ** (order - 2)
            fall = (order - 1 - eta * a) * np.asarray(z, float) * exp_limited(-a * eta)
            return np.asarray(rise + (-1.0) ** order * a ** (order - 2) * fall
                              ) / self.dispersion(psi)

        return self._with_power(-self.loss_eta(z, eta, psi, order), by_power, psi)

    def weight_psi(self, z: Array, eta: Array, psi: Array) -> Array:
        """Minus `weight`, and its derivative in logit(p - 1)."""
        weight = self.weight(z, eta, psi, 0)
        return self._with_power(-weight, lambda: -np.asarray(eta) * weight, psi)

    def _series(self, z: Array, psi: Array) -> Array:
        """log sum_j W_j, and minus its derivatives in log phi and in p, (3, n) for entries > 0."""
        power = self._power(psi)
        alpha = (2.0 - power) / (power - 1.0)
        log_peak = (2.0 - power) * np.log(z) - np.log(2.0 - power) - psi[0]
        peak = exp_limited(np.maximum(log_peak, -EXP_LIMIT))
        width = np.sqrt((power - 1.0) * peak)
        stride = np.where(peak > FAR, np.maximum(np.floor(STRIDE * width), 1.0), 1.0)
        first = np.maximum(np.floor(peak - TAIL * width - TAIL_SMALL), 1.0)
        count = np.ceil((peak + TAIL * width + TAIL_SMALL - first) / stride).astype(int) + 1
        out = np.empty((3, *z.shape))
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
            out[0, part] = top[:, 0] + np.log(stride[part] * total)
            out[0, part] += 0.5 * np.log(alpha) - LOG_2PI
            by_sum = (1.0 + alpha) * (terms * excess).sum(axis=1) / total
            of_gammas = j * digamma_error(alpha * j)
            errors = j * digamma_error(j) + alpha * of_gammas
            by_integral = 1.0 + (terms * (errors - away)).sum(axis=1) / total
            is_wide = (width[part] > WIDE) & (peak[part] > FAR)
            out[1, part] = np.where(is_wide, by_integral, by_sum)
            means = (terms * (of_gammas / (power - 1.0) - away)).sum(axis=1) / total
            out[2, part] = (means + 0.5 / (2.0 - power)) / (power - 1.0)
            out[2, part] += out[1, part] * (np.log(z[part]) - 1.0 / (2.0 - power))
        return out

    def deviance(self, z: Array, eta: Array, psi: Array) -> Array:
        """2 z^(2-p) times the bracket of the module's formula."""
        z, a, b = np.asarray(z, float), self._power(psi) - 1.0, 2.0 - self._power(psi)
        log_z = np.log(np.where(z > 0.0, z, 1.0))
        d = log_z - eta
        scale = np.exp(b * log_z)
        inside = scale * (expm1_limited(a * d) / a + expm1_limited(-b * d) / b)
        return 2.0 * np.where(z > 0.0, np.maximum(inside, 0.0), _power_mean(eta, b) / b)

    def _deviance_slope(self, z: Array, eta: Array, psi: Array) -> Array:
        """Derivative of `deviance` in p."""
        z, a, b = np.asarray(z, float), self._power(psi) - 1.0, 2.0 - self._power(psi)
        log_z = np.log(np.where(z > 0.0, z, 1.0))
        d = log_z - eta
        up, down = expm1_limited(a * d) / a, expm1_limited(-b * d) / b
        inside = (d * exp_limited(a * d) - up) / a + (d * exp_limited(-b * d) + down) / b
        positive = np.exp(b * log_z) * (inside - log_z * (up + down))
        at_zero = _power_mean(eta, b) * (1.0 / b - np.asarray(eta)) / b
        return np.asarray(2.0 * np.where(z > 0.0, positive, at_zero))

    def loss_eta(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """Derivatives of [z mu^(1-p) / (p-1) + mu^(2-p) / (2-p)] / phi."""
        check_order("loss_eta", order, (1, 2, 3))
        a, b = self._power(psi) - 1.0, 2.0 - self._power(psi)
        fall = np.asarray(z, float) * exp_limited(-a * np.asarray(eta))
        value = b ** (order - 1) * _power_mean(eta, b) + (-1.0) ** order * a ** (order - 1) * fall
        return value / self.dispersion(psi)

    def open_side(self, z: Array) -> NDArray[np.int8]:
        """Down at z = 0."""
        return np.where(np.asarray(z) == 0, -1, 0).astype(np.int8)

    def weight(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """mu^(2-p) / phi, and its derivative."""
        check_order("weight", order, (0, 1))
        b = 2.0 - self._power(psi)
        value = _power_mean(eta, b) / self.dispersion(psi) + np.zeros(np.shape(z))
        return b * value if order else value

    def mean(self, eta: Array) -> Array:
        """exp(eta)."""
        return exp_limited(eta)

    def variance(self, eta: Array, psi: Array) -> Array:
        """phi mu^p."""
        return exp_limited(psi[0] + self._power(psi) * np.asarray(eta))

    def sample(self, rng: np.random.Generator, eta: Array, psi: Array) -> Array:
        """Poisson sums of Gamma draws; numpy refuses Poisson means above 9e18."""
        phi = self.dispersion(psi)
        a, b = self._power(psi) - 1.0, 2.0 - self._power(psi)
        number = rng.poisson(_power_mean(eta, b) / (b * phi))
        return rng.gamma(b / a * number, a * phi * exp_limited(a * np.asarray(eta)))

    def initial_eta(self, z: Array) -> Array:
        """Log of z, and of a tenth of the mean added to it where some entry is zero."""
        z = np.asarray(z, float)
        level = 0.1 * float(z.mean()) or 1.0
        return np.log(z + level) if (z == 0.0).any() else np.log(z)


def _power_mean(eta: Array, b: float) -> Array:
    """mu^(2-p) with b = 2 - p."""
    return exp_limited(b * np.asarray(eta))


def _entropy(x: Array) -> Array:
    """(1 + x) log(1 + x) - x for x > -1, by its power series near 0."""
    small = np.clip(x, -0.05, 0.05)
    series = np.zeros_like(small)
    for k in range(12, 1, -1):
        series = 1.0 / (k * (k - 1)) - small * series
    return np.where(np.abs(x) < 0.05, small**2 * series, (1.0 + x) * np.log1p(x) - x)
