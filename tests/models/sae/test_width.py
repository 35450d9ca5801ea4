"""Decoders that the rows do not hold: the log-determinant is bounded and differentiable."""

import numpy as np
import pytest
from scipy.linalg import eigh

from reml_sae import SAEManifold
from reml_sae.engine import Theta, criterion
from reml_sae.linalg import DenseCholesky
from reml_sae.manifolds import Circle, Sphere
from reml_sae.models.sae.quadrature.width import HeldByPrior
from reml_sae.models.sae.rows import row_decrements
from tests.models.sae.systems import build


def spectrum(seed, *ratios):
    """H and P with these eigenvalues of H^-1 P."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(len(ratios),) * 2)
    return root @ root.T, root @ np.diag(ratios) @ root.T


def held(H, P):
    return HeldByPrior.of(DenseCholesky.of(H, "H"), P)


def test_nothing_changes_where_the_rows_hold_all():
    H, P = spectrum(0, 0.9, 0.5, 1e-6, 0.0)
    found = held(H, P)
    np.testing.assert_allclose(found.half_logdet(), 0.5 * np.linalg.slogdet(H)[1], rtol=1e-12)
    for same in (found.by_curvature, found.by_prior, found.covariance):
        np.testing.assert_array_equal(same, found.inverse)


def test_nor_where_a_decoder_is_hardly_wider_than_its_prior():
    H, P = spectrum(4, 1.4, 0.5)
    found = held(H, P)
    np.testing.assert_allclose(found.half_logdet(), 0.5 * np.linalg.slogdet(H)[1], rtol=1e-12)
    np.testing.assert_allclose(found.by_curvature, found.inverse)
    shares = eigh(found.covariance, np.linalg.inv(P), eigvals_only=True)
    np.testing.assert_allclose(shares, [0.5, 1.0])


def test_a_singular_curvature_costs_little_and_no_covariance_exceeds_the_prior():
    H, P = spectrum(1, 1e6, 3.0, 0.2)
    found, least = held(H, P), 0.5 * np.linalg.slogdet(P)[1]
    apart = 0.5 * np.log(5.0) + 0.5 * np.log((1.0 + 0.25) / 3.0) - 0.5 * np.log(3.0)
    np.testing.assert_allclose(found.half_logdet() - least, apart, rtol=1e-6)
    shares = eigh(found.covariance, np.linalg.inv(P), eigvals_only=True)
    np.testing.assert_allclose(shares, [0.2, 1.0, 1.0], rtol=1e-2)


def test_gradients_of_the_bound():
    (H, P), (dH, dP) = spectrum(2, 5.0, 1.4, 0.8), spectrum(3, 1.0, -0.5, 2.0)
    found, step = held(H, P), 1e-6
    for along, slope in (((dH, 0.0 * dP), found.by_curvature), ((dP, dP), found.by_prior)):
        ends = [held(H + k * step * along[0], P + k * step * along[1]).half_logdet()
                for k in (1, -1)]
        np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step),
                                   0.5 * np.vdot(slope, along[0]), rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_the_gradient_of_v_where_a_decoder_is_held_by_its_prior():
    tried = 0
    for seed in range(4):
        Z = np.random.default_rng(seed).normal(size=(70, 3))
        fit = SAEManifold(n_atoms=1, topology=Circle(1), noise="isotropic").fit(Z)
        model, unit = fit.build_model(Z), np.eye(len(fit.rho_))[-1]
        rho = fit.rho_ + 0.01 * unit
        value = criterion(model, rho, tol=1e-11)
        tried += len(value.inner.point._held.ratio) > 0
        ends = [criterion(model, rho + k * 1e-5 * unit, tol=1e-12, theta=value.inner.theta).value
                for k in (1, -1)]
        np.testing.assert_allclose(value.gradient[-1], (ends[0] - ends[1]) / 2e-5, rtol=1e-4)
    assert tried > 0


def test_a_saddle_that_symmetry_hides_is_left():
    model = build([Circle(1)], n=80, p=3).with_integration("quadrature").decided()
    theta, rho = model.initial_theta(), model.initial_rho()
    beta = theta.beta.copy()
    beta[1:] = 0.0
    inner = criterion(model, rho, theta=Theta(theta.xi, beta), gradient=False).inner
    assert inner.converged and np.abs(inner.theta.beta[1:]).max() > 0.1


def test_rows_of_an_atom_that_collapsed_are_at_their_modes():
    """As a sphere of pure noise ends: no coordinate is better than another."""
    model = build([Sphere(1)], n=20, p=3)
    theta = model.initial_theta()
    beta = theta.beta.copy()
    beta[1:] = 0.0
    found = row_decrements(model, Theta(theta.xi, beta), model.initial_rho())
    np.testing.assert_allclose(found, 0.0, atol=1e-12)
