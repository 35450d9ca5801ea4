"""Normalisers of Bingham densities on spheres.

Saddlepoint approximation of second order (Kume and Wood 2005): with K(t) = -1/2 sum log(rate - t)
over the rates of a density and a zero, at the root of K'(t) = 1. Rates may be repeated, and those
of many densities are rows of one array.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from reml_sae.typing import Array

LEAST = 0.5
"""-t is at least this: the zero among the rates alone has K'(t) = 1 there."""


def log_shares(rates: Array, counts: Array, start: Array | None = None) -> tuple[Array, Array]:
    """Log means of exp(-sum_k rates_k x_k^2) over unit spheres of x, whose first rate is zero.

    Parameters
    ----------
    rates, counts : (B, m) arrays
        Rates of B densities, and how often each occurs; the zero is not among them.
    start : (B,) array, optional
        Guess of -t.

    Returns
    -------
    values, saddles : (B,) arrays
        The log means, and -t.
    """
    s = _saddles(rates, counts, start)
    inverse = 1.0 / (rates + s[:, None])
    second, third, fourth = (factorial * _sums(inverse, counts, s, order)
                             for order, factorial in ((2, 0.5), (3, 1.0), (4, 3.0)))
    correction = fourth / second**2 / 8.0 - 5.0 * third**2 / second**3 / 24.0
    size = counts.sum(axis=1) + 1.0
    logs = (counts * np.log(inverse)).sum(axis=1) - np.log(s)
    log_integral = (0.5 * np.log(2.0) + 0.5 * (size - 1.0) * np.log(np.pi) - 0.5 * np.log(second)
                    + 0.5 * logs + s + correction)
    log_area = np.log(2.0) + 0.5 * size * np.log(np.pi) - gammaln(0.5 * size)
    return np.minimum(log_integral - log_area, 0.0), s


def log_share_slopes(rates: Array, counts: Array) -> Array:
    """Derivatives of `log_shares` in the rates, (B, m), each times how often it occurs."""
    values, s = log_shares(rates, counts)
    own = 1.0 / (rates + s[:, None])
    sums = {order: _sums(own, counts, s, order)[:, None] for order in (2, 3, 4, 5)}
    moved = -(own**2) / sums[2]  # of s

    def slope(order: int) -> Array:
        return np.asarray(-order * (own ** (order + 1) + moved * sums[order + 1]))

    out = -0.5 * slope(2) / sums[2] - 0.5 * own
    out += 1.5 * (slope(4) / sums[2] ** 2 - 2.0 * sums[4] * slope(2) / sums[2] ** 3)
    out -= 5.0 / 3.0 * (2.0 * sums[3] * slope(3) / sums[2] ** 3
                        - 3.0 * sums[3] ** 2 * slope(2) / sums[2] ** 4)
    return np.where(values[:, None] < 0.0, counts * out, 0.0)


def _sums(inverse: Array, counts: Array, s: Array, order: int) -> Array:
    """Sums of a power of 1 / (rate + s) over all rates, (B,)."""
    return np.asarray((counts * inverse**order).sum(axis=1) + s**-order)


def _saddles(rates: Array, counts: Array, start: Array | None) -> Array:
    """s, (B,), at which the sum of 1 / (rate + s) over all rates is two: Newton's method.

    The function is convex, so a step from the right of the root leads to its left, and from there
    all lead to the right.
    """
    s = np.full(len(rates), LEAST) if start is None else np.maximum(start, LEAST)
    for _ in range(100):
        inverse = 1.0 / (rates + s[:, None])
        step = (_sums(inverse, counts, s, 1) - 2.0) / _sums(inverse, counts, s, 2)
        moved = np.maximum(s + step, LEAST)
        done = (np.abs(moved - s) <= 1e-12 * s).all()
        s = moved
        if done:
            break
    return s
