"""The step of a trust-region search inside a box.

    min_s  g^T s + (1/2) s^T B s,    |s| <= radius,    low <= s <= high

Inside the ball it is solved exactly by the eigenvalues of B, whatever their signs
(More and Sorensen 1983, SIAM J. Sci. Stat. Comput. 4, 553). A coordinate that would leave the box
is held at its end, and the others are solved for again.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from reml_sae.typing import Array

SINGULAR = 1e-12
"""Multipliers stay this share of the largest eigenvalue above the pole of the secular equation."""


def boxed_step(
    gradient: Array, hessian: Array, radius: float, low: Array, high: Array
) -> Array:
    """Step (n,) that lowers the quadratic model.

    Parameters
    ----------
    gradient : (n,) array
    hessian : (n, n) array
        Symmetric, of any signs.
    radius : float
    low, high : (n,) arrays
        The box less the present point: ``low <= 0 <= high``.
    """
    step = np.zeros_like(gradient)
    free = ~(((low >= 0.0) & (gradient > 0.0)) | ((high <= 0.0) & (gradient < 0.0)))
    while free.any():
        slope = (gradient + hessian[:, ~free] @ step[~free])[free]
        values, vectors = np.linalg.eigh(hessian[np.ix_(free, free)])
        found = vectors @ _secular(values, vectors.T @ slope, radius)
        step[free] = np.clip(found, low[free], high[free])
        outside = free.copy()
        outside[free] = step[free] != found
        if not outside.any():
            break
        free &= ~outside
    return step


def predicted_change(gradient: Array, hessian: Array, step: Array) -> float:
    """Change of the quadratic model along a step."""
    return float(gradient @ step + 0.5 * step @ hessian @ step)


def _secular(values: Array, along: Array, radius: float) -> Array:
    """Minimiser of the model in eigenvector coordinates, |y| <= radius; values rise."""
    margin = SINGULAR * max(float(np.abs(values).max()), 1e-300)
    least = max(0.0, margin - float(values[0]))
    y = -along / (values + least)
    short = radius**2 - float(y @ y)
    if short >= 0.0:
        if values[0] <= 0.0:  # the rest of the radius goes along the direction of least curvature
            y[0] += np.copysign(
                np.sqrt(short + y[0] ** 2) - abs(y[0]), y[0] if y[0] else 1.0)
        return y

    def excess(multiplier: float) -> float:
        return 1.0 / radius - 1.0 / float(np.linalg.norm(along / (values + multiplier)))

    # twice what the bound needs: at a tiny radius rounding would put the root beyond it
    most = least + 2.0 * float(np.linalg.norm(along)) / radius
    multiplier = brentq(excess, least, most, xtol=1e-14 * most, rtol=1e-12)
    return -along / (values + multiplier)
