"""Mixed models against lme4, and glmmTMB where lme4 has no such criterion.

lme4's Gaussian REML and ML, its Laplace approximation of generalised models (nAGQ = 1: method
"Laplace") and its joint mode (nAGQ = 0: method "ML") use expected weights. glmmTMB uses the exact
Hessian, and its REML integrates the fixed effects too.
"""

from functools import cache

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.models import (
    MixedModel,
    Smooth,
    mixed_summary,
    posterior_covariance,
    predict,
    random_effects,
)
from tests.reference import load

METHODS = {"REML": "REML", "ML": "ML", "laplace": "Laplace", "joint": "ML"}
NAMES = tuple(name for name in (*load.names("lme4"), *load.names("glmmTMB"))
              if "design" in load.figure(name))
GAUSSIAN = tuple(name for name in NAMES if load.figure(name)["family"] == "gaussian")


def curvature(name):
    return "exact" if load.figure(name)["package"] == "glmmTMB" else "majorizer"


@cache
def fitted(name):
    """The model and its fit: the first factor's groups are the rows, the others are crossed."""
    entry, X = load.figure(name), load.design(name)
    first, *others = load.random_terms(name)
    penalties = []
    for term in others:
        assert term.columns == ("(Intercept)",)
        indicators = (term.groups[:, None] == np.arange(len(term.levels))).astype(float)
        where = slice(X.shape[1], X.shape[1] + len(term.levels))
        penalties.append(Smooth(where, [np.eye(len(term.levels))], name=term.group))
        X = np.hstack([X, indicators])
    model = MixedModel(
        load.response(name), X, groups=np.array(first.levels)[first.groups], Z=first.Z,
        covariance=first.covariance, family=entry["family"], n_trials=load.trials(name),
        penalties=penalties, method=METHODS[entry["method"]])
    # lme4 and glmmTMB stop at deviances within about 1e-6 of their optimum; we go on
    return model, rs.fit_reml(model, curvature=curvature(name), tol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_deviance(name):
    _, fit = fitted(name)
    assert fit.converged or fit.limits, fit.message
    expected = load.figure(name)["deviance"]
    assert 2.0 * fit.criterion == pytest.approx(expected, abs=1e-5)
    if name in GAUSSIAN:
        assert 2.0 * fit.criterion == pytest.approx(expected, abs=1e-6)


def test_published_deviances_of_sleepstudy():
    for name, published in (("sleepstudy_diagonal_reml", 1743.6693),
                            ("sleepstudy_full_reml", 1743.6283)):
        model, fit = fitted(name)
        assert 2.0 * fit.criterion == pytest.approx(published, abs=5e-5)
        found = model.coefficients(fit.theta, fit.rho)
        np.testing.assert_allclose(found, [251.4051, 10.4673], atol=5e-5)


@pytest.mark.parametrize("name", NAMES)
def test_fixed_effects(name):
    model, fit = fitted(name)
    fixed = load.figure(name)["fixed"]
    count = len(fixed["estimate"])
    found = model.coefficients(fit.theta, fit.rho)[:count]
    scale = np.array(fixed["se"])
    np.testing.assert_allclose(found / scale, np.array(fixed["estimate"]) / scale, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_standard_errors(name):
    """At fixed outer parameters, from the joint Hessian of (beta, b)."""
    model, fit = fitted(name)
    fixed = load.figure(name)["fixed"]
    count = len(fixed["estimate"])
    covariance = posterior_covariance(model, fit, curvature=curvature(name))[:count, :count]
    np.testing.assert_allclose(np.sqrt(np.diagonal(covariance)), fixed["se"], rtol=1e-4)
    np.testing.assert_allclose(covariance, fixed["covariance"],
                               atol=1e-4 * np.abs(covariance).max())


@pytest.mark.parametrize("name", NAMES)
def test_variance_components(name):
    model, fit = fitted(name)
    summary = mixed_summary(model, fit)
    first, *others = load.random_terms(name)
    component = summary.variance_components[0]
    np.testing.assert_allclose(component.sds, first.sd, rtol=1e-4, atol=1e-6)
    if (first.sd > 0).all():
        np.testing.assert_allclose(component.correlations, first.correlation, atol=1e-4)
    for term, smooth in zip(others, summary.smooths, strict=True):
        np.testing.assert_allclose(smooth.sd, term.sd[0], rtol=1e-4)
    entry = load.figure(name)
    if entry.get("residual_sd"):
        assert np.sqrt(summary.dispersion) == pytest.approx(entry["residual_sd"], rel=1e-4)
    for label, value in (entry.get("psi") or {}).items():
        assert fit.rho[model.rho_names.index(label)] == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_random_effects(name):
    model, fit = fitted(name)
    first, *others = load.random_terms(name)
    modes = random_effects(model, fit)
    order = [list(modes.labels).index(level) for level in first.levels]
    scale = np.maximum(first.sd, 1e-8 + np.abs(modes.values).max(0))
    if (first.sd == 0).all():
        scale = np.full(len(scale), np.sqrt(model.family.dispersion(fit.rho[model.outer.psi])))
    np.testing.assert_allclose(modes.values[order] / scale, first.ranef.reshape(-1, len(scale))
                               / scale, atol=1e-4)
    columns = load.design(name).shape[1]
    crossed = model.coefficients(fit.theta, fit.rho)[columns:]
    for term in others:
        expected, crossed_sd = term.ranef.ravel(), term.sd[0]
        found, crossed = crossed[: len(expected)], crossed[len(expected):]
        np.testing.assert_allclose(found / crossed_sd, expected / crossed_sd, atol=1e-4)
    if first.ranef_sd is not None and not others and (first.sd > 0).all():
        np.testing.assert_allclose(modes.conditional_sds[order],
                                   first.ranef_sd.reshape(-1, len(scale)), rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if load.figure(name).get("fitted")])
def test_fitted_values(name):
    model, fit = fitted(name)
    data = model.data
    found = predict(model, fit, data.X, Z=data.Z, groups=data.labels[data.group]).mean
    expected = np.array(load.figure(name)["fitted"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
