"""Special functions that keep their digits, or stay finite, where the textbook ones do not.

    stirling_error(x) = log Gamma(x) - (x - 1/2) log x + x - (1/2) log 2 pi
    digamma_error(x)  = log x - 1 / (2 x) - digamma(x) = -d stirling_error / dx

Both fall as 1/x and 1/x^2. With them log n! and its kin are a leading part, which cancels against
the likelihood on paper, and a small one, which is all that is computed (Loader 2000, "Fast and
accurate computation of binomial probabilities"). From x = 10 on they are their asymptotic series,
with terms B_2k / (2k (2k - 1) x^(2k - 1)) and B_2k / (2k x^2k), B_2k the Bernoulli numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, gammaln

from reml_sae.typing import Array

LOG_2PI = float(np.log(2.0 * np.pi))

EXP_LIMIT = 600.0
"""Exponents are cut here: e^600 times any scale, summed over any data, is a finite float."""

_SERIES_FROM = 10.0
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)


def exp_limited(x: Array) -> Array:
    """Exponential of min(x, 600): the loss of a wild trial step is large and not infinite.

    Beyond the limit values and derivatives are those at the limit; the sign of the gradient is
    right there, and a step that leads back is a descent.
    """
    return np.exp(np.minimum(x, EXP_LIMIT))


def expm1_limited(x: Array) -> Array:
    """Exponential of min(x, 600), minus one."""
    return np.expm1(np.minimum(x, EXP_LIMIT))


def softplus(x: Array) -> Array:
    """log(1 + e^x), with relative accuracy for x far below zero and no overflow above."""
    return np.logaddexp(0.0, x)


def stirling_error(x: ArrayLike) -> Array:
    """Log Gamma less the leading part of Stirling's series, for x > 0."""
    x = np.asarray(x, float)
    inverse = 1.0 / np.maximum(x, _SERIES_FROM)
    coefficients = [b / (2 * k * (2 * k - 1)) for k, b in enumerate(_BERNOULLI, start=1)]
    out = np.asarray(inverse * _horner(coefficients, inverse * inverse))
    low = x < _SERIES_FROM
    x = x[low]
    out[low] = gammaln(x) - (x - 0.5) * np.log(x) + x - 0.5 * LOG_2PI
    return out


def digamma_error(x: ArrayLike) -> Array:
    """Leading part of the digamma function less itself, for x > 0."""
    x = np.asarray(x, float)
    square = np.maximum(x, _SERIES_FROM) ** -2.0
    coefficients = [b / (2 * k) for k, b in enumerate(_BERNOULLI, start=1)]
    out = np.asarray(square * _horner(coefficients, square))
    low = x < _SERIES_FROM
    x = x[low]
    out[low] = np.log(x) - 0.5 / x - digamma(x)
    return out


def _horner(coefficients: list[float], x: Array) -> Array:
    out = np.zeros_like(x)
    for coefficient in reversed(coefficients):
        out = coefficient + x * out
    return out
