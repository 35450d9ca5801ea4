"""The brute-force truth itself: derivatives, closed forms, invariance, importance sampling."""

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.stats import multivariate_normal, ortho_group

from reml_sae.datasets import planted_manifolds
from reml_sae.manifolds import Circle, Cylinder, Euclidean, Interval, Mobius, Sphere, Torus
from tests.reference.brute_force import Orbit, atom_likelihood, brute_force, laplace
from tests.reference.quadrature import MULTIPLICITY, generators, grid, moves

ATOMS = {
    "circle": (Circle(2), "circle"),
    "sphere": (Sphere(2), "sphere"),
    "torus": (Torus(1), "torus"),
    "interval": (Interval(7), "interval"),
    "line": (Euclidean(1, 1), "linear"),
    "parabola": (Euclidean(1, 2), "linear"),
    "plane": (Euclidean(2, 1), "plane"),
    "cylinder": (Cylinder(1, 1), "cylinder"),
    "mobius": (Mobius(1), "mobius"),
}
every = pytest.mark.parametrize("name", ATOMS)
TURNED = [name for name in ATOMS if name not in ("interval", "line", "parabola")]


def planted(name, n=30, sd=0.3, seed=0, p=None):
    atom, shape = ATOMS[name]
    p = (4 if name == "torus" else 3) if p is None else p
    data = planted_manifolds(n, p, [shape], noise_sd=sd, random_state=seed)
    return atom, data.Z - data.Z.mean(0), data.coordinates[0]


@every
def test_gradient_and_hessian(name):
    atom, Z, _ = planted(name)
    rng = np.random.default_rng(1)
    L = atom_likelihood(Z, atom, np.diag(rng.uniform(1.0, 2.0, atom.basis_size)), 0.2, 24)
    B, V = 0.5 * rng.normal(size=(2, atom.basis_size, Z.shape[1]))
    h = 1e-4
    above, below = L.derivatives(B + h * V), L.derivatives(B - h * V)
    gradient, hessian = L.derivatives(B)[1:]
    assert gradient @ V.ravel() == pytest.approx((above[0] - below[0]) / (2 * h), rel=1e-6)
    moved = (above[1] - below[1]) / (2 * h)
    np.testing.assert_allclose(hessian @ V.ravel(), moved, rtol=1e-6,
                               atol=1e-6 * np.abs(moved).max())
    assert L.value(B) == pytest.approx(L.derivatives(B)[0], rel=1e-12)


@every
def test_grid_carries_the_prior(name):
    """The weights sum to one, and the means of the basis are those that the manifold states."""
    atom = ATOMS[name][0]
    t, weights = grid(atom, 64)
    assert np.exp(weights).sum() == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(np.exp(weights) @ atom.basis(t), atom.prior_mean_basis(), atol=1e-10)
    # two different rules for the density of the prior, where nodes are spread evenly
    if name not in ("sphere", "interval"):
        density = -atom.prior_jet(t, 0)[0]
        np.testing.assert_allclose(weights - weights[0], density - density[0], atol=1e-9)


@pytest.mark.parametrize("name", TURNED)
def test_likelihood_does_not_change_along_the_orbit(name):
    atom, Z, _ = planted(name)
    L = atom_likelihood(Z, atom, np.eye(atom.basis_size), 0.2, 192)
    B = 0.5 * np.random.default_rng(2).normal(size=(atom.basis_size, Z.shape[1]))
    orbit = Orbit([atom], atom.basis_size)
    gradient = L.derivatives(B)[1]
    assert len(orbit.generators) == len(moves(atom)[0])
    assert np.abs(orbit.tangents(B).T @ gradient).max() < 1e-9 * np.linalg.norm(gradient)


@pytest.mark.parametrize("name", TURNED)
def test_generators_and_volumes_are_those_of_the_manifolds(name):
    """Two statements of the same group, up to the choice of its axes."""
    atom = ATOMS[name][0]
    ours, theirs = generators(atom), atom.gauge_generators()
    shape = (len(theirs), -1)
    weights = np.linalg.lstsq(theirs.reshape(shape).T, ours.reshape(shape).T, rcond=None)[0]
    np.testing.assert_allclose(np.tensordot(weights.T, theirs, 1), ours, atol=1e-9)
    np.testing.assert_allclose(weights @ weights.T, np.eye(len(ours)), atol=1e-9)
    assert moves(atom)[1] == pytest.approx(atom.log_gauge_volume(range(len(ours))))


@pytest.mark.parametrize("d", [1, 2])
def test_rows_of_a_linear_atom_are_probabilistic_pca(d):
    atom, Z, t = planted("line" if d == 1 else "plane", sd=0.4)
    B = np.linalg.lstsq(atom.basis(t), Z, rcond=None)[0]
    B += 0.2 * np.random.default_rng(3).normal(size=B.shape)
    rows = atom_likelihood(Z, atom, np.eye(1 + d), 0.16, 256).row_values(B)
    cov = B[1:].T @ B[1:] + 0.16 * np.eye(3)
    np.testing.assert_allclose(rows, -multivariate_normal(B[0], cov).logpdf(Z), rtol=1e-10)


def test_constant_decoder_is_a_gaussian_in_closed_form():
    """Without curvature in L Laplace is exact: a line whose slope is held at zero is a mean."""
    atom, Z, _ = planted("line")
    L = atom_likelihood(Z, atom, np.diag([1.0, 1e12]), 0.3, 128)
    found = laplace(L, Orbit([atom], 2), np.zeros((2, 3)))
    n = len(Z)
    cov = np.ones((n, n)) + 0.3 * np.eye(n)
    exact = -sum(multivariate_normal(np.zeros(n), cov).logpdf(z) for z in Z.T)
    assert found.value == pytest.approx(exact, abs=1e-6)


@every
def test_rotation_of_the_data_and_unit(name):
    atom, Z, t = planted(name, n=60, sd=0.2)
    turn = ortho_group(Z.shape[1], seed=4).rvs()
    value = brute_force(Z, atom, dispersion=0.04, coordinates=t).value
    turned = brute_force(Z @ turn, atom, dispersion=0.04, coordinates=t, unit=2.0)
    assert turned.value == pytest.approx(value + Z.size * np.log(2.0), abs=1e-6)
    assert turned.decrement < 1e-6


def _reflections(name, t):
    """Other coordinates of the same atom, one for each of its discrete symmetries."""
    signs = {"torus": [[1, 1], [1, -1], [-1, 1], [-1, -1]],
             "cylinder": [[1, 1], [1, -1], [-1, 1], [-1, -1]],
             "mobius": [[1, 1], [-1, 1]], "plane": [[1, 1], [1, -1]],
             "sphere": [[1, 1, 1], [-1, -1, -1]]}.get(name, [[1], [-1]])
    out = [t * np.array(s, float) for s in signs]
    return [*out, *[u[:, ::-1] for u in out]] if name == "torus" else out


@pytest.mark.parametrize("name", [name for name in ATOMS if name != "parabola"])
def test_multiplicity_counts_separate_modes_of_equal_mass(name):
    """Every reflection gives a mode of the same value, on an orbit of its own."""
    atom, Z, t = planted(name, n=60, sd=0.2)
    found = [brute_force(Z, atom, dispersion=0.04, coordinates=u) for u in _reflections(name, t)]
    assert len(found) == MULTIPLICITY[atom.name]
    np.testing.assert_allclose([f.value for f in found], found[0].value, atol=1e-6)
    turns = np.linspace(0.0, 1.0, 40, endpoint=False) * np.exp(moves(atom)[1])
    if len(moves(atom)[0]) <= 1:
        first, R = found[0].B, found[0].orbit.generators
        orbit = [expm(c * R[0]) @ first for c in turns] if len(R) else [first]
        for other in found[1:]:
            assert min(np.linalg.norm(b - other.B) for b in orbit) > 0.3 * np.linalg.norm(first)
