"""Nonlinear mixed models against Laplace fits of the Orange and Theoph data (README.md)."""

from functools import cache

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.models import Curve, NonlinearMixedModel, mixed_summary, random_effects
from tests.reference import load

METHODS = {"REML": "REML", "laplace": "Laplace"}
NAMES = load.names("by hand")
CURVATURES = {"exact": "exact", "gauss_newton": "majorizer"}


def logistic():
    age = load.column("orange", "age")
    return (Curve(lambda asym, mid, scale: asym / (1.0 + np.exp(-(age - mid) / scale))),
            {"Asym": 200.0, "xmid": 725.0, "scal": 350.0})


def absorption():
    dose, time = load.column("theoph", "Dose"), load.column("theoph", "Time")

    def concentration(lKe, lKa, lCl):
        ke, ka = np.exp(lKe), np.exp(lKa)
        return (dose * np.exp(lKe + lKa - lCl) * (np.exp(-ke * time) - np.exp(-ka * time))
                / (ka - ke))

    return Curve(concentration), {"lKe": -2.5, "lKa": 0.5, "lCl": -3.0}


@cache
def fitted(name, curvature=None):
    entry, (term,) = load.figure(name), load.random_terms(name)
    mean, start = {"orange": logistic, "theoph": absorption}[entry["data"]]()
    model = NonlinearMixedModel(
        load.response(name), mean, np.array(term.levels)[term.groups], term.columns, start,
        covariance=term.covariance, method=METHODS[entry["method"]])
    curvature = curvature or CURVATURES[entry["curvature"]]
    return model, rs.fit_reml(model, curvature=curvature, tol=1e-8)


def test_every_nonlinear_entry_is_compared():
    assert len(NAMES) == 7
    assert all("design" not in load.figure(name) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_deviance(name):
    _, fit = fitted(name)
    assert fit.converged, fit.message
    assert 2.0 * fit.criterion == pytest.approx(load.figure(name)["deviance"], abs=1e-8)


def test_curvatures_agree_where_the_effect_is_linear():
    """The orange trees are linear in b: Gauss-Newton is exact given the coefficients."""
    name = "orange_logistic_laplace_exact"
    _, fit = fitted(name, "majorizer")
    assert 2.0 * fit.criterion == pytest.approx(load.figure(name)["deviance"], abs=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_estimates(name):
    model, fit = fitted(name)
    entry, (term,) = load.figure(name), load.random_terms(name)
    coefficients = model.coefficients(fit.theta, fit.rho)
    np.testing.assert_allclose(coefficients, entry["fixed"]["estimate"], rtol=1e-6)
    summary = mixed_summary(model, fit)
    assert summary.names == tuple(entry["fixed"]["names"])
    np.testing.assert_allclose(summary.variance_components[0].sds, term.sd, rtol=1e-6)
    assert np.sqrt(summary.dispersion) == pytest.approx(entry["residual_sd"], rel=1e-6)
    effects = random_effects(model, fit)
    assert effects.labels.tolist() == list(term.levels)
    np.testing.assert_allclose(effects.values, term.ranef.reshape(effects.values.shape),
                               atol=1e-6 * np.abs(term.ranef).max())
    np.testing.assert_allclose(model.predictor(fit.theta, fit.rho), entry["fitted"],
                               atol=1e-6 * np.abs(entry["fitted"]).max())


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_the_deviance(name):
    """F and log C together are the reference's penalised objective with its normalisers."""
    _, fit = fitted(name)
    parts = fit.value.parts
    assert parts["objective"] + parts["log_normalizer"] == pytest.approx(
        load.figure(name)["objective"], abs=1e-5)
