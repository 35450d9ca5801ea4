"""Importance sampling over the decoders, about a Laplace approximation that it checks.

Draws B = b + U delta lie in the complement U of the orbit's tangents C(b); every orbit meets it
once where the signs of C_a(b) . C_a(B) are positive, and

    int exp(-L(B)) dB = vol(group) int exp(-L(b + U delta)) |det C(b)^T C(b + U delta)|
                                   / |det C(b)^T C(b)|^(1/2) ddelta

This holds exactly for the symmetries of circles of one harmonic, and where there are none. A draw
is kept where `same_side` says that no reflection separates it from the mode: half of each symmetric
pair, so that the sum has the same convention as `Truth.value`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_t


@dataclass(frozen=True)
class Estimate:
    """An estimate of `Truth.value` with the size of an equally good sample of the posterior."""

    value: float
    effective_size: float


def circle_side(block: slice) -> Callable:
    """Orientation of a circle of one harmonic against that of the mode."""

    def same(B, mode):
        harmonics = slice(block.start + 1, block.start + 3)
        return np.linalg.det(B[harmonics] @ mode[harmonics].T) > 0.0

    return same


def line_side(block: slice) -> Callable:
    """Direction of a line against that of the mode."""
    return lambda B, mode: B[block.start + 1] @ mode[block.start + 1] > 0.0


def importance(truth, sides, *, value=None, n=4000, rounds=1, df=8.0, widen=1.1, seed=0):
    """Draws from a multivariate t about the mode.

    Parameters
    ----------
    truth : Truth
    sides : sequence of callables
        One for each reflection that would lead to another mode.
    value : callable, optional
        L(B), where there is a faster way than ``truth.likelihood.value``.
    n : int
    rounds : int
        After each but the last the mean and covariance of the draws move to those of the weighted
        sample; the estimate is that of the last round alone.
    df, widen : float
        Degrees of freedom of the draws, and their covariance over that of the approximation.
    seed : int

    Returns
    -------
    Estimate
    """
    value = truth.likelihood.value if value is None else value
    size = len(truth.covariance)
    mean, covariance = np.zeros(size), truth.covariance
    for number in range(rounds):
        shape = widen * covariance * (df - 2.0) / df
        proposal = multivariate_t(mean, 0.5 * (shape + shape.T), df=df, seed=seed + number)
        draws = proposal.rvs(n).reshape(n, size)
        log_w = log_densities(truth, sides, value, draws) - proposal.logpdf(draws)
        weights = np.exp(log_w - logsumexp(log_w))
        effective = float(1.0 / (weights**2).sum())
        mean = weights @ draws
        covariance = (weights[:, None] * (draws - mean)).T @ (draws - mean)
        # few good draws span few directions
        share = effective / (effective + 10.0 * size)
        covariance = share * covariance + (1.0 - share) * truth.covariance
    found = np.log(n) - logsumexp(log_w) - truth.orbit.log_volume
    return Estimate(float(found), effective)


def log_densities(truth, sides, value, draws):
    """Log of exp(-L) and the Jacobian of the slice at draws (n, size); -inf on the other side."""
    tangents = truth.orbit.tangents(truth.B)
    half = 0.5 * np.linalg.slogdet(tangents.T @ tangents)[1]
    out = np.full(len(draws), -np.inf)
    for i, delta in enumerate(draws):
        B = truth.B + (truth.basis @ delta).reshape(truth.B.shape)
        across = tangents.T @ truth.orbit.tangents(B)
        if (np.diagonal(across) > 0.0).all() and all(same(B, truth.B) for same in sides):
            out[i] = np.linalg.slogdet(across)[1] - half - value(B)
    return out
