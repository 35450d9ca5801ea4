"""How good the Laplace approximation of every row's integral is, by importance sampling.

Given the decoders, or the coefficients of a mixed model whose rows are groups, V replaces the
integral of row i over its local parameters by a Gaussian one:

    int exp(-f_i(xi)) dxi  ~  exp(-f_i(xi_i)) |D_i / 2 pi|^(-1/2)

Draws x = xi_i + D_i^(-1/2) e, e ~ N(0, I), have weights exp(f_i(xi_i) - f_i(x) + |e|^2 / 2), whose
mean is the ratio of the two sides. Where the weights' tail is heavy, a row's standard error is too
small: Pareto k above 0.7 (Vehtari, Simpson, Gelman, Yao and Gabry 2024, "Pareto smoothed importance
sampling", JMLR 25) asks for more draws of that row. k is the shape of a generalised Pareto fitted
to the largest weights by the method of Zhang and Stephens (2009, Technometrics 51:316), with the
weak prior of the former; of 200 draws it is itself uncertain by about .2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import logsumexp

from reml_sae.engine import RowSampler, Theta
from reml_sae.linalg import single_threaded
from reml_sae.typing import Array

PRIOR_COUNT, PRIOR_SHAPE = 10.0, 0.5


@dataclass(frozen=True)
class Certificate:
    """Accuracy of the Laplace approximation, row by row.

    Attributes
    ----------
    log_ratio : (n,) log of the integral over its Laplace approximation, in nats
        Of a row whose draws all leave a compact manifold, a bound from above.
    standard_error : (n,) of ``log_ratio``, infinite of such a row
    pareto_k : (n,) shape of the weights' tail
    """

    log_ratio: Array
    standard_error: Array
    pareto_k: Array


class RowModel(Protocol):
    """A model whose rows can be drawn from their Gaussian approximations."""

    def row_objective(self, theta: Theta, rho: Array) -> Array:
        """The part of F that belongs to each row, (n,)."""
        ...

    def row_sampler(self, theta: Theta, rho: Array) -> RowSampler:
        """Draws of the rows around a mode."""
        ...


@single_threaded
def laplace_certificate(
    model: RowModel, theta: Theta, rho: Array, *, n_draws: int = 200, seed: int = 0,
    copies: int = 1,
) -> Certificate:
    """Check the Laplace approximation of every row's integral at given decoders or coefficients.

    Penalties that couple rows are left out: their integral is not a product over rows.

    Parameters
    ----------
    model : SAEManifoldModel, MixedModel or NonlinearMixedModel
    theta : Theta
        The mode.
    rho : (n_rho,) array
    n_draws : int
        At least 25, of each row.
    seed : int
    copies : int
        How often the model holds every row, all of them in turn: so many draws are one.

    Returns
    -------
    Certificate
    """
    sampler = model.row_sampler(theta, rho)
    rng = np.random.default_rng(seed)
    at_mode = model.row_objective(theta, rho)
    log_weights = np.empty((-(-n_draws // copies), len(at_mode)))
    for draw in log_weights:
        noise = rng.normal(size=theta.xi.shape) * sampler.carried
        moved, log_volume = sampler.move(noise)
        draw[:] = at_mode - model.row_objective(moved, rho) + 0.5 * (noise**2).sum(axis=1)
        draw += log_volume
    log_weights = log_weights.reshape(-1, len(at_mode) // copies)
    # where no draw stays on a compact manifold the integral is less than one draw's share
    lost = np.isneginf(log_weights).all(axis=0)
    log_weights[:, lost] = 0.0
    log_ratio = np.where(lost, 0.0, logsumexp(log_weights, axis=0)) - np.log(len(log_weights))
    relative = np.exp(log_weights - log_ratio)
    error = np.sqrt(np.maximum((relative**2).mean(axis=0) - 1.0, 0.0) / len(log_weights))
    return Certificate(log_ratio, np.where(lost, np.inf, error),
                       np.where(lost, np.inf, pareto_shape(log_weights)))


def pareto_shape(log_weights: Array) -> Array:
    """Shape k of the upper tail of weights (S, n), column by column: (n,).

    Columns whose largest weights are all equal have k = -inf: they have no tail.
    """
    n_draws = len(log_weights)
    n_tail = int(np.ceil(min(0.2 * n_draws, 3.0 * np.sqrt(n_draws))))
    ordered = np.sort(log_weights, axis=0)[-(n_tail + 1):]
    weights = np.exp(ordered - ordered[-1])
    excess = weights[1:] - weights[0]
    flat = excess[-1] <= 1e-12
    x = np.where(flat, 1.0 + np.arange(n_tail)[:, None], excess)
    # profile posterior of theta = k / sigma on Zhang and Stephens' grid
    n_grid = 30 + int(np.sqrt(n_tail))
    level = 1.0 - np.sqrt(n_grid / (np.arange(1, n_grid + 1) - 0.5))
    quartile = x[int(n_tail / 4.0 + 0.5) - 1]
    theta = 1.0 / x[-1] + level[:, None] / (3.0 * np.maximum(quartile, 1e-300))
    k = np.log1p(-theta[:, None, :] * x).mean(axis=1)
    profile = n_tail * (np.log(-theta / k) - k - 1.0)
    posterior = np.exp(profile - logsumexp(profile, axis=0))
    best = (theta * posterior).sum(axis=0)
    shape = np.log1p(-best * x).mean(axis=0)
    shape = (n_tail * shape + PRIOR_COUNT * PRIOR_SHAPE) / (n_tail + PRIOR_COUNT)
    return np.where(flat, -np.inf, shape)
