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
    rates = np.append(0.0, rates)
    size, s = len(rates), 0.5  # s = -t, to the left of the root of a convex function
    for _ in range(100):
        inverse = 1.0 / (rates + s)
        step = (0.5 * inverse.sum() - 1.0) / (0.5 * (inverse**2).sum())
        s += step
        if step < 1e-12 * s:
            break
    inverse = 1.0 / (rates + s)
    second, third, fourth = (factorial * (inverse**order).sum()
                             for order, factorial in ((2, 0.5), (3, 1.0), (4, 3.0)))
    correction = fourth / second**2 / 8.0 - 5.0 * third**2 / second**3 / 24.0
    log_integral = (0.5 * np.log(2.0) + 0.5 * (size - 1) * np.log(np.pi) - 0.5 * np.log(second)
                    + 0.5 * np.log(inverse).sum() + s + correction)
    log_area = np.log(2.0) + 0.5 * size * np.log(np.pi) - gammaln(0.5 * size)
    return float(min(log_integral - log_area, 0.0))
