"""Rows of several atoms under softmax against importance sampling of their own parameters."""

import numpy as np
import pytest
from scipy.special import logsumexp

import reml_sae as rs
from reml_sae.datasets import planted_manifolds
from reml_sae.engine import Theta, criterion
from reml_sae.manifolds import Circle
from reml_sae.models.sae.rows import row_evidence

DRAWS = 800


def importance(model, theta, rho, rng):
    """-log of every row's integral (n,), and its effective number of draws.

    Shares but the largest are drawn from exponential laws about their modes, which have the tail
    that a share near zero has, and coordinates from wide Gaussians.
    """
    a = model.assignment.amplitudes(model.logits(theta), model.is_open).a
    n, k = a.shape
    rows, best = np.arange(n), a.argmax(axis=1)
    small = np.ones_like(a, bool)
    small[rows, best] = False
    means = 1.3 * a[small].reshape(n, k - 1)
    spreads = 1.4 / np.sqrt(np.einsum("nqq->nq", model.joint_at(theta, rho).row_hessian("exact")))
    carried = model.carried.copy()
    carried[:, : model.assignment.dim] = False
    logs = []
    for _ in range(DRAWS):
        unit, noise = rng.exponential(size=means.shape), rng.normal(size=theta.xi.shape) * carried
        shares, inside = np.zeros_like(a), (means * unit).sum(axis=1) < 1.0
        shares[small] = (means * unit).ravel()
        shares[rows, best] = np.where(inside, 1.0 - shares.sum(axis=1), 0.5)
        xi = theta.xi + noise * spreads
        xi[:, : model.assignment.dim] = model.assignment.coordinates(
            np.log(np.maximum(shares, 1e-300)) * model.assignment.temperature)
        drawn = Theta(xi, theta.beta)
        density = -(unit + np.log(means)).sum(axis=1) - (
            0.5 * noise**2 + carried * (np.log(spreads) + 0.5 * np.log(2.0 * np.pi))).sum(axis=1)
        # the draws are shares themselves: without the Jacobian of the chart
        value = model.row_objective(drawn, rho) - model.scaled_basis(drawn)[0].log_jacobian()
        logs.append(np.where(inside, -value - density, -np.inf))
    total = logsumexp(logs, axis=0)
    effective = 1.0 / (np.exp(np.array(logs) - total) ** 2).sum(axis=0)
    return np.log(DRAWS) - total, effective


@pytest.mark.parametrize(("k", "noise"), [(2, 0.1), (4, 0.15)])
def test_row_evidence_is_the_integral_over_shares_and_coordinates(k, noise):
    plant = planted_manifolds(40 * k, 2 * k, ["circle"] * k, noise_sd=noise, random_state=1)
    fit = rs.SAEManifold(n_atoms=k, topology=Circle(1), n_init=1,
                         noise="isotropic").fit(plant.Z)
    assert fit.converged_
    model, rho = fit.build_model(plant.Z), fit.rho_
    theta = criterion(model, rho, gradient=False).inner.theta
    shut_gain = model.assignment.shut_gain(model.active)
    constants = model.joint_at(theta, rho).row_prior.log_partitions() + shut_gain
    counted = row_evidence(model, theta, rho) - constants
    exact, effective = importance(model, theta, rho, np.random.default_rng(0))
    assert np.median(effective) > 250
    error = (counted - exact).mean() / (k - 1.0)
    assert abs(error) < 0.015
    gain = shut_gain.mean() / (k - 1.0)
    assert 0.05 < error + gain < 0.09  # Laplace's own error, the same whatever k
