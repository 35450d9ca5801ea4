"""Gradient, Hessian products and log-determinant gradients against finite differences."""

import numpy as np
import pytest

from reml_sae.engine import Theta
from reml_sae.models.sae.point import SAEPoint
from reml_sae.models.sae.single.kinds import unpacked
from tests.models.sae.systems import MODELS, at_mode, random_direction, tangent

STEP = 1e-5
every = pytest.mark.parametrize("name", MODELS)


def central(function, model, theta, v, step=10 * STEP):
    def at(k):
        return function(model.retract(theta, v, k * step))

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)


@every
def test_gradient(name):
    model, rng = MODELS[name](), np.random.default_rng(0)
    theta, rho = model.initial_theta(), model.initial_rho()
    point = model.at(theta, rho)
    assert point.objective == pytest.approx(model.objective(theta, rho), rel=1e-12)
    for _ in range(3):
        v = random_direction(model, rng)
        expected = central(lambda th: model.objective(th, rho), model, theta, v)
        assert point.gradient().dot(v) == pytest.approx(expected, rel=1e-6)


@every
def test_hessian_product(name):
    model, rng = MODELS[name](), np.random.default_rng(0)
    theta, rho = model.initial_theta(), model.initial_rho()
    point = model.at(theta, rho)
    v = random_direction(model, rng)
    gradients = [model.at(model.retract(theta, v, s * STEP), rho).gradient() for s in (1.0, -1.0)]
    expected = gradients[0].plus(gradients[1], -1.0).scaled(0.5 / STEP)
    found = point.hvp(v)
    for column in point.gauge.columns:  # the product holds the gauge terms, the gradient does not
        shift = point.gauge.weight * np.vdot(column, v.beta)
        found = Theta(found.xi, found.beta - shift * column)
    found.xi[...] *= tangent(model, Theta(model.carried.astype(float), v.beta)).xi
    assert found.plus(expected, -1.0).max_abs() <= 1e-6 * expected.max_abs()


@every
def test_majorizer_majorizes_the_exact_rows(name):
    model = MODELS[name]()
    point = SAEPoint(model, model.initial_theta(), model.initial_rho())
    penalty = point.row_prior.blocks("majorizer") - point.row_prior.blocks("exact")
    assert np.linalg.eigvalsh(penalty).min() > -1e-10


@every
@pytest.mark.parametrize("curvature", ["majorizer", "exact"])
def test_logdet_gradient(name, curvature):
    model, rng = at_mode(name), np.random.default_rng(0)
    theta, rho = model.initial_theta(), model.initial_rho()
    value = model.at(theta, rho).half_logdet(curvature)
    v = random_direction(model, rng)
    # the exact Hessian of some of these modes is nearly singular a short way off
    expected = central(lambda th: model.at(th, rho).half_logdet(curvature).value, model, theta, v,
                       step=STEP)
    assert value.theta.dot(v) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@every
def test_exact_matrix_is_the_hessian(name):
    model, rng = at_mode(name), np.random.default_rng(0)
    point = SAEPoint(model, model.initial_theta(), model.initial_rho())
    v = random_direction(model, rng)
    if model.kinds:
        v = Theta(unpacked(model.kinds, v.xi, model.carried.shape[1]), v.beta)
    product = point.exact_matrix().matvec(v.xi, v.beta.ravel())
    expected = point.hvp(v)
    np.testing.assert_allclose(product[0], expected.xi, atol=1e-9 * expected.max_abs())
    np.testing.assert_allclose(product[1], expected.beta.ravel(), atol=1e-9 * expected.max_abs())


def test_atom_order_does_not_matter():
    from reml_sae.manifolds import Circle
    from tests.models.sae.systems import build

    model = build([Circle(1), Circle(1)])
    theta, rho = model.initial_theta(), model.initial_rho()
    m = model.atoms[0].basis_size
    order = np.r_[m:2 * m, 0:m]
    logits = model.assignment.logits(theta.xi[:, :1])[:, ::-1]
    xi = np.concatenate([model.assignment.coordinates(logits), theta.xi[:, [2, 1]]], axis=1)
    swapped = model.with_state(Theta(xi, theta.beta[order]), rho, model.active[:, ::-1])
    for curvature in ("majorizer", "exact"):
        values = [mdl.at(mdl.initial_theta(), rho) for mdl in (model, swapped)]
        assert values[0].objective == pytest.approx(values[1].objective, rel=1e-12)
        if curvature == "majorizer":
            a, b = (value.half_logdet(curvature).value for value in values)
            assert a == pytest.approx(b, rel=1e-11)
