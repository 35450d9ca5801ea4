"""Log partition of functions of the singular values, and of the smooth nuclear norm.

For T (n, d) with m = min(n, d) singular values s_i and N = max(n, d),

    int prod_i f(s_i) dT = c int_{s_1 < .. < s_m} prod_{i<j} (s_j^2 - s_i^2) prod_i f(s_i)
                                                  s_i^{N-m} ds,
    c = 2^m pi^{(N m + m^2) / 2} / (Gamma_m(N / 2) Gamma_m(m / 2)),

Gamma_m being the multivariate gamma function. By de Bruijn's formula the integral is the Pfaffian
of the antisymmetric matrix

    A_jk = int int sgn(t - s) g_j(s) g_k(t) ds dt,   g_j(s) = p_j(s^2) f(s) s^{N-m},

with monic polynomials p_j of degree j = 0 .. m-1; for odd m it is bordered by a_j = int g_j. Here
the g_j are made orthonormal, so that A is well conditioned, and the product of their leading
coefficients is divided out. With f = exp(-phi) and phi proportional to w, at fixed g_j,

    d log Pf A / d log w = 1/2 tr(A^{-1} A'),   A'_jk = -int int sgn(t - s) (phi + phi) g_j g_k.

Smooth nuclear norm: s = eps sinh u, where phi = w (sqrt(s^2 + eps^2) - eps) = 2 w eps sinh^2(u/2)
is entire. The u-axis is cut where the integrand falls below exp(-CUT) of its peak and divided into
Gauss panels, on which running integrals are spectral too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.polynomial import legendre
from scipy.optimize import brentq
from scipy.special import multigammaln

from reml_sae.typing import Array

CUT = 90.0
PANELS = 64
PANELS_PER_VALUE = 4
NODES = 16
LEAST, MOST = 1e-165, 2000.0
"""Range of u: what double precision holds at log strengths of +-700."""


@lru_cache(maxsize=4096)
def log_nuclear_partition(n: int, d: int, w: float, eps: float) -> tuple[float, float]:
    """Log int exp(-w sum_i (sqrt(s_i^2 + eps^2) - eps)) dT over (n, d), and its slope in log w.

    Parameters
    ----------
    n, d : int
        Shape of the matrix.
    w, eps : float
        Positive strength and smoothing length.
    """
    small, large = sorted((n, d))
    log_scale = float(np.log(w) + np.log(eps))

    def log_density(u: Array, extra: int = 0) -> Array:
        return (large - small + extra) * _log_sinh(u) + _log_cosh(u) - _phi(u, log_scale)

    u, weights, cumulative = _panels(
        *_support(log_density, log_scale, large - small, small),
        PANELS + PANELS_PER_VALUE * small)
    return log_spectral_integral(
        n, d, _log_sinh(u) + np.log(eps), log_density(u) + (large - small + 1) * np.log(eps),
        _phi(u, log_scale), weights, cumulative)


def _log_sinh(u: Array) -> Array:
    return u + np.log(-0.5 * np.expm1(-2.0 * u))


def _log_cosh(u: Array) -> Array:
    return u + np.log1p(np.exp(-2.0 * u)) - np.log(2.0)


def _phi(u: Array, log_scale: float) -> Array:
    """2 w eps sinh^2(u / 2); bounded so that far out it is huge, not infinite."""
    return np.exp(np.minimum(log_scale + np.log(2.0) + 2.0 * _log_sinh(0.5 * u), 700.0))


def log_spectral_integral(
    n: int, d: int, log_s: Array, log_density: Array, phi: Array, weights: Array,
    cumulative: Callable[[Array], Array],
) -> tuple[float, float]:
    """Log int prod_i f(s_i) dT over (n, d), and its derivative in log w for f = exp(-w phi / w).

    Parameters
    ----------
    n, d : int
        Shape of T.
    log_s : (q,)
        Log of the singular value at the nodes, increasing.
    log_density : (q,)
        Log of f(s) s^{N-m} ds/du at the nodes.
    phi : (q,)
        -d log f / d log w at the nodes.
    weights : (q,)
        Of the quadrature in u.
    cumulative : callable (r, q) -> (r, q)
        Integrals from the first end to every node.
    """
    m, large = sorted((n, d))
    top = float(log_density.max())
    g, log_leading = _orthonormal(m, np.exp(log_density - top), log_s, weights)

    def pairs(left: Array, right: Array) -> Array:
        """int int sgn(t - s) left_j(s) right_k(t) ds dt."""
        running = cumulative(left)
        total = left @ weights
        return (2.0 * running - total[:, None]) * weights @ right.T

    A = _antisymmetric(pairs(g, g))
    slope_A = -_antisymmetric(pairs(phi * g, g) + pairs(g, phi * g))
    if m % 2:
        A = _bordered(A, g @ weights)
        slope_A = _bordered(slope_A, -(phi * g) @ weights)
    log_constant = (m * np.log(2.0) + 0.5 * (m * large + m**2) * np.log(np.pi)
                    - multigammaln(0.5 * large, m) - multigammaln(0.5 * m, m))
    value = log_constant + m * top - log_leading + 0.5 * float(np.linalg.slogdet(A)[1])
    return float(value), 0.5 * float(np.trace(np.linalg.solve(A, slope_A)))


def _antisymmetric(matrix: Array) -> Array:
    return 0.5 * (matrix - matrix.T)


def _bordered(A: Array, a: Array) -> Array:
    return np.block([[A, a[:, None]], [-a[None, :], np.zeros((1, 1))]])


def _orthonormal(
    m: int, density: Array, log_s: Array, weights: Array
) -> tuple[Array, float]:
    """g_j = p_j(s^2) density, orthonormal in L2, and the log of prod_j (leading coefficient).

    Lanczos on the nodes in x = (s^2 - mean) / deviation; every g is orthogonalised twice.
    """
    shift = float(log_s.max())
    x = np.exp(2.0 * (log_s - shift))
    mass = weights * density**2
    mean = float(mass @ x / mass.sum())
    deviation = float(np.sqrt(mass @ (x - mean) ** 2 / mass.sum()))
    x = (x - mean) / deviation
    root = np.sqrt(weights)
    norm = float(np.sqrt(mass.sum()))
    basis = [root * density / norm]
    log_coefficient = -np.log(norm)
    log_leading = log_coefficient
    for _ in range(1, m):
        q = x * basis[-1]
        for _ in range(2):
            for p in basis:
                q = q - (p @ q) * p
        norm = float(np.linalg.norm(q))
        basis.append(q / norm)
        log_coefficient -= np.log(norm) + np.log(deviation) + 2.0 * shift
        log_leading += log_coefficient
    return np.array(basis) / root, float(log_leading)


def _support(
    log_density: Callable[..., Array], log_scale: float, power: int, m: int
) -> tuple[float, float]:
    """Ends in u where density times a polynomial of degree m - 1 in s^2 is negligible."""
    least, most = np.log(LEAST), np.log(MOST)

    def at(log_u: float, extra: int) -> float:
        return float(log_density(np.exp(log_u), extra))

    def peak(extra: int) -> float:
        """Log u of the only maximum, where k cosh / sinh^2 + 1 / cosh = w eps."""
        def slope(log_u: float) -> float:
            u = np.exp(log_u)
            own = -_log_cosh(u)
            if power + extra:
                own = np.logaddexp(own, np.log(power + extra) - own - 2.0 * _log_sinh(u))
            return float(own) - log_scale

        return brentq(slope, least, most) if slope(least) > 0.0 else least

    low, high = peak(0), peak(2 * (m - 1))
    floor, ceiling = at(low, 0) - CUT, at(high, 2 * (m - 1)) - CUT
    lower = 0.0
    if at(least, 0) < floor:
        lower = np.exp(brentq(lambda log_u: at(log_u, 0) - floor, least, low))
    upper = np.exp(brentq(lambda log_u: at(log_u, 2 * (m - 1)) - ceiling, high, most))
    return float(lower), float(upper)


def _panels(
    lower: float, upper: float, count: int
) -> tuple[Array, Array, Callable[[Array], Array]]:
    """Nodes, weights, and integrals from the lower end to every node, for rows (r, q)."""
    x, w, integrate = _gauss()
    half = 0.5 * (upper - lower) / count
    centres = lower + half * (2.0 * np.arange(count) + 1.0)
    nodes = (centres[:, None] + half * x).ravel()
    weights = np.tile(half * w, count)

    def cumulative(values: Array) -> Array:
        panels = values.reshape(len(values), count, NODES)
        totals = half * panels @ w
        before = np.cumsum(totals, axis=1) - totals
        return (before[:, :, None] + half * panels @ integrate.T).reshape(values.shape)

    return nodes, weights, cumulative


@lru_cache(maxsize=1)
def _gauss() -> tuple[Array, Array, Array]:
    """Gauss nodes and weights on [-1, 1], and the matrix of int_{-1}^{x_i} of the interpolant."""
    x, w = legendre.leggauss(NODES)
    to_coefficients = (legendre.legvander(x, NODES - 1) * w[:, None]).T
    to_coefficients *= (np.arange(NODES) + 0.5)[:, None]
    integrals = legendre.legint(np.eye(NODES), lbnd=-1)
    return x, w, legendre.legvander(x, NODES) @ integrals @ to_coefficients
