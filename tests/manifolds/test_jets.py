"""Bases: derivatives, the constant, identified points, extreme coordinates."""

import numpy as np
import pytest

from reml_sae.manifolds import Euclidean, Interval, ProjectivePlane, Sphere
from tests.manifolds.cases import BALLS, MANIFOLDS, draws, every, images

STEP = 1e-6


def slopes(function, t, order):
    """Central differences of the derivatives one order down, (n, d, ..)."""
    moves = STEP * np.eye(t.shape[1])
    return np.stack([(function(t + move, order - 1)[order - 1]
                      - function(t - move, order - 1)[order - 1]) / (2 * STEP)
                     for move in moves], axis=1)


@every
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", ["jet", "prior_jet"])
def test_derivatives(manifold, order, name):
    # off the sphere too: the extension to R^3 is what is differentiated
    t = 0.3 + np.random.default_rng(0).normal(size=(5, manifold.latent_dim))
    function = getattr(manifold, name)
    parts = function(t, order)
    assert len(parts) == order + 1
    expected = slopes(function, t, order)
    assert parts[order].shape == expected.shape
    np.testing.assert_allclose(parts[order], expected, atol=1e-7 * (1 + np.abs(expected).max()))


@every
def test_lower_orders_do_not_depend_on_the_order_asked(manifold):
    t = draws(manifold, 4)
    for name in ("jet", "prior_jet"):
        function = getattr(manifold, name)
        for low, high in zip(function(t, 1), function(t, 3), strict=False):
            np.testing.assert_array_equal(low, high)


@every
def test_first_basis_function_is_constant(manifold):
    basis = manifold.basis(manifold.grid(9))
    assert basis.shape[1] == manifold.basis_size
    np.testing.assert_allclose(basis[:, 0], 1.0)


@pytest.mark.parametrize("manifold", [m for m in MANIFOLDS if images(m, np.zeros((1, 2)))], ids=str)
def test_identified_points_are_one(manifold):
    t, other = draws(manifold, 20), draws(manifold, 20, seed=1)
    for image in images(manifold, t):
        np.testing.assert_allclose(manifold.basis(image), manifold.basis(t), atol=1e-12)
        np.testing.assert_allclose(manifold.distance(image, t), 0.0, atol=1e-12)
        np.testing.assert_allclose(
            manifold.distance(image, other), manifold.distance(t, other), atol=1e-12)


@every
def test_distinct_points_are_told_apart(manifold):
    t = draws(manifold, 60)
    basis = manifold.basis(t)
    first, second = np.triu_indices(60, 1)
    apart = manifold.distance(t[first], t[second]) > 0.05
    gap = np.linalg.norm(basis[first] - basis[second], axis=1)
    assert gap[apart].min() > 1e-3


@pytest.mark.parametrize("manifold", [m for m in MANIFOLDS if m.name in BALLS], ids=str)
def test_unit_vectors_have_no_radial_derivative_and_may_be_missing(manifold):
    t = draws(manifold, 6)
    np.testing.assert_allclose(np.einsum("nd,ndm->nm", t, manifold.jet(t, 1)[1]), 0.0, atol=1e-12)
    np.testing.assert_allclose(manifold.basis(3.0 * t), manifold.basis(t), atol=1e-12)
    _, slope, hessian = manifold.prior_jet(t, 2)
    np.testing.assert_allclose(slope, 0.0, atol=1e-15)
    np.testing.assert_allclose(hessian, t[:, :, None] * t[:, None], atol=1e-15)
    none = np.zeros((2, 3))
    assert all(np.isfinite(part).all() for part in manifold.jet(none, 3))
    assert np.isfinite(manifold.retract(none, none)).all()


def test_low_harmonics_are_what_they_should_be():
    t = draws(Sphere(1), 8)
    x, y, z = t.T
    np.testing.assert_allclose(Sphere(1).basis(t)[:, 1:], np.sqrt(3) * t[:, [2, 0, 1]], atol=1e-14)
    veronese = np.column_stack([
        np.sqrt(5) / 2 * (3 * z**2 - 1), np.sqrt(15) * x * z, np.sqrt(15) * y * z,
        np.sqrt(15) / 2 * (x**2 - y**2), np.sqrt(15) * x * y])
    np.testing.assert_allclose(ProjectivePlane(2).basis(t)[:, 1:], veronese, atol=1e-13)


@pytest.mark.parametrize("n_basis", [5, 8, 30])
def test_interval_far_out(n_basis):
    interval = Interval(n_basis)
    t = np.array([[-40.0], [-12.0], [0.0], [12.0], [40.0]])
    assert all(np.isfinite(part).all() for part in interval.jet(t, 3))
    assert all(np.isfinite(part).all() for part in interval.prior_jet(t, 3))
    np.testing.assert_allclose(interval.position(t), [0, 0, 0.5, 1, 1], atol=1e-15)
    assert (interval.basis(t[-1:])[0, 1:] > 0).all()
    np.testing.assert_allclose(interval.basis(t)[:, 1],
                               np.sqrt(12) * (interval.position(t) - 0.5), atol=1e-12)


def test_monomials_of_euclidean():
    t = np.array([[2.0, 3.0]])
    np.testing.assert_allclose(Euclidean(2, 2).basis(t)[0], [1, 2, 3, 4, 6 * np.sqrt(2), 9])
