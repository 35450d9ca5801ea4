"""What our summaries print, against those of lme4, lmerTest, mgcv and glmmTMB (summaries.json).

Theirs are with the tolerances that these packages have unless told otherwise.
"""

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest

from reml_sae.families import Tweedie
from reml_sae.models import MixedModel
from tests.reference import load

THEIRS = json.loads((load.FOLDER / "summaries.json").read_text())
DAYS, LEVEL = "Reaction ~ Days + (Days | Subject)", "Reaction ~ 1 + (Days | Subject)"


@cache
def fitted(formula, data, *, curvature="majorizer", **options):
    frame = pd.read_csv(load.DATA / f"{data}.csv")
    return MixedModel.from_formula(formula, frame, **options).fit(curvature=curvature)


def same_fixed(summary, theirs, rtol=1e-5):
    np.testing.assert_allclose(summary.coefficients, theirs["estimate"], rtol=rtol)
    np.testing.assert_allclose(summary.standard_errors, theirs["se"], rtol=rtol)


def test_sleepstudy():
    theirs, fit = THEIRS["sleepstudy"], fitted(DAYS, "sleepstudy")
    summary = fit.summary()
    assert summary.deviance == pytest.approx(theirs["criterion"], abs=1e-4)
    same_fixed(summary, theirs["fixed"])
    np.testing.assert_allclose(summary.degrees_of_freedom, theirs["fixed"]["df"], atol=1e-3)
    np.testing.assert_allclose(summary.p_values, theirs["fixed"]["p"], rtol=2e-3)
    term, = summary.variance_components
    np.testing.assert_allclose([*term.sds, term.correlations[1, 0], fit.sigma], theirs["random"],
                               rtol=2e-4)
    np.testing.assert_allclose(summary.scaled_residuals, theirs["scaled_residuals"], atol=1e-4)
    np.testing.assert_allclose(list(fit.confint().values()), theirs["wald"], rtol=1e-4)


def test_sleepstudy_by_ml():
    theirs, fit = THEIRS["sleepstudy"]["ml"], fitted(DAYS, "sleepstudy", method="ML")
    assert [fit.aic, fit.bic, fit.log_likelihood] == pytest.approx(
        [theirs["aic"], theirs["bic"], theirs["log_likelihood"]], abs=1e-3)
    np.testing.assert_allclose(list(fit.confint(method="profile").values()), theirs["profile_sd"],
                               rtol=1e-4)
    test = fit.anova(fitted(LEVEL, "sleepstudy", method="ML"))
    assert test.statistic == pytest.approx(THEIRS["sleepstudy"]["anova"]["chisq"], rel=1e-4)
    assert test.p_value == pytest.approx(THEIRS["sleepstudy"]["anova"]["p"], rel=1e-3)


def test_cbpp():
    theirs = THEIRS["cbpp"]
    summary = fitted("cbind(incidence, size - incidence) ~ C(period) + (1 | herd)", "cbpp",
                     family="binomial", method="Laplace").summary()
    # glmer stops 6e-4 above the optimum unless its tolerances are tight
    assert summary.deviance == pytest.approx(theirs["tight"]["deviance"], abs=1e-5)
    assert 0.0 < theirs["deviance"] - summary.deviance < 1e-3
    same_fixed(summary, theirs["tight"], rtol=1e-4)
    np.testing.assert_allclose(summary.coefficients, theirs["fixed"]["estimate"], atol=1e-3)
    # its printed standard errors include the uncertainty of the variance
    np.testing.assert_allclose(summary.standard_errors, theirs["fixed"]["se"], rtol=0.02)
    np.testing.assert_allclose(summary.p_values, theirs["fixed"]["p"], rtol=0.5)
    assert summary.variance_components[0].sds[0] == pytest.approx(theirs["random"][0], abs=1e-3)
    assert [summary.aic, summary.bic] == pytest.approx([theirs["aic"], theirs["bic"]], abs=1e-3)


def test_mcycle():
    theirs = THEIRS["mcycle"]
    summary = fitted("accel ~ s(times, k=20)", "mcycle", curvature="exact").summary()
    assert 0.5 * summary.deviance == pytest.approx(theirs["reml"], abs=1e-4)
    assert summary.dispersion == pytest.approx(theirs["scale"], rel=1e-5)
    parametric = summary.parametric
    assert summary.coefficients[parametric] == pytest.approx(theirs["fixed"]["estimate"], rel=1e-6)
    assert summary.standard_errors[parametric] == pytest.approx(theirs["fixed"]["se"], rel=1e-5)
    smooth, = summary.smooths
    assert [smooth.edf, smooth.reference_df, smooth.statistic] == pytest.approx(
        [theirs["smooth"][name] for name in ("edf", "ref_df", "statistic")], rel=1e-3)


def test_power_of_a_tweedie_smooth():
    theirs = THEIRS["tweedie"]["mgcv"]
    summary = fitted("rain ~ s(x, k=12)", "tweedie", family="tweedie", curvature="exact").summary()
    assert 0.5 * summary.deviance == pytest.approx(theirs["reml"], abs=1e-4)
    assert summary.family_parameters["power"] == pytest.approx(theirs["power"], abs=1e-4)
    assert summary.dispersion == pytest.approx(theirs["dispersion"], rel=1e-3)
    assert summary.smooths[0].edf == pytest.approx(theirs["edf"], rel=0.02)  # expected weights
    assert "power = 1.366" in str(summary)


def test_power_of_a_tweedie_mixed_model():
    theirs = THEIRS["tweedie"]["glmmTMB"]
    fit = fitted("grouped ~ x + (1 | group)", "tweedie", family="tweedie", method="Laplace",
                 curvature="exact")
    summary = fit.summary()
    assert summary.deviance == pytest.approx(theirs["deviance"], abs=1e-4)
    assert summary.family_parameters["power"] == pytest.approx(theirs["power"], abs=1e-3)
    assert summary.dispersion == pytest.approx(theirs["dispersion"], rel=1e-3)
    np.testing.assert_allclose(summary.coefficients, theirs["estimate"], rtol=1e-3)
    assert summary.variance_components[0].sds[0] == pytest.approx(theirs["sd"], rel=1e-3)
    # a power that is known is one parameter fewer, and no better
    known = fitted("grouped ~ x + (1 | group)", "tweedie", family=Tweedie(1.5), method="Laplace",
                   curvature="exact").summary()
    assert known.n_parameters == summary.n_parameters - 1 and known.deviance > summary.deviance
