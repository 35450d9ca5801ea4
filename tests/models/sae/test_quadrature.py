"""Rows integrated out by quadrature: derivatives, closed forms, and the brute-force truth."""

import numpy as np
import pytest
from scipy.special import i0e

from reml_sae.engine import Theta, criterion, solve_inner
from reml_sae.errors import InputError
from reml_sae.families import Gaussian
from reml_sae.families.noise import Factor
from reml_sae.manifolds import Circle, Cylinder, Euclidean, Mobius, Sphere, Torus
from reml_sae.models import SAEManifoldModel
from reml_sae.models.sae import model as sae_model
from reml_sae.models.sae.quadrature.lattice import lattice, squares
from reml_sae.models.sae.quadrature.nodes import RowNodes
from reml_sae.models.sae.quadrature.pairs import RowPairs
from reml_sae.models.sae.quadrature.parts import RowParts
from tests.models.sae.systems import QUADRATURE, at_mode, build, by_quadrature

STEP, SHORT = 1e-4, 1e-5
every = pytest.mark.parametrize("name", QUADRATURE)


def central(function, step=STEP):
    """Fourth-order difference of a function of k in units of ``step``."""
    return (8 * (function(1) - function(-1)) - (function(2) - function(-2))) / (12 * step)


def close(found, expected, tolerance=1e-7):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * scale)


def along(theta, v, k, step=STEP):
    return Theta(theta.xi, theta.beta + k * step * v)


@pytest.mark.parametrize("p", [2, 40])
def test_squared_distances(p):
    """In few columns and little noise to a share of themselves, however small they are."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(7, p))
    Z = np.vstack([points[:3] + 1e-6 * rng.normal(size=(3, p)), rng.normal(size=(4, p))])
    exact = ((Z[:, None] - points) ** 2).sum(axis=2)
    for phi in (1e-12, 0.1):
        np.testing.assert_allclose(squares(Z, points, phi), exact, rtol=1e-12,
                                   atol=0.0 if p == 2 and phi < 1e-6 else 1e-12)


@every
def test_derivatives_away_from_the_mode(name):
    model, rng = by_quadrature(name), np.random.default_rng(0)
    theta, rho = model.initial_theta(), model.initial_rho()
    point, v = model.at(theta, rho), rng.normal(size=theta.beta.shape)
    direction = Theta(np.zeros_like(theta.xi), v)
    close(point.gradient().dot(direction),
          central(lambda k: model.objective(along(theta, v, k), rho)))
    product = point.hvp(direction).beta
    for column in point.gauge.columns:  # the product holds the gauge terms, the gradient does not
        product = product - point.gauge.weight * np.vdot(column, v) * column
    close(product, central(lambda k: model.at(along(theta, v, k), rho).gradient().beta))
    units = np.eye(len(rho))
    close(point.objective_rho(), np.array([central(
        lambda k, e=e: model.objective(theta, rho + k * STEP * e)) for e in units]))
    close(point.gradient_rho_dot(direction), np.array([central(
        lambda k, e=e: model.at(theta, rho + k * STEP * e).gradient().dot(direction))
        for e in units]))


# the torus on rows of a circle loses one of its angles at its mode, where the orbit's volume is 0
@pytest.mark.parametrize("name", [name for name in QUADRATURE if name != "torus"])
@pytest.mark.parametrize("curvature", ["majorizer", "exact"])
def test_logdet_gradient(name, curvature):
    model, rng = at_mode(name, build_model=by_quadrature), np.random.default_rng(1)
    theta, rho = model.initial_theta(), model.initial_rho()
    value, v = model.at(theta, rho).half_logdet(curvature), rng.normal(size=theta.beta.shape)
    direction = Theta(np.zeros_like(theta.xi), v)
    close(value.theta.dot(direction), central(
        lambda k: model.at(along(theta, v, k, SHORT), rho).half_logdet(curvature).value, SHORT),
        1e-6)
    close(value.rho, np.array([central(
        lambda k, e=e: model.at(theta, rho + k * STEP * e).half_logdet(curvature).value)
        for e in np.eye(len(rho))]), 1e-6)


@pytest.mark.parametrize(("atom", "p"), [  # more functions than columns, and fewer
    *((atom, 3) for atom in (Circle(2), Torus(1), Sphere(2), Euclidean(1, 2))),
    (Circle(2), 8), (Euclidean(1, 2), 5)], ids=repr)
def test_shared_nodes_and_nodes_of_each_row_give_the_same_sums(atom, p):
    rng = np.random.default_rng(2)
    Z, beta = rng.normal(size=(40, p)), 0.5 * rng.normal(size=(atom.basis_size, p))
    offset, psi = rng.normal(size=p), np.array([np.log(0.3)])
    nodes = lattice(atom, beta, Gaussian(), psi, Z, offset)
    arguments = (Z, nodes, beta, offset, Gaussian(), psi)
    shared, own = RowNodes(*arguments), RowPairs(*arguments)
    for name in ("rows", "beta", "outer", "curvature", "complete", "energy", "edf", "scores"):
        close(getattr(shared.sums, name), getattr(own.sums, name), 1e-9)
    G = rng.normal(size=(beta.size, beta.size))
    for one, other in zip(shared.curvature_pullback(G + G.T), own.curvature_pullback(G + G.T),
                          strict=True):
        close(one, other, 1e-9)
    u = rng.normal(size=beta.shape)
    close(shared.gradient_outer_dot(u), own.gradient_outer_dot(u), 1e-9)
    close(shared.data_gradient(G + G.T, u), own.data_gradient(G + G.T, u), 1e-9)


@pytest.mark.parametrize("sd", [0.02, 0.1, 0.5, 2.0])
def test_rows_of_a_circle_have_the_bessel_integral(sd):
    """E exp(-|z - y(t)|^2 / 2 phi) = exp(-(|z|^2 + 1) / 2 phi) I_0(|z| / phi)."""
    rng, phi = np.random.default_rng(3), sd**2
    t = rng.uniform(-np.pi, np.pi, 50)
    Z = np.column_stack([np.cos(t), np.sin(t)]) + sd * rng.normal(size=(50, 2))
    beta = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    model = SAEManifoldModel(Z, [Circle(1)], [], np.ones((50, 1), bool),
                             Theta(t[:, None], beta), np.log([phi]), integration="quadrature")
    radius = np.linalg.norm(Z, axis=1)
    exact = (0.5 * (radius - 1.0) ** 2 / phi - np.log(i0e(radius / phi))
             + np.log(2.0 * np.pi * phi))
    np.testing.assert_allclose(model.row_quadrature(beta, np.log([phi])).row_values(), exact,
                               rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("atom", [Euclidean(1, 1), Euclidean(2, 1), Euclidean(3, 1)], ids=repr)
def test_rows_of_a_linear_atom_are_probabilistic_pca(atom):
    rng, phi = np.random.default_rng(4), 0.2
    Z, beta = rng.normal(size=(30, 4)), rng.normal(size=(atom.basis_size, 4))
    model = SAEManifoldModel(Z, [atom], [], np.ones((30, 1), bool),
                             Theta(np.zeros((30, atom.dim)), beta), np.log([phi]))
    assert model.by_quadrature
    cov = beta[1:].T @ beta[1:] + phi * np.eye(4)
    centred = Z - beta[0]
    exact = 0.5 * (np.einsum("np,pn->n", centred, np.linalg.solve(cov, centred.T))
                   + np.linalg.slogdet(2.0 * np.pi * cov)[1])
    np.testing.assert_allclose(model.row_quadrature(beta, np.log([phi])).row_values(), exact,
                               rtol=1e-12)


@pytest.mark.parametrize(("rank", "steps"), [(1, 241), (2, 81)])
def test_factors_of_the_noise_are_linear_atoms_that_every_row_uses(rank, steps):
    """Value, gradient and curvature of a circle amid factors, against a plain sum over the angle
    and over normal coordinates of a linear atom for every factor, amplitude one, in white noise.
    """
    rng = np.random.default_rng(11)
    frame, angle = np.linalg.qr(rng.normal(size=(4, rank)))[0].T, rng.uniform(-np.pi, np.pi, 60)
    Z = (np.column_stack([np.cos(angle), np.sin(angle), np.zeros((60, 2))])
         + 0.4 * rng.normal(size=(60, 4)) + 1.2 * rng.normal(size=(60, rank)) @ frame)
    noise = Factor.of_rank(Z.T @ Z / 60, rank)
    rows, rho, beta = Z[:8], np.log([0.3]), rng.normal(size=(3, 4))
    model = SAEManifoldModel(
        noise.whiten(rows), [Circle(1)], [], np.ones((8, 1), bool),
        Theta(angle[:8, None], noise.whiten(beta)), rho, noise=noise, integration="quadrature")
    # the noise is phi (floor I + L L^T)
    values, axes = np.linalg.eigh(noise.shape)
    floor = 0.3 * values[0]
    loadings = (np.sqrt(0.3 * values[-rank:] - floor) * axes[:, -rank:]).T
    t, u = np.linspace(-np.pi, np.pi, 48, endpoint=False), np.linspace(-7.0, 7.0, steps)
    u = np.stack(np.meshgrid(*[u] * rank), axis=-1).reshape(-1, rank)
    weight = np.exp(-0.5 * (u**2).sum(axis=1)) * ((14.0 / (steps - 1)) / np.sqrt(2 * np.pi)) ** rank
    basis, added = Circle(1).basis(t[:, None]), u @ loadings

    def value(decoders):
        out = []
        for z in rows:
            left = z - basis @ decoders
            square = (left**2).sum(axis=1)[:, None] - 2.0 * left @ added.T + (added**2).sum(axis=1)
            out.append(-np.log((np.exp(-0.5 * square / floor) @ weight).mean()))
        return np.array(out) + 2.0 * np.log(2.0 * np.pi * floor)

    quadrature = model.row_quadrature(noise.whiten(beta), rho)
    np.testing.assert_allclose(quadrature.row_values(), value(beta), rtol=1e-9)
    v, h = rng.normal(size=(3, 4)), 1e-4

    def slope(k):
        return value(beta + (k * h + 1e-30j) * v).sum().imag / 1e-30

    direction = noise.whiten(v)
    close(np.vdot(quadrature.sums.beta, direction), slope(0), 1e-8)
    along_v = direction.ravel() @ quadrature.sums.curvature @ direction.ravel()
    close(along_v, central(lambda k: slope(k), h))


@pytest.mark.parametrize("atom", [Cylinder(1, 1), Mobius(1)], ids=repr)
def test_a_linear_coordinate_in_closed_form_is_that_on_a_lattice(atom):
    """Against a plain double sum over the angle and the height."""
    rng, phi = np.random.default_rng(5), 0.3
    Z, beta = rng.normal(size=(10, 3)), 0.7 * rng.normal(size=(atom.basis_size, 3))
    model = SAEManifoldModel(Z, [atom], [], np.ones((10, 1), bool), Theta(np.zeros((10, 2)), beta),
                             np.log([phi]), integration="quadrature")
    angle, height = np.linspace(-np.pi, np.pi, 400, endpoint=False), np.linspace(-9, 9, 721)
    t = np.column_stack([np.repeat(angle, 721), np.tile(height, 400)])
    weight = np.tile(np.exp(-0.5 * height**2) / np.sqrt(2 * np.pi) * 0.025, 400) / 400
    square = ((Z[:, None] - atom.basis(t) @ beta) ** 2).sum(axis=2)
    exact = -np.log(np.exp(-0.5 * square / phi) @ weight) + 1.5 * np.log(2 * np.pi * phi)
    np.testing.assert_allclose(model.row_quadrature(beta, np.log([phi])).row_values(), exact,
                               rtol=1e-9)


def test_both_integrations_agree_where_the_noise_is_small():
    """V of a circle of 200 rows at sd .03: what Laplace leaves out is of the order n phi / 8."""
    rng = np.random.default_rng(6)
    t = rng.uniform(-np.pi, np.pi, 200)
    Z = np.column_stack([np.cos(t), np.sin(t), np.zeros(200)]) + 0.03 * rng.normal(size=(200, 3))
    beta = np.zeros((3, 3))
    beta[1, 0] = beta[2, 1] = 1.0
    values = []
    for integration in ("laplace", "quadrature"):
        model = SAEManifoldModel(Z, [Circle(1)], [], np.ones((200, 1), bool),
                                 Theta(t[:, None], beta), np.log([0.03**2]),
                                 integration=integration)
        values.append(criterion(model, model.initial_rho(), tol=1e-9).value)
    assert abs(values[0] - values[1]) < 0.1


@pytest.mark.parametrize("sd", [0.1, 0.3])
def test_the_mode_of_a_circle_is_not_biased_by_its_coordinates(sd):
    """The radius of many rows, by quadrature and by the joint mode with g; the joint mode alone is
    out by phi / 2.
    """
    rng = np.random.default_rng(7)
    t = rng.uniform(-np.pi, np.pi, 4000)
    Z = np.column_stack([np.cos(t), np.sin(t)]) + sd * rng.normal(size=(4000, 2))
    start = Theta(t[:, None], np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    # in each of its directions half of the rows see the radius
    allowed = {"quadrature": 5.0 * sd / np.sqrt(4000), "laplace": 5.0 * sd / np.sqrt(4000) + sd**4}
    for integration, bound in allowed.items():
        model = SAEManifoldModel(Z, [Circle(1)], [], np.ones((4000, 1), bool), start,
                                 np.log([sd**2]), integration=integration)
        found = solve_inner(model, model.initial_rho(), tol=1e-8)
        assert found.converged
        radius = np.linalg.svd(found.theta.beta[1:], compute_uv=False).mean()
        assert abs(radius - 1.0) < bound


def test_a_quadrature_that_does_not_exist_is_refused_by_name():
    with pytest.raises(InputError, match="more than the coordinates of one atom"):
        build([Circle(1), Circle(1)]).with_changes(integration="quadrature")
    with pytest.raises(InputError, match="a penalty acts on the rows"):
        build([Euclidean(1, 1)], ard=True).with_changes(integration="quadrature")
    with pytest.raises(InputError, match="no quadrature of its coordinates"):
        build([Euclidean(3, 2)]).with_changes(integration="quadrature")


def test_nodes_that_decided_the_integration_are_those_of_the_first_point(monkeypatch):
    made = []
    monkeypatch.setattr(sae_model, "RowParts", lambda *given: made.append(0) or RowParts(*given))
    model = build([Circle(1)]).with_changes(integration="auto").decided()
    assert model.by_quadrature
    model.at(model.initial_theta(), model.initial_rho())
    assert len(made) == 1
    model.at(model.initial_theta(), model.initial_rho() + 0.1)
    assert len(made) == 2
