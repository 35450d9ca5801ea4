"""Normaliser of a Bingham density on a sphere."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from reml_sae.typing import Array


def log_share(rates: Array) -> float:
    """Log mean of exp(-sum_k rates_k x_k^2) over the unit sphere of x in d + 1 dimensions, d rates.

    Saddlepoint approximation of second order (Kume and Wood 2005): with
    K(t) = -1/2 sum log(rate - t) over the rates and a zero, at the root of K'(t) = 1.
    """
    inverse, s = _saddlepoint(rates)
    second, third, fourth = (factorial * (inverse**order).sum()
                             for order, factorial in ((2, 0.5), (3, 1.0), (4, 3.0)))
    correction = fourth / second**2 / 8.0 - 5.0 * third**2 / second**3 / 24.0
    size = len(inverse)
    log_integral = (0.5 * np.log(2.0) + 0.5 * (size - 1) * np.log(np.pi) - 0.5 * np.log(second)
                    + 0.5 * np.log(inverse).sum() + s + correction)
    log_area = np.log(2.0) + 0.5 * size * np.log(np.pi) - gammaln(0.5 * size)
    return float(min(log_integral - log_area, 0.0))


def log_share_slope(rates: Array) -> Array:
    """Derivative of `log_share` in the rates, (d,)."""
    if log_share(rates) == 0.0:
        return np.zeros(len(rates))
    inverse, _ = _saddlepoint(rates)
    sums = {order: (inverse**order).sum() for order in (2, 3, 4, 5)}
    own = inverse[1:]
    moved = -(own**2) / sums[2]  # of s

    def slope(order: int) -> Array:
        return np.asarray(-order * (own ** (order + 1) + moved * sums[order + 1]))

    out = -0.5 * slope(2) / sums[2] - 0.5 * own
    out += 1.5 * (slope(4) / sums[2] ** 2 - 2.0 * sums[4] * slope(2) / sums[2] ** 3)
    out -= 5.0 / 3.0 * (2.0 * sums[3] * slope(3) / sums[2] ** 3
                        - 3.0 * sums[3] ** 2 * slope(2) / sums[2] ** 4)
    return np.asarray(out)


def _saddlepoint(rates: Array) -> tuple[Array, float]:
    """1 / (rate + s) of all d + 1 rates, and s: their sum is two."""
    rates = np.append(0.0, rates)
    s = 0.5  # = -t, to the left of the root of a convex function
    for _ in range(100):
        inverse = 1.0 / (rates + s)
        step = (0.5 * inverse.sum() - 1.0) / (0.5 * (inverse**2).sum())
        s += step
        if step < 1e-12 * s:
            break
    return 1.0 / (rates + s), s
