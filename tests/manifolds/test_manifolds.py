"""Topologies: jets against finite differences, gauge, roughness, prior, retraction."""

import numpy as np
import pytest

from reml_sae.errors import RegistryError
from reml_sae.manifolds import Circle, Euclidean, get_manifold

MANIFOLDS = [Circle(1), Circle(2), Circle(5), Euclidean(1, 1), Euclidean(1, 3), Euclidean(2, 1),
             Euclidean(2, 2), Euclidean(3, 2)]
every = pytest.mark.parametrize("manifold", MANIFOLDS, ids=str)


@every
@pytest.mark.parametrize("order", [1, 2, 3])
def test_jet(manifold, order):
    rng = np.random.default_rng(0)
    t = rng.normal(size=(4, manifold.latent_dim))
    step = 1e-6
    for axis in range(manifold.latent_dim):
        move = step * np.eye(manifold.latent_dim)[axis]
        lower = [manifold.jet(t + s * move, order - 1)[order - 1] for s in (1, -1)]
        slope = (lower[0] - lower[1]) / (2 * step)
        found = np.moveaxis(manifold.jet(t, order)[order], 1, 0)[axis]
        np.testing.assert_allclose(found, slope, atol=1e-6 * max(1.0, np.abs(slope).max()))


@every
def test_first_basis_function_is_constant(manifold):
    basis = manifold.basis(manifold.grid(9))
    assert basis.shape[1] == manifold.basis_size
    np.testing.assert_allclose(basis[:, 0], 1.0)


@every
def test_gauge_moves_coordinates_and_decoder_against_each_other(manifold):
    rng = np.random.default_rng(1)
    t = rng.normal(size=(6, manifold.latent_dim))
    b = rng.normal(size=(manifold.basis_size, 3))
    eps = 1e-6
    for generator, field in zip(manifold.gauge_generators(), manifold.gauge_field(t), strict=True):
        moved = manifold.basis(t + eps * field) @ (b + eps * generator @ b)
        np.testing.assert_allclose(moved, manifold.basis(t) @ b, atol=1e-9)


@every
def test_roughness_is_psd_and_gauge_invariant(manifold):
    S = manifold.roughness()
    if S is None:
        return
    assert np.linalg.eigvalsh(S)[0] > -1e-12
    for generator in manifold.gauge_generators():
        np.testing.assert_allclose(generator.T @ S + S @ generator, 0.0, atol=1e-10)


@every
def test_gauge_leaves_the_decoder_prior(manifold):
    for generator in manifold.gauge_generators():
        np.testing.assert_allclose(generator, -generator.T, atol=1e-12)


@every
def test_prior_mean_basis(manifold):
    rng = np.random.default_rng(2)
    n = 400_000
    t = (rng.uniform(-np.pi, np.pi, size=(n, 1)) if manifold.prior_precision == 0
         else rng.normal(size=(n, manifold.latent_dim)) / np.sqrt(manifold.prior_precision))
    basis = manifold.basis(t)
    error = np.abs(basis.mean(0) - manifold.prior_mean_basis())
    assert (error <= 5 * basis.std(0) / np.sqrt(n) + 1e-12).all()


@every
def test_configuration_round_trip(manifold):
    assert get_manifold(manifold.to_config()) == manifold


def test_circle_wraps():
    circle = Circle(1)
    moved = circle.retract(np.array([[3.0]]), np.array([[1.0]]))
    assert -np.pi <= moved[0, 0] < np.pi
    assert circle.distance(np.array([[-3.1]]), np.array([[3.1]]))[0] < 0.1


def test_unknown_topology_names_the_near_ones():
    with pytest.raises(RegistryError, match="'circle'"):
        get_manifold("circel")
