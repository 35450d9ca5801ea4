"""Formulas: what they make, against lme4 and mgcv, and what they refuse."""

import numpy as np
import pandas as pd
import pytest

from reml_sae.errors import DataWarning, InputError, MissingDependencyError
from reml_sae.models import MixedModel
from reml_sae.models.mixed.basis import PSpline
from reml_sae.models.mixed.formula import parse_formula
from tests.reference import load

METHODS = {"REML": "REML", "ML": "ML", "laplace": "Laplace", "joint": "ML"}
TRANSLATED = (
    "sleepstudy_diagonal_reml", "sleepstudy_full_ml", "penicillin_crossed_reml",
    "pastes_nested_reml", "cbpp_laplace", "clusters_poisson_joint")


def frame(name):
    return pd.read_csv(load.DATA / f"{name}.csv", dtype={"Subject": str, "herd": str})


def toy(n=60, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({
        "y": rng.normal(size=n), "x": rng.normal(size=n), "t": rng.uniform(size=n),
        "g": rng.choice(list("abcdef"), n), "h": rng.choice(list("uvw"), n),
        "w": rng.uniform(0.5, 2.0, n)}, index=[f"row {i}" for i in range(n)])


@pytest.mark.parametrize("name", TRANSLATED)
def test_lme4_formula(name):
    entry = load.figure(name)
    text = entry["formula"].replace("period", "C(period)")
    data = frame(entry["data"])
    fit = MixedModel.from_formula(text, data, family=entry["family"],
                                  method=METHODS[entry["method"]]).fit(tol=1e-8)
    assert fit.converged
    assert 2.0 * fit.fit.criterion == pytest.approx(entry["deviance"], abs=1e-5)
    errors = np.array(entry["fixed"]["se"])
    np.testing.assert_allclose(np.array(list(fit.fixef.values())) / errors,
                               np.array(entry["fixed"]["estimate"]) / errors, atol=1e-4)
    found = {c.group: c.sds for c in fit.summary().variance_components}
    for term in load.random_terms(name):
        np.testing.assert_allclose(found[term.group], term.sd, rtol=1e-3)
        effects = fit.ranef[term.group]
        order = [list(effects.labels).index(level) for level in term.levels]
        np.testing.assert_allclose(effects.values[order] / term.sd,
                                   term.ranef.reshape(-1, len(term.sd)) / term.sd, atol=1e-3)
        if entry["family"] == "gaussian" and term.ranef_sd is not None:
            np.testing.assert_allclose(
                effects.conditional_sds[order], term.ranef_sd.reshape(-1, len(term.sd)), rtol=1e-3)
    np.testing.assert_allclose(fit.fitted(), entry["fitted"], rtol=1e-3)


@pytest.mark.parametrize("name", ["mcycle_ps", "poisson_ps"])
def test_smooth_is_mgcvs(name):
    entry = load.figure(name)
    text = entry["formula"].replace(', bs = "ps", m = c(2, 2)', "")
    fit = MixedModel.from_formula(text, frame(entry["data"]), family=entry["family"]).fit(
        curvature="exact", tol=1e-8)
    assert fit.fit.criterion == pytest.approx(entry["reml"], abs=1e-5)
    assert fit.summary().smooths[0].edf == pytest.approx(entry["smooths"][0]["edf"], rel=1e-3)
    np.testing.assert_allclose(fit.fitted(), entry["fitted"],
                               atol=1e-3 * np.abs(entry["fitted"]).max())
    np.testing.assert_allclose(fit.predict().se, entry["se_linear_predictor"], rtol=1e-3)


def test_smooth_is_centred_and_goes_on_straight():
    x = np.sort(np.random.default_rng(0).uniform(size=50))
    spline = PSpline.of(x, 8, "s(x)")
    np.testing.assert_allclose(spline.columns(x).sum(axis=0), 0.0, atol=1e-12)
    far = spline.columns(np.array([1.5, 2.0, 2.5]))
    np.testing.assert_allclose(far[0] - 2.0 * far[1] + far[2], 0.0, atol=1e-10)
    near = spline.columns(np.array([x.max() - 1e-9, x.max() + 1e-9]))
    np.testing.assert_allclose(near[0], near[1], atol=1e-6)


def test_parts():
    parsed = parse_formula("cbind(a, n - a) ~ x * z - 1 + s(log(t), k = 7) + (0 + x || g/h)")
    assert (parsed.response, parsed.failures, parsed.fixed) == ("a", "n - a", "x * z - 1")
    assert [(s.variable, s.k) for s in parsed.smooths] == [("log(t)", 7)]
    assert [(r.effects, r.group, r.correlated) for r in parsed.random] == [
        ("0 + x", "g", False), ("0 + x", "g:h", False)]


@pytest.mark.parametrize(("text", "message"), [
    ("y + x", "formula must be 'response ~ terms'"),
    ("y ~ (x | g", "brackets do not match"),
    ("y ~ x | g", "stands in brackets of its own"),
    ("y ~ x:s(t)", "enters products"),
    ("y ~ te(x, t)", "tensor products"),
    ("y ~ s(t, bs=5)", "s takes one variable and k"),
    ("y ~ s(t, k=3)", "k must be at least 4"),
    ("y ~ (x | g + h)", "the group a column"),
    ("y ~ (1 | nowhere)", "'nowhere' is no column"),
    ("y ~ nowhere", "nowhere"),
    ("y ~ (x | g) + (x | h)", "g and h both have correlated effects"),
    ("y ~ (x | g) + (1 | g)", "Intercept is in two random terms of g"),
    ("h ~ x", "h must hold real numbers"),
    ("cbind(y, x) ~ 1", "binomial"),
])
def test_refused(text, message):
    with pytest.raises(InputError, match=message):
        MixedModel.from_formula(text, toy())


def test_missing_values_are_named_with_their_row():
    data = toy()
    data.loc["row 7", "x"] = np.nan
    with pytest.raises(InputError, match=r"x is missing in row 'row 7' \(1 such"):
        MixedModel.from_formula("y ~ x + (1 | g)", data)
    MixedModel.from_formula("y ~ t + (1 | g)", data)


def test_weights_are_the_likelihood_of_scaled_data():
    data = toy()
    rng = np.random.default_rng(1)
    data["y"] += data["x"] + rng.normal(size=6)[pd.factorize(data.g)[0]]
    fit = MixedModel.from_formula("y ~ x + (1 | g)", data, weights="w", method="ML").fit(tol=1e-8)
    root = np.sqrt(data.w.to_numpy())
    X = np.column_stack([np.ones(len(data)), data.x])
    scaled = MixedModel(root * data.y, root[:, None] * X, groups=data.g, Z=root, method="ML").fit(
        tol=1e-8)
    np.testing.assert_allclose(list(fit.fixef.values()), list(scaled.fixef.values()), rtol=1e-5)
    assert fit.sigma == pytest.approx(scaled.sigma, rel=1e-5)
    assert fit.log_likelihood == pytest.approx(
        scaled.log_likelihood + np.log(root).sum(), abs=1e-6)
    with pytest.raises(InputError, match="weights must be positive"):
        MixedModel.from_formula("y ~ x", data, weights="w - 1")
    with pytest.raises(InputError, match="weights are for the gaussian family"):
        MixedModel.from_formula("1 + 0 * y ~ x", data, family="poisson", weights="w")


def test_offset_is_part_of_predictions():
    data = toy()
    named = MixedModel.from_formula("y ~ x", data, offset="2 * t").fit()
    given = MixedModel.from_formula("y ~ x", data, offset=2.0 * data.t.to_numpy()).fit()
    np.testing.assert_allclose(named.predict().mean, named.predict(data).mean)
    np.testing.assert_allclose(named.predict(data).mean, given.predict().mean, atol=1e-8)
    with pytest.raises(InputError, match="the offset of the fit was an array"):
        given.predict(data)
    np.testing.assert_allclose(given.predict(data, offset=2.0 * data.t).mean, given.predict().mean)


def test_new_levels():
    data = toy()
    rng = np.random.default_rng(1)
    data["y"] += 2.0 * rng.normal(size=6)[pd.factorize(data.g)[0]]
    data["y"] += 2.0 * rng.normal(size=3)[pd.factorize(data.h)[0]]
    fit = MixedModel.from_formula("y ~ x + (1 | g) + (1 | h)", data).fit()
    np.testing.assert_allclose(fit.predict(data).se, fit.predict().se)
    new = data.iloc[:2].assign(g="z", h="z")
    with pytest.warns(DataWarning) as told:
        found = fit.predict(new)
    assert [str(w.message).split(" has")[0] for w in told] == ["g", "h"]
    fixed = fit.predict(new, re_form=False)
    np.testing.assert_allclose(found.mean, fixed.mean)
    variances = [c.sds[0] ** 2 for c in fit.summary().variance_components]
    np.testing.assert_allclose(found.se**2, fixed.se**2 + sum(variances))
    with pytest.raises(InputError, match="categories outside"):
        MixedModel.from_formula("y ~ h", data).fit().predict(new)


def test_without_formulaic(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "formulaic", None)
    with pytest.raises(MissingDependencyError, match=r"reml-sae\[formula\]"):
        MixedModel.from_formula("y ~ x", toy())


@pytest.mark.parametrize("arguments", [{"weights": "1 +"}, {"offset": "x +"}])
def test_expressions_that_are_none_are_refused(arguments):
    frame = pd.DataFrame({"y": np.arange(12.0), "x": np.arange(12.0) % 5, "g": list("abc") * 4})
    with pytest.raises(InputError):
        MixedModel.from_formula("y ~ x + (1 | g)", frame, **arguments)
