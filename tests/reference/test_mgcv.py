"""Additive models against mgcv, method = "REML".

mgcv takes the exact Hessian (curvature="exact"). Its figures are those of the same criterion with
all constants; README.md says how they were checked.
"""

from functools import cache

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.engine.criterion import rho_differences
from reml_sae.models import (
    MixedModel,
    Smooth,
    corrected_covariance,
    mixed_summary,
    posterior_covariance,
    predict,
)
from tests.reference import load

NAMES = load.names("mgcv")


@cache
def fitted(name):
    entry = load.figure(name)
    blocks = {}
    for penalty in load.penalties(name):
        blocks.setdefault(penalty.smooth, []).append(penalty)
    smooths = [
        Smooth(slice(parts[0].offset, parts[0].offset + len(parts[0].matrix)),
               [part.matrix for part in parts], name=label) for label, parts in blocks.items()]
    model = MixedModel(load.response(name), load.design(name), family=entry["family"],
                       n_trials=load.trials(name), penalties=smooths)
    return model, rs.fit_reml(model, curvature="exact", tol=1e-8)


def at_infinity(name):
    """Strengths that run to infinity, whose figures mgcv leaves where its search stopped."""
    model, fit = fitted(name)
    limits = {label for label, limit in fit.limits if limit == "infinite"}
    return np.array([label in limits for label in model.rho_names[model.outer["smooths"]]])


@pytest.mark.parametrize("name", NAMES)
def test_score(name):
    _, fit = fitted(name)
    assert fit.converged
    entry = load.figure(name)
    if at_infinity(name).any():
        assert fit.criterion <= entry["reml"] + 1e-6
        assert fit.criterion == pytest.approx(entry["reml"], abs=1e-4)
    else:
        assert fit.criterion == pytest.approx(entry["reml"], abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_strengths_and_family_parameters(name):
    model, fit = fitted(name)
    found = np.exp(fit.rho[model.outer["smooths"]])
    expected = np.array([penalty.strength for penalty in load.penalties(name)])
    finite = ~at_infinity(name)
    np.testing.assert_allclose(found[finite], expected[finite], rtol=1e-4)
    assert (expected[~finite] > 1e3).all()
    for label, value in (load.figure(name).get("psi") or {}).items():
        assert fit.rho[model.rho_names.index(label)] == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_degrees_of_freedom(name):
    model, fit = fitted(name)
    entry = load.figure(name)
    assert fit.edf == pytest.approx(entry["edf"], rel=1e-4)
    summary = mixed_summary(model, fit, curvature="exact")
    assert summary.edf == pytest.approx(entry["edf"], rel=1e-4)
    for term, expected in zip(summary.smooths, entry["smooths"], strict=True):
        assert term.edf == pytest.approx(expected["edf"], rel=1e-4)
        assert term.null_dim == expected["null_dim"]
    # mgcv's own table has expected weights
    assert mixed_summary(model, fit).edf == pytest.approx(entry["edf_expected"], rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_coefficients_and_fitted_values(name):
    model, fit = fitted(name)
    entry = load.figure(name)
    errors = np.array(entry["se_coefficient"])
    found = model.coefficients(fit.theta, fit.rho)
    np.testing.assert_allclose(found / errors, np.array(entry["coefficients"]) / errors, atol=1e-3)
    covariance = posterior_covariance(model, fit, curvature="exact")
    # a coefficient's own sd at the limit is where the search stopped
    found = np.sqrt(np.diagonal(covariance))
    np.testing.assert_allclose(found, errors, rtol=5e-3 if at_infinity(name).any() else 1e-3)
    predicted = predict(model, fit, model.data.X, curvature="exact")
    scale = np.abs(entry["fitted"]).max()
    np.testing.assert_allclose(predicted.mean, entry["fitted"], atol=1e-4 * scale)
    np.testing.assert_allclose(predicted.se, entry["se_linear_predictor"], rtol=1e-3)


def test_uncertainty_of_the_strengths():
    """The two corrections of Wood, Pya and Saefken (2016) on mcycle.

    mgcv's second term holds the dispersion fixed, and has its prior on log sp = log(lambda phi);
    ours moves with every outer parameter. They differ by a few per cent of a small term.
    """
    files = load.figure("mcycle_ps")["covariance"]
    model, fit = fitted("mcycle_ps")
    differences = rho_differences(model, fit.rho, theta=fit.theta)
    plain = posterior_covariance(model, fit)
    expected = load.matrix(files["Vp"])
    np.testing.assert_allclose(plain, expected, atol=1e-6 * np.abs(expected).max())
    first = corrected_covariance(model, fit, differences, second_order=False)
    expected = load.matrix(files["Vc_first"])
    np.testing.assert_allclose(first - plain, expected, atol=1e-4 * np.abs(expected).max())
    both = corrected_covariance(model, fit, differences)
    expected = load.matrix(files["Vc_second"])
    np.testing.assert_allclose(both - first, expected, atol=0.08 * np.abs(expected).max())
