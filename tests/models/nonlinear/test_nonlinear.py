"""Nonlinear mixed models: derivatives, dense matrices, the linear case, curves, wrong input."""

import numpy as np
import pytest
from scipy.special import expit

import reml_sae as rs
from reml_sae.engine import Theta, solve_inner
from reml_sae.errors import InnerConvergenceError, InputError
from reml_sae.models import (
    Curve,
    MixedModel,
    NonlinearMixedModel,
    corrected_covariance,
    mixed_summary,
    posterior_covariance,
    predict,
    random_effects,
)
from reml_sae.models.nonlinear.jets import DERIVATIVES
from reml_sae.models.nonlinear.mean import check_mean
from tests.models.differences import check_gradient_of_the_criterion
from tests.models.mixed.systems import FAMILIES, PSI, family_of, typical_rho

curvatures = pytest.mark.parametrize("curvature", ["majorizer", "exact"])
STEP = 1e-3
START = {"level": -0.4, "rise": 2.2, "rate": -0.2}


def saturating(x):
    return Curve(lambda level, rise, rate: level + rise * (1.0 - np.exp(-np.exp(rate) * x)))


def build(family="gaussian", *, covariance="diagonal", method="REML", groups=6, n=None, seed=0,
          random=("rate", "level")):
    """Ragged groups, whose level and rate vary, given in another order than the parameters."""
    rng = np.random.default_rng(seed)
    n = n or (50 if family == "gaussian" else 150)
    g = np.r_[np.arange(groups), rng.integers(0, groups, n - groups)]
    x = rng.uniform(0.0, 3.0, n)
    effects = rng.normal(size=(groups, 2)) @ np.array([[0.4, 0.1], [0.0, 0.3]])
    phi = np.column_stack([-0.5 + effects[g, 1], np.full(n, 2.0), -0.1 + effects[g, 0]])
    mean, fam = saturating(x), family_of(family, n)
    y = fam.sample(rng, mean(phi, 0)[0], np.array(PSI[family]) - 1.0 * (family == "gaussian"))
    return NonlinearMixedModel(y, mean, g, random, START, family=fam, covariance=covariance,
                               method=method)


MODELS = {
    **{f"{name}-{kind}": (lambda name=name, kind=kind: build(name, covariance=kind))
       for name, kind in zip(FAMILIES, ["full", "diagonal"] * 4, strict=False)},
    **{f"{name}-{method}": (lambda name=name, method=method: build(
        name, covariance="full", method=method)) for name in ("gaussian", "binomial", "gamma")
       for method in ("ML", "Laplace")},
    "one-effect": lambda: build(random=[2]),
}
every = pytest.mark.parametrize("name", MODELS)


def random_theta(model, rng, scale=0.2):
    theta = model.initial_theta()
    return Theta(scale * rng.normal(size=theta.xi.shape),
                 theta.beta + scale * rng.normal(size=theta.beta.shape))


def direction(theta, rng, scale=1.0):
    return Theta(scale * rng.normal(size=theta.xi.shape), scale * rng.normal(size=theta.beta.shape))


def flat(theta):
    return np.concatenate([theta.xi.ravel(), theta.beta.ravel()])


def dense(apply, theta):
    columns = []
    for unit in np.eye(len(flat(theta))):
        xi, beta = np.split(unit, [theta.xi.size])
        columns.append(flat(apply(Theta(xi.reshape(theta.xi.shape), beta[:, None]))))
    return np.column_stack(columns)


def central(function, step=STEP):
    """Sixth-order central difference at 0 of a function of one number."""
    d = [function(k * step) - function(-k * step) for k in (1, 2, 3)]
    return (45 * d[0] - 9 * d[1] + d[2]) / (60 * step)


def at_mode(name):
    model = MODELS[name]()
    rho = typical_rho(model)
    inner = solve_inner(model, rho, tol=1e-9)
    assert inner.converged
    return model, inner.theta, rho


@every
def test_gradient_and_hessian_product(name):
    model, rng = MODELS[name](), np.random.default_rng(0)
    theta, rho = random_theta(model, rng), typical_rho(model)
    point, v = model.at(theta, rho), direction(theta, rng)
    slope = central(lambda t: model.objective(theta.plus(v, t), rho))
    assert point.gradient().dot(v) == pytest.approx(slope, rel=1e-8)
    expected = central(lambda t: flat(model.at(theta.plus(v, t), rho).gradient()))
    np.testing.assert_allclose(flat(point.hvp(v)), expected, rtol=0,
                               atol=1e-8 * np.abs(expected).max())


@every
@curvatures
def test_log_determinant_is_the_dense_one(name, curvature):
    model, theta, rho = at_mode(name)
    point = model.at(theta, rho)
    if curvature == "exact":
        H = dense(point.hvp, theta)
    else:  # J^T W J with J by its columns, and the prior
        J = np.column_stack([
            np.einsum("np,np->n", point.first, point._along(Theta(
                unit[: theta.xi.size].reshape(theta.xi.shape), unit[theta.xi.size:, None])))
            for unit in np.eye(len(flat(theta)))])
        prior = np.zeros((J.shape[1],) * 2)
        prior[: theta.xi.size, : theta.xi.size] = np.kron(
            np.eye(len(theta.xi)), np.linalg.inv(point.effects.covariance))
        H = J.T @ (point._expected[:, None] * J) + prior
    kept = theta.xi.size if model.method == "ML" else len(H)
    found = point.half_logdet(curvature)
    assert model.effective_dim == kept
    assert found.value == pytest.approx(0.5 * np.linalg.slogdet(H[:kept, :kept])[1], rel=1e-9)
    if curvature == "majorizer":
        factor = point.factorize()
        assert factor.logdet() == pytest.approx(np.linalg.slogdet(H)[1], rel=1e-10)
        solved = Theta(*factor.solve(theta.xi, theta.beta))
        np.testing.assert_allclose(H @ flat(solved), flat(theta), atol=1e-8)
        if model.method != "Laplace":
            assert found.edf == pytest.approx(np.trace(np.linalg.solve(H, H - prior)), rel=1e-8)


@every
@curvatures
def test_gradients_of_the_log_determinant(name, curvature):
    (model, theta, rho), rng = at_mode(name), np.random.default_rng(0)
    found, v = model.at(theta, rho).half_logdet(curvature), direction(theta, rng, 0.1)
    slope = central(lambda t: model.at(theta.plus(v, t), rho).half_logdet(curvature).value)
    assert found.theta.dot(v) == pytest.approx(slope, rel=1e-7, abs=1e-9)
    for j, unit in enumerate(np.eye(len(rho))):
        slope = central(lambda t, unit=unit: model.at(theta, rho + t * unit).half_logdet(
            curvature).value)
        assert found.rho[j] == pytest.approx(slope, rel=1e-7, abs=1e-9)


@every
def test_derivatives_in_rho(name):
    model, rng = MODELS[name](), np.random.default_rng(0)
    theta, rho = random_theta(model, rng), typical_rho(model)
    point, u = model.at(theta, rho), direction(theta, rng)
    for j, unit in enumerate(np.eye(len(rho))):
        def at(t, unit=unit):
            return model.at(theta, rho + t * unit)

        for found, function in (
            (point.objective_rho()[j], lambda t: at(t).objective),
            (point.gradient_rho_dot(u)[j], lambda t: at(t).gradient().dot(u)),
            (point.log_normalizer()[1][j], lambda t: at(t).log_normalizer()[0]),
        ):
            assert found == pytest.approx(central(function), rel=1e-8, abs=1e-8)


@every
def test_gradient_of_the_criterion(name):
    model = MODELS[name]()
    check_gradient_of_the_criterion(model, typical_rho(model), step=2e-3, tol=1e-11)


@curvatures
@pytest.mark.parametrize("method", ["REML", "ML", "Laplace"])
@pytest.mark.parametrize("family", ["gaussian", "poisson", "gamma"])
def test_a_linear_curve_is_a_mixed_model(family, method, curvature):
    rng = np.random.default_rng(4)
    g, t = np.repeat(np.arange(7), 6), rng.uniform(-1.0, 1.0, 42)
    X = np.column_stack([np.ones(42), t, t**2])
    fam = family_of(family, 42)
    eta = X @ [0.5, 0.3, -0.2] + 0.4 * rng.normal(size=7)[g]
    y = fam.sample(rng, eta, np.array(PSI[family]))
    line = Curve(lambda a, b, c: a + b * t + c * np.square(t))
    shared = {"covariance": "full", "method": method, "family": family}
    curved = NonlinearMixedModel(y, line, g, ["p0", "p1"], [0.1, 0.1, 0.1], **shared)
    linear = MixedModel(y, X, groups=g, Z=X[:, :2], **shared)
    # the same covariance and coefficients in both: scales of rho differ
    rho, L = linear.initial_rho(), np.array([[0.7, 0.0], [0.2, 0.4]])
    other = curved.initial_rho()
    for model, own in ((linear, rho), (curved, other)):
        own[:3] = [*(-2.0 * np.log(np.diagonal(L))), L[1, 0] / model.terms[0].scales[1]]
        own[model.outer["fixed"]] = model.border.outer_of(np.array([0.4, 0.3, -0.1]))
        own[model.outer.psi] = PSI[family]
    a = rs.criterion(linear, rho, curvature=curvature, tol=1e-10)
    b = rs.criterion(curved, other, curvature=curvature, tol=1e-10)
    assert b.value == pytest.approx(a.value, rel=1e-10)
    assert b.edf == pytest.approx(a.edf, rel=1e-7)
    np.testing.assert_allclose(b.inner.theta.xi, a.inner.theta.xi, atol=1e-7)
    np.testing.assert_allclose(b.gradient[:2], a.gradient[:2], rtol=1e-6, atol=1e-8)


def test_order_of_observations_and_labels_do_not_matter():
    model = build("poisson", covariance="full")
    order = np.random.default_rng(1).permutation(len(model.data.y))

    def moved_mean(phi, o):
        back = np.empty_like(phi)
        back[order] = phi
        return tuple(part[order] for part in model.mean(back, o))

    names = np.array([f"unit {c}" for c in "fbdace"])
    moved = NonlinearMixedModel(model.data.y[order], moved_mean, names[model.data.group][order],
                                ["rate", "level"], START, family="poisson", covariance="full")
    rho = typical_rho(model)
    a, b = (rs.criterion(m, rho, tol=1e-10) for m in (model, moved))
    assert a.value == pytest.approx(b.value, rel=1e-10)
    np.testing.assert_allclose(a.gradient, b.gradient, rtol=1e-6, atol=1e-8)


def test_groups_accept_only_what_helps_them():
    model, rng = build("poisson"), np.random.default_rng(0)
    rho = typical_rho(model)
    old, new = (random_theta(model, rng, 1.0) for _ in range(2))
    merged = model.merge_rows(old, new, rho)
    assert (merged.beta == new.beta).all()
    kept = Theta(old.xi, new.beta)
    best = np.minimum(model.row_objective(kept, rho), model.row_objective(new, rho))
    np.testing.assert_array_equal(model.row_objective(merged, rho), best)
    refined = model.refine_rows(old, rho, n_sweeps=2)
    assert (refined.beta == old.beta).all()
    change = model.row_objective(refined, rho) - model.row_objective(old, rho)
    assert (change <= 0.0).all() and change.min() < 0.0
    assert change.sum() == pytest.approx(
        model.objective(refined, rho) - model.objective(old, rho), rel=1e-9)


def test_results():
    model = build(covariance="full", groups=12, n=120)
    fit = rs.fit_reml(model)
    assert fit.converged
    H = dense(model.at(fit.theta, fit.rho).hvp, fit.theta)
    inverse, size = np.linalg.inv(H), fit.theta.xi.size
    covariance = posterior_covariance(model, fit, curvature="exact")
    np.testing.assert_allclose(covariance, inverse[size:, size:], rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(posterior_covariance(model, fit, curvature="exact", effects=True),
                               inverse, rtol=1e-6, atol=1e-10)
    effects = random_effects(model, fit, curvature="exact")
    assert effects.names == ("rate", "level")
    np.testing.assert_allclose(effects.sds.ravel() ** 2, np.diagonal(inverse)[:size], rtol=1e-7)
    summary = mixed_summary(model, fit)
    assert summary.names == tuple(START)
    assert "rate" in str(summary)
    np.testing.assert_allclose(summary.coefficients, [-0.5, 2.0, -0.1], atol=0.35)


def test_an_outer_trial_outside_the_domain_is_refused():
    x = np.tile([0.5, 1.0, 2.0, 3.0], 6)
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(6), 4)
    y = np.log(2.0 + 0.4 * rng.normal(size=6)[g] * x / 3.0 + x) + 0.05 * rng.normal(size=24)
    model = NonlinearMixedModel(y, Curve(lambda a, b: np.log(a + b * x)), g, ["b"],
                                {"a": 1.0, "b": 1.0}, method="Laplace")
    theta, rho = model.initial_theta(), model.initial_rho()
    assert model.objective(Theta(theta.xi - 10.0, theta.beta), rho) == np.inf
    with pytest.raises(InnerConvergenceError, match="not finite at the coefficients"):
        model.at(Theta(theta.xi - 10.0, theta.beta), rho)
    assert rs.fit_reml(model).converged


# --- curves ------------------------------------------------------------------------------------

X3 = np.array([0.3, 0.7, 1.4])
FORMULAS = {
    **{ufunc.__name__: (lambda a, b, ufunc=ufunc: ufunc(a * b + X3) * a) for ufunc in DERIVATIVES},
    "arithmetic": lambda a, b: (X3 - a) / (2.0 + b) - 3.0 / a + (b - X3) * (1.0 - a * b) / X3,
    "powers": lambda a, b: a**3 + b**a + X3**b + 2.0**a - (a + b) ** X3 + a**1,
    "left operands": lambda a, b: np.exp(X3) * a + X3 / b - np.subtract(X3, a) * b,
    "logistic": lambda a, b: a / (1.0 + np.exp(-(X3 - b) / 0.4)) + expit(X3 * a - b),
    "constant": lambda a, b: X3,
    "one parameter alone": lambda a, b: a,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_derivatives_of_a_curve(name):
    curve = Curve(FORMULAS[name])
    check_mean(curve, np.array([0.8, 0.6]), ["a", "b"], 3)
    phi = np.random.default_rng(0).uniform(0.5, 1.0, (3, 2))
    parts = curve(phi, 3)
    for order in range(3):
        for lower, higher in zip(curve(phi, order), parts, strict=False):
            np.testing.assert_allclose(lower, higher, rtol=1e-14, atol=1e-15)
        for j, unit in enumerate(np.eye(2)):
            slope = central(lambda t, o=order, unit=unit: curve(phi + t * unit, o)[o])
            np.testing.assert_allclose(parts[order + 1][..., j], slope, rtol=1e-8, atol=1e-8)


def test_a_power_at_zero():
    value, first, second, third = Curve(lambda a: a**2)(np.zeros((1, 1)), 3)
    assert [value.item(), first.item(), second.item(), third.item()] == [0.0, 0.0, 2.0, 0.0]


@pytest.mark.parametrize(("formula", "message"), [
    (lambda a, b: np.maximum(a, b), "cannot differentiate maximum; use one of add"),
    (lambda a, b: np.add.reduce(a), r"np.add.reduce"),
    (lambda a, b: a * np.ones((3, 2)), r"vectors of the 3 observations.*\(3, 2\)"),
])
def test_what_a_curve_cannot_do(formula, message):
    with pytest.raises(InputError, match=message):
        Curve(formula)(np.ones((3, 2)), 1)


# --- wrong input -------------------------------------------------------------------------------

N = 20
RNG = np.random.default_rng(0)
TIME = np.tile(np.linspace(0.2, 2.0, 5), 4)
G = np.repeat(np.arange(4), 5)
Y = (2.0 + 0.3 * RNG.normal(size=4)[G]) * np.exp(-0.5 * TIME) + 0.05 * RNG.normal(size=N)
DECAY = Curve(lambda size, rate: size * np.exp(-rate * TIME))
ARGUMENTS = {"y": Y, "mean": DECAY, "groups": G, "random": ["size"],
             "start": {"size": 1.5, "rate": 1.0}}


def spoiled(order, index, factor=1.001):
    """The decay with one derivative slightly wrong."""
    def mean(phi, up_to):
        parts = [np.array(part) for part in DECAY(phi, up_to)]
        if up_to >= order:
            parts[order][(slice(None), *index)] *= factor
        return tuple(parts)
    return mean


def infinite(phi, order):
    parts = [np.array(part) for part in DECAY(phi, order)]
    parts[0][4] = np.inf
    return tuple(parts)


def changed(array, value):
    out = np.array(array, float)
    out[3] = value
    return out


@pytest.mark.parametrize(("arguments", "message"), [
    ({"y": changed(Y, np.nan)}, r"y has the non-finite value nan at index \(3,\)"),
    ({"y": np.zeros(0)}, "y must be a vector of at least one"),
    ({"y": Y[:, None] * np.ones(2)}, "y must be a vector"),
    ({"y": -Y, "family": "gamma"}, "[Gg]amma"),
    ({"y": DECAY(np.tile([2.0, 0.5], (N, 1)), 0)[0]}, "one curve explains y exactly"),
    ({"groups": None}, "groups must have one label"),
    ({"groups": G[:-1]}, "groups must have one label for each of the 20"),
    ({"random": []}, "random must be a sequence with the names"),
    ({"random": "size"}, "random must be a sequence with the names"),
    ({"random": ["speed"]}, "random names 'speed', which is none of the parameters size, rate"),
    ({"random": [2]}, "random names 2, which is none"),
    ({"random": [0.5]}, "random names 0.5, which is none"),
    ({"random": ["size", 0]}, "must name every parameter once"),
    ({"start": {}}, "start must be a mapping"),
    ({"start": 3.0, "random": [0]}, "start must be a mapping"),
    ({"start": {"size": np.nan, "rate": 1.0}}, "start has the non-finite value nan"),
    ({"covariance": "free"}, "covariance must be one of diagonal, full"),
    ({"method": "reml"}, "method must be one of REML, ML, Laplace, got 'reml'"),
    ({"mean": np.ones(3)}, "mean must be a callable"),
    ({"mean": lambda phi, order: (phi[:, 0],)}, r"mean\(parameters, 1\) must return a tuple of 2"),
    ({"mean": lambda phi, order: phi[:, 0]}, r"must return a tuple of 1 arrays"),
    ({"mean": lambda phi, order: (phi,)}, r"\(parameters, 0\)\[0\] must have shape \(20,\)"),
    ({"mean": infinite}, "is not finite at start, first for observation 4"),
    ({"mean": spoiled(1, (0,))}, r"wrong derivative of order 1 in \(size\)"),
    ({"mean": spoiled(2, (0, 1))}, r"wrong derivative of order 2 in \(size, rate\)"),
    ({"mean": spoiled(2, (1, 1), -1.0)}, r"wrong derivative of order 2 in \(rate, rate\)"),
    ({"mean": spoiled(3, (1, 1, 1))}, r"wrong derivative of order 3 in \(rate, rate, rate\)"),
    ({"mean": Curve(lambda a, b, c: a * np.exp(-b * c * TIME)),
      "start": {"size": 1.5, "rate": 1.0, "slow": 0.9}}, "the data do not determine slow"),
])
def test_wrong_input(arguments, message):
    with pytest.raises(InputError, match=message):
        NonlinearMixedModel(**{**ARGUMENTS, **arguments})


def test_scales_far_apart_pass_the_check():
    """A midpoint of 2019 whose width is 3, and a size of 1e-6."""
    year = np.tile(np.linspace(2010.0, 2030.0, 8), 3)
    curve = Curve(lambda size, middle, width: size / (1.0 + np.exp(-(year - middle) / width)))
    check_mean(curve, np.array([1e-6, 2019.0, 3.0]), ["size", "middle", "width"], 24)


def test_results_that_need_a_linear_predictor_say_so():
    model = build()
    fit = rs.fit_reml(model)
    with pytest.raises(InputError, match=r"predict needs a MixedModel.*NonlinearMixedModel"):
        predict(model, fit, np.ones((3, 3)))
    with pytest.raises(InputError, match="corrected_covariance needs a MixedModel"):
        corrected_covariance(model, fit, None)
