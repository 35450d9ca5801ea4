"""How good the Laplace approximation of every row's integral is, by importance sampling.

Given the decoders, V replaces the integral of row i over its local parameters by a Gaussian one:

    int exp(-f_i(xi)) dxi  ~  exp(-f_i(xi_i)) |D_i / 2 pi|^(-1/2)

Draws x = xi_i + D_i^(-1/2) e, e ~ N(0, I), have weights exp(f_i(xi_i) - f_i(x) + |e|^2 / 2), whose
mean is the ratio of the two sides. The weights' tail says whether that mean can be trusted:
Pareto k below 0.7 (Vehtari, Simpson, Gelman, Yao and Gabry 2024, "Pareto smoothed importance
sampling", JMLR 25), or weights so equal that no tail can matter. k is the shape of a generalised
Pareto fitted to the largest weights by the method of Zhang and Stephens (2009, Technometrics
51:316), with the weak prior of the former.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from reml_sae.linalg import batched_cholesky
from reml_sae.models import SAEManifoldModel, Theta

Array = NDArray[np.float64]

TRUSTED_K = 0.7
NEGLIGIBLE = 0.02
"""Standard error in nats below which the tail of a row's weights does not matter."""
PRIOR_COUNT, PRIOR_SHAPE = 10.0, 0.5


@dataclass(frozen=True)
class Certificate:
    """Accuracy of the Laplace approximation, row by row.

    Attributes
    ----------
    rows : (n,) rows that were looked at
    log_ratio : (n,) log of the integral over its Laplace approximation, in nats
    standard_error : (n,) of ``log_ratio``
    pareto_k : (n,) shape of the weights' tail
    """

    rows: NDArray[np.intp]
    log_ratio: Array
    standard_error: Array
    pareto_k: Array

    @property
    def untrusted(self) -> NDArray[np.intp]:
        """Rows whose weights have a tail too heavy for their mean to be trusted."""
        heavy = (self.pareto_k > TRUSTED_K) & (self.standard_error > NEGLIGIBLE)
        return self.rows[heavy]


def laplace_certificate(
    model: SAEManifoldModel,
    theta: Theta,
    rho: Array,
    *,
    rows: NDArray[np.intp] | None = None,
    n_draws: int = 200,
    seed: int = 0,
) -> Certificate:
    """Check the Laplace approximation of the rows at given decoders.

    Penalties that couple rows are left out: their integral is not a product over rows.

    Parameters
    ----------
    model : SAEManifoldModel
    theta : Theta
        The mode.
    rho : (n_rho,) array
    rows : (n,) array of int, optional
        All by default.
    n_draws : int
        At least 25.
    seed : int

    Returns
    -------
    Certificate
    """
    rows = np.arange(len(theta.xi)) if rows is None else np.asarray(rows, np.intp)
    part = model.rows(rows)
    mode = Theta(theta.xi[rows], theta.beta)
    carried = np.ones(mode.xi.shape, bool)
    carried[:, part.chart.dim:] = part.active_coordinates
    point = part.at(mode, rho)
    blocks = point.row_hessian("exact")
    low = np.linalg.eigvalsh(blocks)[:, 0] if blocks.shape[1] else np.ones(len(blocks))
    blocks = np.where((low > 0.0)[:, None, None], blocks, point.row_hessian("majorizer"))
    lower = batched_cholesky(blocks)
    rng = np.random.default_rng(seed)
    at_mode = part.row_objective(mode, rho)
    log_weights = np.empty((n_draws, len(rows)))
    for draw in log_weights:
        noise = rng.normal(size=mode.xi.shape) * carried
        step: Array = carried * np.asarray(
            np.linalg.solve(lower.transpose(0, 2, 1), noise[:, :, None])[:, :, 0], float)
        moved = part.retract(mode, Theta(step, np.zeros_like(mode.beta)))
        draw[:] = at_mode - part.row_objective(moved, rho) + 0.5 * (noise**2).sum(axis=1)
        draw[_left_the_manifold(part, step)] = -np.inf
    log_ratio = logsumexp(log_weights, axis=0) - np.log(n_draws)
    relative = np.exp(log_weights - log_ratio)
    error = np.sqrt(np.maximum((relative**2).mean(axis=0) - 1.0, 0.0) / n_draws)
    return Certificate(rows, log_ratio, error, pareto_shape(log_weights))


def _left_the_manifold(model: SAEManifoldModel, step: Array) -> NDArray[np.bool_]:
    """Rows whose step goes round a compact manifold, where the integral has no more mass."""
    out = np.zeros(len(step), bool)
    for k, atom in enumerate(model.atoms):
        if atom.prior_precision == 0:
            out |= (np.abs(step[:, model.coordinate_columns(k)]) > np.pi).any(axis=1)
    return out


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
