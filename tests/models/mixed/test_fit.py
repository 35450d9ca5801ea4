"""Whole fits of mixed models: closed forms, limits, recovery of planted parameters, results."""

from types import SimpleNamespace

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.engine.criterion import rho_differences
from reml_sae.families import get_family
from reml_sae.models import (
    MixedModel,
    Smooth,
    corrected_covariance,
    mixed_summary,
    posterior_covariance,
    predict,
    random_effects,
)
from tests.models.mixed.systems import build, bumps, second_difference, typical_rho


def marginal(model, rho):
    """Mean design and covariance of a Gaussian model with the penalised directions as effects."""
    data, outer = model.data, model.outer
    n, q = data.Z.shape
    phi = float(np.exp(rho[outer.dispersion]))
    C = phi * np.eye(n)
    cov = rho[outer["covariance"]]
    column = parameter = 0
    psi = np.zeros((q, q))
    for term in model.terms:
        own = slice(column, column + term.size)
        L = term.factor(cov[parameter : parameter + len(term.labels)])
        psi[own, own] = L @ L.T
        column, parameter = own.stop, parameter + len(term.labels)
    if model.data.n_groups:
        C += (data.Z @ psi @ data.Z.T) * (data.group[:, None] == data.group)
    fixed = [data.X[:, [j for j in range(data.X.shape[1])
                        if not any(j in s.columns for s in model.all_smooths)]]]
    for s in model.all_smooths:
        S = np.tensordot(np.exp(rho[outer["smooths"]][s.where]), s.matrices, 1)
        values, vectors = np.linalg.eigh(S)
        proper = values > 1e-9 * values[-1]
        U = data.X[:, s.columns] @ vectors[:, proper]
        C += (U / values[proper]) @ U.T
        fixed.append(data.X[:, s.columns] @ vectors[:, ~proper])
    return np.hstack(fixed), C


def minus_log_likelihood(model, rho, restricted):
    """The closed form: (1/2) [log|C| + log|X^T C^-1 X| + r^T C^-1 r + (n - p) log 2 pi]."""
    X, C = marginal(model, rho)
    r = model.data.y - model.data.offset
    solved = np.linalg.solve(C, X)
    gram = X.T @ solved
    r = r - X @ np.linalg.solve(gram, solved.T @ r)
    value = np.linalg.slogdet(C)[1] + r @ np.linalg.solve(C, r) + len(r) * np.log(2 * np.pi)
    if restricted:
        value += np.linalg.slogdet(gram)[1] - X.shape[1] * np.log(2 * np.pi)
    return 0.5 * value


CASES = {
    "diagonal": {}, "full": {"covariance": "full"}, "crossed": {"crossed": True, "smooth": False},
    "two-terms": {"terms": 2, "covariance": ["full", "diagonal"]}, "gam": {"groups": 0},
    "plain": {"smooth": False, "offset": False}, "least squares": {"groups": 0, "smooth": False},
}


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("case", CASES)
def test_gaussian_criterion_is_the_closed_form(case, method):
    model = build("gaussian", method=method, **CASES[case])
    rho = typical_rho(model)
    expected = minus_log_likelihood(model, rho, method == "REML")
    found = rs.criterion(model, rho, tol=1e-10)
    assert found.value == pytest.approx(expected, rel=1e-11, abs=1e-10)
    exact = rs.criterion(model, rho, tol=1e-10, curvature="exact")
    assert exact.value == pytest.approx(found.value, rel=1e-13)


@pytest.mark.parametrize("case", CASES)
def test_laplace_of_gaussian_data_is_maximum_likelihood(case):
    fits = [rs.fit_reml(build("gaussian", method=method, **CASES[case]), tol=1e-7)
            for method in ("ML", "Laplace")]
    assert all(fit.converged for fit in fits)
    assert fits[0].criterion == pytest.approx(fits[1].criterion, abs=1e-7)


def test_variance_at_zero_is_the_model_without_effects():
    """V and its gradient at the box's end, where a naive Hessian has lost its digits."""
    for kind in ("diagonal", "full"):
        model = build("poisson", covariance=kind)
        rho = model.initial_rho()
        n = sum(term.size for term in model.terms)
        rho[:n] = model.outer.bounds[:n, 1]
        found = rs.criterion(model, rho, tol=1e-10)
        without = build("poisson", covariance=kind)
        without = MixedModel(
            without.data.y, without.data.X, family="poisson", offset=without.data.offset,
            penalties=[Smooth(s.columns, s.matrices) for s in without.all_smooths])
        expected = rs.criterion(without, rho[model.outer["smooths"]], tol=1e-10)
        # the box ends at an sd of 1e-5 scales, where V is of the order of its square from the limit
        assert found.value == pytest.approx(expected.value, abs=1e-5)
        assert np.abs(found.gradient[:n]).max() < 1e-5
        smooths = found.gradient[model.outer["smooths"]]
        np.testing.assert_allclose(smooths, expected.gradient, atol=1e-5)


def test_strength_at_infinity_is_the_null_space():
    model = build("gamma", groups=0, smooth=False)
    t = np.random.default_rng(5).uniform(-1, 1, len(model.data.y))
    basis = bumps(t, 8)
    X = np.hstack([model.data.X, basis])
    values, vectors = np.linalg.eigh(second_difference(8))
    line = basis @ vectors[:, values < 1e-10]
    smooth = MixedModel(model.data.y, X, family="gamma",
                        penalties=[Smooth(slice(2, 10), [second_difference(8)])])
    plain = MixedModel(model.data.y, np.hstack([model.data.X, line]), family="gamma")
    rho = smooth.initial_rho()
    rho[0] = smooth.outer.bounds[0, 1]
    a, b = rs.criterion(smooth, rho, tol=1e-10), rs.criterion(plain, rho[1:], tol=1e-10)
    assert a.value == pytest.approx(b.value, abs=1e-7)
    assert abs(a.gradient[0]) < 1e-7
    assert a.gradient[1] == pytest.approx(b.gradient[0], abs=1e-6)
    assert a.edf == pytest.approx(b.edf, abs=1e-6)


def test_no_variance_between_groups_is_reported_as_a_limit():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(6), 5)
    y = rng.normal(size=30)
    y -= np.array([y[g == k].mean() for k in range(6)])[g]  # groups agree better than by chance
    fit = rs.fit_reml(MixedModel(y, np.ones(30), groups=g, Z=np.ones(30)))
    assert fit.converged and ("log_precision[z0]", "infinite") in fit.limits
    expected = 0.5 * (29 * np.log(2 * np.pi * y @ y / 29) + np.log(30) + 29)
    assert fit.criterion == pytest.approx(expected, abs=1e-3)
    summary = mixed_summary(MixedModel(y, np.ones(30), groups=g, Z=np.ones(30)), fit)
    assert summary.variance_components[0].sds == 0.0
    assert "log_precision[z0] ran to its limit" in str(summary)


def test_straight_data_are_reported_as_a_limit():
    t = np.linspace(-1.0, 1.0, 80)
    y = 1.0 + 2.0 * t + 0.3 * (-1.0) ** np.arange(80)
    B = np.stack([np.maximum(0, 1 - np.abs(t - c) * 4.5) for c in np.linspace(-1, 1, 10)], axis=1)
    fit = rs.fit_reml(MixedModel(y, B, penalties=[Smooth(slice(0, 10), [second_difference(10)])]))
    assert fit.converged and fit.limits == (("log_lambda[s0]", "infinite"),)
    assert fit.edf == pytest.approx(2.0, abs=0.02)


def planted(family, psi, seed, groups, per_group):
    rng = np.random.default_rng(seed)
    g = rng.integers(0, groups, groups * per_group)
    g[:groups] = np.arange(groups)
    x = rng.normal(size=len(g))
    L = np.array([[0.6, 0.0], [0.3, 0.4]])
    b = rng.normal(size=(groups, 2)) @ L.T
    Z = np.column_stack([np.ones(len(g)), x])
    eta = Z @ [0.4, -0.7] + (b[g] * Z).sum(axis=1)
    return MixedModel(family.sample(rng, eta, psi), Z, groups=g, Z=Z, family=family,
                      covariance="full", method="Laplace"), L


@pytest.mark.parametrize(("name", "psi", "groups", "per_group"), [
    ("gaussian", [-0.8], 800, 6), ("poisson", [], 800, 6), ("gamma", [-0.7], 800, 6),
    ("negative_binomial", [1.0], 800, 6),
    # Laplace's approximation is poor for heavy tails and few observations: nu is biased upwards
    ("student_t", [-1.0, 1.5], 300, 25)])
def test_planted_parameters_are_recovered(name, psi, groups, per_group):
    model, L = planted(get_family(name), np.array(psi), 2, groups, per_group)
    # the textbook Laplace approximation; with expected weights the intercepts are biased by .03
    fit = rs.fit_reml(model, curvature="exact")
    assert fit.converged
    summary = mixed_summary(model, fit)
    term = summary.variance_components[0]
    sds = np.sqrt((L**2).sum(axis=1))
    np.testing.assert_allclose(term.sds, sds, rtol=0.12)
    assert term.correlations[1, 0] == pytest.approx((L @ L.T)[1, 0] / sds.prod(), abs=0.15)
    error = summary.coefficients - [0.4, -0.7]
    assert (np.abs(error) < 3.5 * summary.standard_errors).all()
    np.testing.assert_allclose(fit.rho[model.outer.psi], psi, atol=0.25)
    modes = random_effects(model, fit)
    assert modes.values.shape == (groups, 2) and (modes.sds >= modes.conditional_sds).all()


def at_rho(model, rho):
    """A mode at given outer parameters in the form of a fit."""
    value = rs.criterion(model, rho, tol=1e-10)
    return SimpleNamespace(rho=rho, theta=value.inner.theta, criterion=value.value, limits=(),
                           converged=True, message="")


def test_posterior_against_dense_matrices():
    model = build("poisson", covariance="full", crossed=True)
    fit = at_rho(model, typical_rho(model))
    point = model.at(fit.theta, fit.rho)
    X, Z, g = model.data.X, model.data.Z, model.data.group
    groups, q = model.data.n_groups, Z.shape[1]
    J = np.hstack([np.zeros((len(g), groups * q)), X])
    for a in range(q):
        J[np.arange(len(g)), g * q + a] = Z[:, a]
    prior = np.zeros((J.shape[1],) * 2)
    prior[: groups * q, : groups * q] = np.kron(np.eye(groups),
                                                np.linalg.inv(point.effects.covariance))
    prior[groups * q :, groups * q :] = point.smooths.matrix()
    weights = np.exp(point.eta)
    H = (J * weights[:, None]).T @ J + prior
    G = np.linalg.inv(H)
    np.testing.assert_allclose(posterior_covariance(model, fit, effects=True), G, atol=1e-9)
    np.testing.assert_allclose(posterior_covariance(model, fit), G[groups * q :, groups * q :],
                               atol=1e-9)
    found = predict(model, fit, X, Z=Z, groups=g, offset=model.data.offset)
    np.testing.assert_allclose(found.eta, point.eta, atol=1e-10)
    np.testing.assert_allclose(found.se, np.sqrt(np.einsum("na,ab,nb->n", J, G, J)), rtol=1e-7)
    np.testing.assert_allclose(found.mean, np.exp(point.eta), rtol=1e-9)
    modes = random_effects(model, fit)
    rows = slice(0, groups * q)
    np.testing.assert_allclose(modes.sds.ravel(), np.sqrt(np.diagonal(G)[rows]), rtol=1e-7)
    given = np.linalg.inv(H[rows, rows])
    np.testing.assert_allclose(modes.conditional_sds.ravel(), np.sqrt(np.diagonal(given)),
                               rtol=1e-7)
    summary = mixed_summary(model, fit)
    influence = np.diagonal(G @ (H - prior))
    assert summary.edf == pytest.approx(influence.sum(), rel=1e-8)
    assert summary.variance_components[0].edf == pytest.approx(influence[rows].sum(), rel=1e-7)
    for term, s in zip(summary.smooths, model.all_smooths, strict=True):
        assert term.edf == pytest.approx(influence[groups * q + s.columns].sum(), rel=1e-7)
    new = predict(model, fit, X[:3], Z=Z[:3], groups=[-5, -6, -7], offset=0.0)
    psi = point.effects.covariance
    expected = np.einsum("np,pr,nr->n", X[:3], G[groups * q :, groups * q :], X[:3])
    expected += np.einsum("na,ab,nb->n", Z[:3], psi, Z[:3])
    np.testing.assert_allclose(new.se**2, expected, rtol=1e-7)
    low, high = new.band()
    np.testing.assert_allclose(0.5 * (low + high), new.eta)


def test_corrected_covariance_against_dense_differences():
    model = build("poisson", groups=0)
    fit = rs.fit_reml(model, tol=1e-9)
    differences = rho_differences(model, fit.rho, theta=fit.theta, step=1e-3)
    plain = posterior_covariance(model, fit)
    first = corrected_covariance(model, fit, differences, second_order=False)
    both = corrected_covariance(model, fit, differences)
    V = np.linalg.inv(differences.hessian)
    # implicit derivative of the mode: d beta / d log lambda_j = -G lambda_j S_j beta
    point = model.at(fit.theta, fit.rho)
    s = model.all_smooths[0]
    J, D = [], []
    R = np.linalg.cholesky(np.linalg.inv(plain)).T
    for strength, S in zip(point.smooths.strengths, s.matrices, strict=True):
        dS = np.zeros_like(plain)
        dS[np.ix_(s.columns, s.columns)] = strength * S
        J.append(-plain @ dS @ point.beta)
        # H moves by dS and by the weights, which follow the mode
        dH = dS + (model.data.X * (np.exp(point.eta) * (model.data.X @ J[-1]))[:, None]
                   ).T @ model.data.X
        A = np.linalg.solve(R.T, np.linalg.solve(R.T, dH).T)
        A = np.triu(A, 1) + 0.5 * np.diag(np.diagonal(A))
        D.append(-np.linalg.solve(R, A))
    J = np.array(J).T
    np.testing.assert_allclose(first - plain, J @ V @ J.T, atol=1e-5 * np.abs(J @ V @ J.T).max())
    W = np.linalg.inv(differences.hessian + 0.1 * np.eye(2))
    expected = sum(W[k, l] * D[k] @ D[l].T for k in range(2) for l in range(2))
    np.testing.assert_allclose(both - first, expected, atol=1e-4 * np.abs(expected).max())


def test_summary_prints_what_was_fitted():
    model = build("negative_binomial", covariance="full", crossed=True, z_names=["base", "slope"])
    fit = rs.fit_reml(model)
    text = str(mixed_summary(model, fit))
    for word in ("negative_binomial", "log link", "base", "slope", "level", "theta = ", "x0",
                 "70 observations, 8 groups", "edf"):
        assert word in text, word
