"""Log partition of the smooth l1 norm in m dimensions.

    C = int exp(-c sqrt(||x||^2 + eps^2)) dx
      = 2^{(m+1)/2} pi^{(m-1)/2} eps^{(m+1)/2} c^{-(m-1)/2} K_nu(c eps),   nu = (m + 1) / 2

With z = c eps, d log K_nu / d log z = -nu - z K_{nu-1} / K_nu. K_nu comes from the ratios
K_{nu+1} / K_nu = 2 nu / z + K_{nu-1} / K_nu, whose upward recurrence is stable and cannot
overflow, or for large nu from the uniform expansion (Debye), here with y = z / nu:

    K_nu(nu y) = sqrt(pi t / (2 nu)) exp(-nu eta) sum_k (-1)^k u_k(t) / nu^k,
    t = 1 / sqrt(1 + y^2),   eta = 1 / t + log(y / (1 + 1 / t)),
    u_{k+1} = t^2 (1 - t^2) u_k' / 2 + int_0^t (1 - 5 s^2) u_k(s) ds / 8.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.polynomial import Polynomial
from scipy.special import k0e, k1e, kve

from reml_sae.typing import Array

SMALL_ARGUMENT, LARGE_ARGUMENT = 1e-8, 1e4
HANKEL = np.array([3.0 / 8.0, -15.0 / 128.0, 105.0 / 1024.0])
LARGE_ORDER = 40.0
TERMS = 9


def log_centred_partition(c: Array, eps: float) -> tuple[Array, Array]:
    """Log of int exp(-c (s - eps)) dx = 2 eps K_1(z) e^z in one dimension, and its slope in log c.

    s = sqrt(x^2 + eps^2), z = c eps; nothing overflows or cancels at any strength.

    Parameters
    ----------
    c : array
        Positive strengths.
    eps : float
    """
    c = np.asarray(c, float)
    z = c * eps
    small, large = z < SMALL_ARGUMENT, z > LARGE_ARGUMENT
    inside = np.clip(z, SMALL_ARGUMENT, LARGE_ARGUMENT)
    log_z = np.log(c) + np.log(eps)
    # K_1' = -K_0 - K_1 / z
    value, slope = np.log(k1e(inside)), inside * (1.0 - k0e(inside) / k1e(inside)) - 1.0
    # K_1(z) e^z = 1 / z + 1 + O(z log z)
    value, slope = np.where(small, z - log_z, value), np.where(small, z - 1.0, slope)
    # Hankel's expansion, where the difference above cancels
    powers = HANKEL * (1.0 / np.maximum(z, LARGE_ARGUMENT))[..., None] ** np.arange(1, 4)
    series = 1.0 + powers.sum(axis=-1)
    value = np.where(large, 0.5 * (np.log(0.5 * np.pi) - log_z) + np.log(series), value)
    slope = np.where(large, -0.5 - powers @ np.arange(1.0, 4.0) / series, slope)
    return np.log(2.0 * eps) + value, slope


def log_smooth_l1_partition(m: int, c: float, eps: float) -> tuple[float, float]:
    """Log int exp(-c sqrt(||x||^2 + eps^2)) dx over m dimensions, and its slope in log c.

    Parameters
    ----------
    m : int
        Dimensions, >= 1.
    c, eps : float
        Positive strength and smoothing length.
    """
    log_c, log_eps = np.log(c), np.log(eps)
    log_bessel, slope = _log_bessel(0.5 * (m + 1), float(np.exp(log_c + log_eps)))
    value = (0.5 * (m + 1) * (np.log(2.0) + log_eps) + 0.5 * (m - 1) * (np.log(np.pi) - log_c)
             + log_bessel)
    return float(value), float(slope - 0.5 * (m - 1))


def _log_bessel(order: float, z: float) -> tuple[float, float]:
    """Log K_nu(z) and its slope in log z, for nu >= 1 a multiple of 1/2."""
    if order > LARGE_ORDER:
        return _uniform(order, z)
    start = order % 1.0  # 0 or 1/2
    bessel = kve(start, z)
    log_bessel, ratio = np.log(bessel) - z, bessel / kve(start + 1.0, z)
    for nu in np.arange(start, order):
        if nu > start:
            ratio = 1.0 / (2.0 * nu / z + ratio)
        log_bessel -= np.log(ratio)
    return float(log_bessel), float(-order - z * ratio)


def _uniform(order: float, z: float) -> tuple[float, float]:
    """The same by the uniform expansion: no cancellation in the slope."""
    y = z / order
    root = np.hypot(1.0, y)
    t = 1.0 / root
    eta = root + np.log(y) - np.log1p(root)
    factors = (-1.0 / order) ** np.arange(TERMS + 1)
    series = factors @ [u(t) for u in _debye()]
    series_slope = factors @ [u.deriv()(t) for u in _debye()]
    log_bessel = 0.5 * np.log(0.5 * np.pi * t / order) - order * eta + np.log(series)
    by_t = -(1.0 - t**2) * (0.5 + t * series_slope / series)  # dt / d log y = -t (1 - t^2)
    return float(log_bessel), float(by_t - order * root)


@lru_cache(maxsize=1)
def _debye() -> tuple[Polynomial, ...]:
    """u_0 .. u_TERMS."""
    t = Polynomial([0.0, 1.0])
    out = [Polynomial([1.0])]
    for _ in range(TERMS):
        u = out[-1]
        out.append(0.5 * t**2 * (1 - t**2) * u.deriv() + ((1 - 5 * t**2) * u).integ() / 8.0)
    return tuple(out)
