"""Quadrature rules for the coordinates of one row, under the normalised prior of its atom.

A rule is a set of nodes t_g (G, d) and log weights w_g (G,) with

    sum_g exp(w_g) f(t_g) = E[f(t)],     t from the coordinate prior,

for every f that varies little within the spacing that was asked for. On periodic axes and, where
the prior is Gaussian, on the whole line the trapezium rule converges faster than any power of the
spacing: a Gaussian f of standard deviation s is integrated with relative error
2 exp(-2 pi^2 s^2 / h^2), 1e-13 at a spacing h = .8 s. Functions that are smooth between breaks only
take Gauss-Legendre rules from one break to the next, which resolve at h the same f that the
trapezium rule does once their own nodes are at most h apart.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np

from reml_sae.typing import Array

Rule = tuple[Array, Array]
"""Nodes (G, d) and log weights (G,)."""

EDGE = 9.0
"""Prior standard deviations at which a Gaussian axis ends; exp(-EDGE^2 / 2) is 1e-18."""
LEAST_NODES = 8
MOST_IN_PANEL = 100
"""Nodes that the spacing asks of one Gauss-Legendre panel at most."""
EXTRA_NODES = 6
"""Nodes of a Gauss-Legendre panel beyond those that the spacing asks for."""
SAFETY = 2.0
"""Of the precision in amplitudes: where prior and Gaussian meet, both make the posterior sharp."""
LEAST_PRECISION = 8.0
TABLE, NEWTON_STEPS = 256, 6


def periodic_rule(spacing: float) -> Rule:
    """Evenly spaced angles in [-pi, pi)."""
    n = max(LEAST_NODES, int(np.ceil(2.0 * np.pi / spacing)))
    angles = 2.0 * np.pi * np.arange(n) / n - np.pi
    return angles[:, None], np.full(n, -np.log(n))


def gaussian_rule(spacing: float) -> Rule:
    """Evenly spaced points under N(0, 1)."""
    n = int(np.ceil(EDGE / min(spacing, 0.8)))
    points = EDGE / n * np.arange(-n, n + 1.0)
    return points[:, None], _normalised(-0.5 * points**2)


def broken_gaussian_rule(spacing: float, breaks: Array) -> Rule:
    """Gauss-Legendre panels under N(0, 1), from one break to the next and out to the edges.

    Fine ones are cut: the nodes of one panel are an eigenproblem.
    """
    ends = np.concatenate([[-EDGE], np.sort(breaks[np.abs(breaks) < EDGE]), [EDGE]])
    longest = MOST_IN_PANEL * min(spacing, 0.8) / (0.5 * np.pi)
    cuts = [np.linspace(low, high, int(np.ceil((high - low) / longest)), endpoint=False)
            for low, high in pairwise(ends)]
    points, logs = [], []
    for low, high in pairwise(np.append(np.concatenate(cuts), EDGE)):
        n = EXTRA_NODES + int(np.ceil(0.5 * np.pi * (high - low) / min(spacing, 0.8)))
        nodes, weights = _gauss_legendre(n)
        points.append(low + 0.5 * (high - low) * (nodes + 1.0))
        logs.append(np.log(0.5 * (high - low) * weights) - 0.5 * points[-1] ** 2)
    return np.concatenate(points)[:, None], _normalised(np.concatenate(logs))


def log_amplitude_rule(
    alpha: float, length: float, step: float, low: float, high: float
) -> Rule:
    """Points u (G,) of [low, high] under N(0, 1 / alpha), for f with a Gaussian in exp(u).

    Evenly spaced in s with ds / du = w, w^2 = r^2 + c exp(2 u): in the standard deviations of the
    prior where it decides, and in those of the Gaussian, 1 / sqrt(length), where that does. The map
    is analytic only within r pi / 2 of the real line, so that r must not be small.

    Parameters
    ----------
    alpha : float
    length : float
        Precision of the Gaussian in exp(u).
    step : float
        Spacing in standard deviations.
    low, high : float
        Beyond which f vanishes.
    """
    root, c = np.sqrt(max(alpha, LEAST_PRECISION)), SAFETY * length

    def length_of(u: Array) -> tuple[Array, Array]:
        w = np.sqrt(root**2 + c * np.exp(2.0 * u))
        return w - root * (np.log(w + root) - 0.5 * np.log(c) - u), w

    table = np.linspace(low, high, TABLE)
    ends = length_of(table)[0] / step
    s = step * np.arange(np.ceil(ends[0]), np.floor(ends[-1]) + 1.0)
    u = np.interp(s, step * ends, table)
    for _ in range(NEWTON_STEPS):
        found, w = length_of(u)
        u = u - (found - s) / w
    w = length_of(u)[1]
    return u, np.log(step / w) - 0.5 * alpha * u**2 + 0.5 * np.log(alpha / (2.0 * np.pi))


def sphere_rule(spacing: float) -> Rule:
    """Unit vectors: Gauss-Legendre in the height, evenly spaced in longitude."""
    n = max(LEAST_NODES, int(np.ceil(np.pi / spacing)))
    height, weights = _gauss_legendre(n)
    longitude = periodic_rule(np.pi / n)[0][:, 0]
    z, angle = np.repeat(height, len(longitude)), np.tile(longitude, n)
    radius = np.sqrt(1.0 - z**2)
    nodes = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), z])
    return nodes, _normalised(np.repeat(np.log(weights), len(longitude)))


def product_rule(first: Rule, second: Rule) -> Rule:
    """All pairs of nodes of two rules, the second's varying fastest."""
    (a, log_a), (b, log_b) = first, second
    nodes = np.column_stack([np.repeat(a, len(b), axis=0), np.tile(b, (len(a), 1))])
    return nodes, np.add.outer(log_a, log_b).ravel()


def held_rule(width: int = 1) -> Rule:
    """The origin alone, for axes that are integrated in closed form."""
    return np.zeros((1, width)), np.zeros(1)


@lru_cache
def _gauss_legendre(n: int) -> tuple[Array, Array]:
    """Nodes and weights on [-1, 1], remembered: numpy solves an eigenproblem of size n for them."""
    return np.polynomial.legendre.leggauss(n)


def _normalised(log_weights: Array) -> Array:
    top = log_weights.max()
    out: Array = log_weights - (top + np.log(np.exp(log_weights - top).sum()))
    return out
