"""Log partition of the entropy prior on the simplex (DESIGN A1).

    Z_K(lambda) = int over the simplex of prod_k exp(lambda a_k log a_k) da
    Z_{j+l}(lambda) = int_0^1 t^{j-1} (1-t)^{l-1} exp(lambda [t log t + (1-t) log(1-t)])
                      Z_j(lambda t) Z_l(lambda (1-t)) dt

K is halved until one atom is left, Z_1 = 1. In x = log t/(1-t) the integrand is analytic in a
strip and decays exponentially, so the trapezoidal rule converges exponentially. The sub-problems
are needed at every smaller lambda; each is tabulated once, as piecewise Chebyshev interpolants of
g_K(u) = log Z_K(e^u) + log (K-1)! and of its derivative.
"""

from __future__ import annotations

from functools import lru_cache
from math import log

import numpy as np
from numpy.polynomial import chebyshev
from scipy.special import digamma, gammaln, log_expit, logsumexp

from reml_sae.errors import InputError
from reml_sae.typing import Array

SMALLEST = 1e-8
LARGEST = 1e9
PANEL_WIDTH = 1.5
MIN_PANEL_WIDTH = 0.04
DEGREE = 20
TAIL = 1e-13
CHUNK = 400_000


def log_simplex_partition(n_atoms: int, strength: float) -> tuple[float, float]:
    """Log Z_K(lambda) and d log Z_K / d log lambda = -lambda E[H].

    Parameters
    ----------
    n_atoms : int
        K >= 1.
    strength : float
        lambda in [0, 1e9].

    Raises
    ------
    InputError
        Where lambda is outside.
    """
    if not 0.0 <= strength <= LARGEST:
        raise InputError(
            f"the entropy strength must lie in [0, {LARGEST:g}], got {strength!r}; at the upper "
            "end every row belongs to one atom entirely"
        )
    g, slope = _scaled(int(n_atoms), float(strength))
    return g - float(gammaln(n_atoms)), slope


@lru_cache(maxsize=4096)
def _scaled(n_atoms: int, strength: float) -> tuple[float, float]:
    """g and dg/dlog lambda at one lambda."""
    if n_atoms == 1 or strength == 0.0:
        return 0.0, 0.0
    if strength < SMALLEST:
        slope = -strength * _mean_entropy(n_atoms)
        return slope, slope
    values, slopes = _quadrature(n_atoms, np.array([log(strength)]))
    return float(values[0]), float(slopes[0])


def _mean_entropy(n_atoms: int) -> float:
    """E[H] of a uniform point of the simplex: psi(K + 1) - psi(2)."""
    return float(digamma(n_atoms + 1) - digamma(2))


def _quadrature(n_atoms: int, u: Array) -> tuple[Array, Array]:
    """G and dg/du at log strengths u (n,), by the splitting integral."""
    left = n_atoms // 2
    right = n_atoms - left
    step = min(0.2, 0.8 / np.sqrt(n_atoms))
    reach = max(float(u.max()), 0.0) + 40.0 / left + 5.0
    x = np.arange(-reach, reach + step, step)
    log_t, log_s = log_expit(x), log_expit(-x)
    t, s = np.exp(log_t), np.exp(log_s)
    entropy = t * log_t + s * log_s
    # the Beta(j, l) density in x; its constant turns 1/(j-1)!, 1/(l-1)! into 1/(K-1)!
    base = left * log_t + right * log_s + np.log(step)
    base += gammaln(n_atoms) - gammaln(left) - gammaln(right)
    g, slope = np.empty_like(u), np.empty_like(u)
    block = max(1, CHUNK // x.size)
    for start in range(0, u.size, block):
        part = u[start : start + block, None]
        g_left, d_left = _table(left)(part + log_t)
        g_right, d_right = _table(right)(part + log_s)
        energy = np.exp(part) * entropy
        exponent = base + energy + g_left + g_right
        total = logsumexp(exponent, axis=1)
        g[start : start + block] = total
        weights = np.exp(exponent - total[:, None])
        slope[start : start + block] = (weights * (energy + d_left + d_right)).sum(axis=1)
    return g, slope


class _Table:
    """Adaptive piecewise Chebyshev interpolants of g_K and its derivative over u = log lambda."""

    def __init__(self, n_atoms: int):
        self.n_atoms = n_atoms
        self.low = log(SMALLEST)
        if n_atoms == 1:
            return
        nodes = chebyshev.chebpts1(DEGREE + 1)
        fit = np.linalg.inv(chebyshev.chebvander(nodes, DEGREE)).T
        n_panels = int(np.ceil((log(LARGEST) - self.low) / PANEL_WIDTH))
        pending = [(self.low + PANEL_WIDTH * i, PANEL_WIDTH) for i in range(n_panels)]
        done: list[tuple[float, float, Array]] = []
        while pending:
            start, width = pending.pop()
            g, slope = _quadrature(n_atoms, start + 0.5 * width * (nodes + 1.0))
            coefficients = np.stack([g @ fit, slope @ fit], axis=1)
            tail = np.abs(coefficients[-3:]).max(axis=0)
            size = 1.0 + gammaln(n_atoms) + np.abs(coefficients).max(axis=0)
            if (tail > TAIL * size).any() and width > MIN_PANEL_WIDTH:
                pending += [(start, 0.5 * width), (start + 0.5 * width, 0.5 * width)]
            else:
                done.append((start, width, coefficients))
        done.sort(key=lambda panel: panel[0])
        self.starts = np.array([panel[0] for panel in done])
        self.widths = np.array([panel[1] for panel in done])
        self.coefficients = [panel[2] for panel in done]

    def __call__(self, u: Array) -> tuple[Array, Array]:
        """G and dg/du at u of any shape."""
        if self.n_atoms == 1:
            zero = np.zeros_like(u)
            return zero, zero
        flat = u.ravel()
        panel = np.maximum(np.searchsorted(self.starts, flat, side="right") - 1, 0)
        place = np.clip(2.0 * (flat - self.starts[panel]) / self.widths[panel] - 1.0, -1.0, 1.0)
        out = np.empty((flat.size, 2))
        order = np.argsort(panel, kind="stable")
        edges = np.searchsorted(panel[order], np.arange(len(self.starts) + 1))
        for index, coefficients in enumerate(self.coefficients):
            where = order[edges[index] : edges[index + 1]]
            if where.size:
                out[where] = chebyshev.chebval(place[where], coefficients).T
        small = flat < self.low
        out[small] = (-np.exp(flat[small]) * _mean_entropy(self.n_atoms))[:, None]
        return out[:, 0].reshape(u.shape), out[:, 1].reshape(u.shape)


@lru_cache(maxsize=256)
def _table(n_atoms: int) -> _Table:
    return _Table(n_atoms)


def log_simplex_volume(n_atoms: int) -> float:
    """Log of the simplex's Lebesgue volume, -log (K - 1)!."""
    return -float(gammaln(n_atoms))


__all__ = ["log_simplex_partition", "log_simplex_volume"]
