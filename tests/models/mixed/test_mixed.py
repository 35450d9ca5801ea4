"""Values and derivatives of mixed models against finite differences and dense matrices."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.engine import Theta, solve_inner
from reml_sae.families import Binomial
from reml_sae.models import MixedModel, Smooth
from tests.models.differences import check_gradient_of_the_criterion
from tests.models.mixed.systems import MODELS, build, typical_rho

every = pytest.mark.parametrize("name", MODELS)
curvatures = pytest.mark.parametrize("curvature", ["majorizer", "exact"])
STEP = 1e-4


def random_theta(model, rng, scale=0.3):
    theta = model.initial_theta()
    return Theta(scale * rng.normal(size=theta.xi.shape), scale * rng.normal(size=theta.beta.shape))


def flat(theta):
    return np.concatenate([theta.xi.ravel(), theta.beta.ravel()])


def unit(theta, j):
    vector = np.zeros(theta.xi.size + theta.beta.size)
    vector[j] = 1.0
    return Theta(vector[: theta.xi.size].reshape(theta.xi.shape),
                 vector[theta.xi.size:].reshape(theta.beta.shape))


def dense(apply, theta):
    return np.column_stack([flat(apply(unit(theta, j)))
                            for j in range(theta.xi.size + theta.beta.size)])


def central(function, theta, v):
    """Sixth-order central difference of a scalar or an array along v."""
    def at(k):
        return function(theta.plus(v, k * STEP))

    return (45 * (at(1) - at(-1)) - 9 * (at(2) - at(-2)) + at(3) - at(-3)) / (60 * STEP)


@every
def test_gradient_and_hessian_product(name):
    model, rng = MODELS[name](), np.random.default_rng(0)
    theta, rho, v = random_theta(model, rng), typical_rho(model), random_theta(model, rng)
    point = model.at(theta, rho)
    assert point.objective == pytest.approx(model.objective(theta, rho), rel=1e-13)
    slope = central(lambda th: model.objective(th, rho), theta, v)
    assert point.gradient().dot(v) == pytest.approx(slope, rel=1e-8)
    expected = central(lambda th: flat(model.at(th, rho).gradient()), theta, v)
    np.testing.assert_allclose(flat(point.hvp(v)), expected, rtol=0,
                               atol=1e-8 * np.abs(expected).max())


@every
@curvatures
def test_log_determinant_is_the_dense_one(name, curvature):
    model = MODELS[name]()
    rho = typical_rho(model)
    theta = solve_inner(model, rho, tol=1e-8).theta
    point = model.at(theta, rho)
    H = dense(point.hvp, theta)
    if curvature == "majorizer":
        point._observed = point._expected
        H = dense(point.hvp, theta)
        del point._observed
    mask = np.ones(len(H), bool)
    basis = np.eye(len(H))
    if model.method == "ML":
        split = theta.xi.size
        mask[split:] = point.smooths.penalised
        basis[split:, split:] = point.smooths.basis
    kept = (basis.T @ H @ basis)[np.ix_(mask, mask)]
    found = point.half_logdet(curvature)
    assert found.value == pytest.approx(0.5 * np.linalg.slogdet(kept)[1], rel=1e-10, abs=1e-9)
    assert model.effective_dim == mask.sum()
    if curvature == "majorizer":
        factor = point.factorize()
        assert factor.logdet() == pytest.approx(np.linalg.slogdet(H)[1], rel=1e-10)
        solved = factor.solve(theta.xi, theta.beta)
        np.testing.assert_allclose(H @ flat(Theta(*solved)), flat(theta), atol=1e-8)
        if model.method != "Laplace":
            assert found.edf == pytest.approx(
                np.trace(np.linalg.solve(H, H - prior(model, point))), rel=1e-8)


def prior(model, point):
    return dense(point._prior_times, point.theta)


@every
@curvatures
def test_gradients_of_the_log_determinant(name, curvature):
    model, rng = MODELS[name](), np.random.default_rng(0)
    rho = typical_rho(model)
    theta = solve_inner(model, rho, tol=1e-8).theta
    found = model.at(theta, rho).half_logdet(curvature)
    v = random_theta(model, rng, 0.1)
    slope = central(lambda th: model.at(th, rho).half_logdet(curvature).value, theta, v)
    assert found.theta.dot(v) == pytest.approx(slope, rel=1e-7, abs=1e-8)
    direction = rng.normal(size=len(rho))
    if len(rho):
        line = Theta(np.zeros((0, 0)), np.zeros((1, 1)))
        slope = central(lambda t: model.at(theta, rho + t.beta[0, 0] * direction).half_logdet(
            curvature).value, line, Theta(line.xi, np.ones((1, 1))))
        assert found.rho @ direction == pytest.approx(slope, rel=1e-7, abs=1e-8)


@every
def test_derivatives_in_rho(name):
    model, rng = MODELS[name](), np.random.default_rng(0)
    theta, rho, u = random_theta(model, rng), typical_rho(model), random_theta(model, rng)
    point = model.at(theta, rho)
    line = Theta(np.zeros((0, 0)), np.zeros((1, 1)))
    along = Theta(line.xi, np.ones((1, 1)))
    for j in range(len(rho)):
        unit_rho = np.eye(len(rho))[j]

        def at(t, unit_rho=unit_rho):
            return model.at(theta, rho + t.beta[0, 0] * unit_rho)

        value = central(lambda t: at(t).objective, line, along)
        assert point.objective_rho()[j] == pytest.approx(value, rel=1e-8, abs=1e-8)
        cross = central(lambda t: at(t).gradient().dot(u), line, along)
        assert point.gradient_rho_dot(u)[j] == pytest.approx(cross, rel=1e-8, abs=1e-8)
        normaliser = central(lambda t: at(t).log_normalizer()[0], line, along)
        assert point.log_normalizer()[1][j] == pytest.approx(normaliser, rel=1e-8, abs=1e-8)


@every
def test_gradient_of_the_criterion(name):
    model = MODELS[name]()
    check_gradient_of_the_criterion(model, typical_rho(model), step=2e-3, tol=1e-11)


def test_groups_choose_between_old_and_new_effects():
    model, rng = build("poisson"), np.random.default_rng(0)
    rho = typical_rho(model)
    old, new = random_theta(model, rng), random_theta(model, rng)
    merged = model.merge_rows(old, new, rho)
    assert (merged.beta == new.beta).all()
    best = min(model.objective(new, rho), model.objective(Theta(old.xi, new.beta), rho))
    assert model.objective(merged, rho) < best
    assert (((merged.xi == old.xi) | (merged.xi == new.xi)).all(axis=1)).all()


@pytest.mark.parametrize("method", ["REML", "ML", "Laplace"])
def test_order_of_observations_and_labels_do_not_matter(method):
    rng = np.random.default_rng(3)
    base = build("binomial", method=method, crossed=True)
    data = base.data
    order = rng.permutation(len(data.y))
    names = np.array([f"subject {g}" for g in rng.permutation(data.n_groups)])
    penalties = [Smooth(s.columns, s.matrices, s.name) for s in base.all_smooths]
    moved = MixedModel(
        data.y[order], data.X[order], groups=names[data.group][order], Z=data.Z[order],
        family=Binomial(n_trials=base.family.n_trials[order]), penalties=penalties, method=method,
        offset=data.offset[order])
    rho = typical_rho(base)
    a, b = (rs.criterion(model, rho, tol=1e-10) for model in (base, moved))
    assert a.value == pytest.approx(b.value, rel=1e-11)
    if method == "Laplace":  # an orthonormal basis is unique up to signs
        np.testing.assert_allclose(np.abs(a.gradient), np.abs(b.gradient), rtol=1e-6, atol=1e-8)
    else:
        np.testing.assert_allclose(a.gradient, b.gradient, rtol=1e-7, atol=1e-8)
