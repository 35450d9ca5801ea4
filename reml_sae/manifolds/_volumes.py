"""Volumes of peaked distributions on compact manifolds, against those of Gaussians.

A row of which little is known has a posterior that covers the whole circle or sphere; the Gaussian
of the same curvature at its peak has then a volume far beyond that of the manifold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import i0e, i1e

Array = NDArray[np.float64]


def angle_ratio(u: Array) -> tuple[Array, Array]:
    """f = -log( (2 pi k)^(1/2) exp(-k) I_0(k) ), k = exp(2 u), and df/du.

    The von Mises density exp(k cos t) has the curvature k at its peak.
    """
    k = np.exp(np.minimum(2.0 * u, LARGEST))
    bessel = i0e(k)
    # 2 k (1 - I_1 / I_0) - 1 loses its digits where k is large: there it is 1 / (4 k) + 1 / (4 k^2)
    slope = 2.0 * k * (1.0 - i1e(k) / bessel) - 1.0
    far = k > FAR
    slope = np.where(far, (0.25 + 0.25 / np.where(far, k, 1.0)) / np.where(far, k, 1.0), slope)
    return -(0.5 * np.log(2.0 * np.pi) + u + np.log(bessel)), slope


def sphere_ratio(u: Array, share: float) -> tuple[Array, Array]:
    """f = -log(1 - exp(-2 s k)), k = exp(u), and df/du, on the share s of the unit sphere.

    On the whole sphere the density exp(k cos t) has the curvature k at its peak and the volume
    2 pi (1 - exp(-2 k)) / k.
    """
    k = 2.0 * share * np.exp(np.minimum(u, LARGE))
    return -np.log(-np.expm1(-k)), -k * np.exp(-k) / -np.expm1(-k)


FAR, LARGEST = 1e6, 600.0
LARGE = 6.0
"""exp(LARGE) and above is infinitely peaked, to rounding."""
