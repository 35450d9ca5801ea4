"""The coordinate prior: partition, mean and orthogonality of the basis, roughness."""

import numpy as np
import pytest
from scipy.integrate import trapezoid

from reml_sae.manifolds import Circle, Cylinder, Duchon, Interval, Mobius, Torus
from tests.manifolds.cases import BALLS, MANIFOLDS, draws, every, prior_nodes

NULL = {"circle": 3, "sphere": 4, "projective_plane": 6, "torus": 5, "interval": 2, "cylinder": 4,
        "mobius": 5}
"""Dimension of the roughness' null space; 1 + d in the other topologies."""


@every
def test_log_prior_volume(manifold):
    _, mass = prior_nodes(manifold)
    assert np.log(mass.sum()) == pytest.approx(manifold.log_prior_volume(), abs=1e-9)


@every
def test_prior_mean_basis(manifold):
    nodes, mass = prior_nodes(manifold)
    mean = mass @ manifold.basis(nodes) / mass.sum()
    np.testing.assert_allclose(mean, manifold.prior_mean_basis(), atol=1e-4)


@pytest.mark.parametrize("manifold", [m for m in MANIFOLDS if m.name != "euclidean"], ids=str)
def test_functions_are_orthogonal_under_the_prior(manifold):
    nodes, mass = prior_nodes(manifold)
    basis = manifold.basis(nodes)
    gram = basis.T @ (mass[:, None] * basis) / mass.sum()
    squares = np.ones(manifold.basis_size)
    if manifold.name == "circle":  # whose cosines and sines are plain
        squares[1:] = 0.5
    # splines and radial functions have kinks, which the nodes here do not meet
    atol = {"duchon": 1e-3, "interval": 1e-7}.get(manifold.name, 1e-10)
    np.testing.assert_allclose(gram, np.diag(squares), atol=atol)


@every
def test_roughness_null_space(manifold):
    expected = NULL.get(manifold.name, 1 + manifold.latent_dim)
    S = manifold.roughness()
    if S is None:
        assert manifold.basis_size == expected
        return
    values = np.linalg.eigvalsh(S)
    np.testing.assert_allclose(values[:expected], 0.0, atol=1e-12 * values[-1])
    assert manifold.basis_size == expected or values[expected] > 1.0
    np.testing.assert_allclose(S[0], 0.0, atol=1e-12)
    np.testing.assert_array_equal(S, S.T)


@every
def test_roughness_is_gauge_invariant(manifold):
    S = manifold.roughness()
    if S is None:
        return
    for generator in manifold.gauge_generators():
        np.testing.assert_allclose(generator.T @ S + S @ generator, 0.0, atol=1e-10)


@pytest.mark.parametrize("manifold", [Torus(2), Cylinder(2, 2), Mobius(2)], ids=str)
def test_flat_roughness_is_the_mean_squared_hessian(manifold):
    nodes, mass = prior_nodes(manifold)
    bends = manifold.jet(nodes, 2)[2]
    energy = np.einsum("n,ndem,ndek->mk", mass / mass.sum(), bends, bends)
    S = manifold.roughness()
    free = np.diag(S) == 0
    np.testing.assert_allclose(S[~free][:, ~free], energy[~free][:, ~free], atol=1e-7)
    # the free ones are affine, of the first harmonics, or the half turn of a strip
    assert np.diag(energy)[free].max() < 1.0 + 1e-9


@pytest.mark.parametrize("manifold", [m for m in MANIFOLDS if m.name in BALLS], ids=str)
def test_roughness_on_unit_vectors_is_the_squared_laplacian(manifold):
    t = draws(manifold, 50)
    laplacian = np.einsum("nddm->nm", manifold.jet(t, 2)[2])
    eigenvalues = -(laplacian * manifold.basis(t)).sum(0) / (manifold.basis(t) ** 2).sum(0)
    np.testing.assert_allclose(laplacian, -manifold.basis(t) * eigenvalues, atol=1e-9)
    S = manifold.roughness()
    if S is not None:
        rough = np.diag(S) > 0
        unit = 1.0 if manifold.name == "sphere" else 4.0
        np.testing.assert_allclose(np.diag(S)[rough], (eigenvalues[rough] / unit) ** 2)


@pytest.mark.parametrize("n_basis", [5, 9])
def test_interval_roughness_is_the_bending_energy(n_basis):
    interval = Interval(n_basis)
    nodes = np.linspace(-6.0, 6.0, 4001)[:, None]
    s = interval.position(nodes)
    _, slope, bend = interval.jet(nodes, 2)
    density = np.exp(-nodes**2 / 2) / np.sqrt(2 * np.pi)
    second = (bend[:, 0, 0] + nodes * slope[:, 0]) / density**2
    energy = trapezoid(second[:, :, None] * second[:, None], s, axis=0) / np.pi**4
    S = interval.roughness()
    np.testing.assert_allclose(energy, S, atol=1e-4 * S.max())
    # a beam free at both ends: (4.7300 / pi)^4
    assert Interval(20).roughness()[2, 2] == pytest.approx(5.1387, rel=1e-3)


@pytest.mark.parametrize("n_centres", [6, 10])
def test_duchon_roughness_is_the_bending_energy_of_the_line(n_centres):
    line = Duchon(1, n_centres)
    t = np.linspace(-4.0, 4.0, 8001)[:, None]
    bend = line.jet(t, 2)[2][:, 0, 0]
    energy = trapezoid(bend[:, :, None] * bend[:, None], t[:, 0], axis=0)
    S = line.roughness()
    np.testing.assert_allclose(energy / energy[2, 2], S / S[2, 2], atol=1e-4 * S.max())
    # nothing bends beyond the centres
    np.testing.assert_allclose(bend[np.abs(t[:, 0]) > 3.0], 0.0, atol=1e-9)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_duchon_roughness_has_the_units_of_euclidean(dim):
    space = Duchon(dim, 12)
    nodes, mass = prior_nodes(space)
    bend = space.jet(nodes, 2)[2][..., dim + 1]
    energy = mass / mass.sum() @ (bend**2).sum((1, 2))
    assert space.roughness()[dim + 1, dim + 1] == pytest.approx(energy, rel=1e-3)


def test_roughness_grows_like_the_fourth_power():
    h = np.repeat(np.arange(2, 6), 2)
    np.testing.assert_array_equal(np.diag(Circle(5).roughness())[3:], h**4)
    values = np.diag(Interval(40).roughness())[5:15]
    np.testing.assert_allclose(values, (np.arange(5, 15) - 0.5) ** 4, rtol=0.01)
