"""What the rows leave uncertain of their noise, against sums over a fine grid of coordinates."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_manifolds


def grid_moment(model, theta, rho, t):
    """Sum over rows of E_i[s s^T] with every row's coordinate on a grid (G, d), (p, p)."""
    phi = model.family.dispersion(rho[model.outer.psi])
    residual = model.Z[:, None] - (model.atoms[0].basis(t) @ theta.beta)[None]
    log_mass = -0.5 * (residual**2).sum(2) / phi - 0.5 * (t**2).sum(1) * (
        model.atoms[0].linear_axes == (0,))
    mass = np.exp(log_mass - log_mass.max(1, keepdims=True))
    mass /= mass.sum(1, keepdims=True)
    return np.einsum("ng,ngo,ngq->oq", mass, residual, residual) / phi**2


@pytest.mark.parametrize(("name", "grid"), [
    ("circle", np.linspace(-np.pi, np.pi, 400, endpoint=False)),
    ("linear", np.linspace(-8.0, 8.0, 1000))])
@pytest.mark.parametrize("noise_sd", [0.1, 0.4])
@pytest.mark.parametrize("integration", ["quadrature", "laplace"])
def test_moment(name, grid, noise_sd, integration):
    data = planted_manifolds(60, 4, [name], noise_sd=noise_sd, random_state=1)
    fit = rs.SAEManifold(n_atoms=1, topology=name, integration=integration, n_init=1).fit(data.Z)
    model = fit.build_model(data.Z)
    theta, rho = model.initial_theta(), model.initial_rho()
    found = model.at(theta, rho).score_moments().sum(axis=0)
    expected = grid_moment(model, theta, rho, grid[:, None])
    # Laplace's is of the first order in the noise
    scale = np.abs(expected).max() * (1e-8 if integration == "quadrature" else 0.1 * noise_sd)
    np.testing.assert_allclose(found, expected, atol=scale)
