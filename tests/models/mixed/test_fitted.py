"""What a fitted mixed model says, against what lme4 and lmerTest print and against closed forms.

Figures that are not in tests/reference are printed in Bates et al. (2015, J. Stat. Softw. 67(1))
for sleepstudy and cbpp, and by lmerTest (Kuznetsova et al. 2017, J. Stat. Softw. 82(13)).
"""

from functools import cache

import numpy as np
import pytest
from scipy import stats

from reml_sae.errors import InputError
from reml_sae.models import MixedModel
from tests.models.mixed.test_formula import frame, toy

FULL = "Reaction ~ Days + (Days | Subject)"


@cache
def sleepstudy(method="REML", text=FULL):
    return MixedModel.from_formula(text, frame("sleepstudy"), method=method).fit(tol=1e-8)


@cache
def cbpp():
    return MixedModel.from_formula(
        "cbind(incidence, size - incidence) ~ C(period) + (1 | herd)", frame("cbpp"),
        family="binomial", method="Laplace").fit()


def test_summary_of_sleepstudy():
    summary = sleepstudy().summary()
    np.testing.assert_allclose(summary.scaled_residuals,
                               [-3.9536, -0.4634, 0.0231, 0.4634, 5.1793], atol=1e-4)
    np.testing.assert_allclose(summary.degrees_of_freedom, 17.0, atol=0.01)
    assert summary.p_values[1] == pytest.approx(3.26e-6, rel=0.01)
    ml = sleepstudy("ML")
    assert (round(ml.aic, 1), round(ml.bic, 1)) == (1763.9, 1783.1)
    assert (ml.summary().aic, ml.summary().bic) == (ml.aic, ml.bic)


def test_summary_of_cbpp():
    summary = cbpp().summary()
    assert (round(summary.aic, 1), round(summary.bic, 1)) == (194.1, 204.2)
    # lme4 prints them where its search stops
    np.testing.assert_allclose(summary.scaled_residuals,
                               [-2.3816, -0.7889, -0.2026, 0.5142, 2.8791], atol=2e-3)
    assert np.isinf(summary.degrees_of_freedom).all()


def test_least_squares_is_the_textbooks():
    data = toy()
    fit = MixedModel.from_formula("y ~ x", data).fit(tol=1e-8)
    summary, known = fit.summary(), stats.linregress(data.x, data.y)
    np.testing.assert_allclose(summary.degrees_of_freedom, 58.0, rtol=1e-4)
    assert summary.p_values[1] == pytest.approx(known.pvalue, rel=1e-4)


def test_printing():
    text = str(sleepstudy().summary())
    for word in (FULL, "180 observations, 18 Subject", "REML criterion 2 V = 1743.6283", "36.838",
                 "Scaled residuals", "0.066", "residual", "AIC", "converged"):
        assert word in text, word
    short = str(sleepstudy())
    assert "converged" in short and "\n" not in short
    rough = MixedModel.from_formula(FULL, frame("sleepstudy")).fit(rough=True)
    assert "NOT CONVERGED" in str(rough) and "NOT CONVERGED" in repr(rough.fit)


def test_what_a_terminal_shows_of_results_is_a_short_table():
    fit = sleepstudy()
    known, effects = fit.predict(interval="prediction"), fit.ranef["Subject"]
    shown = [repr(item) for item in (fit.model, fit.fit, fit.summary(), known, effects)]
    assert all(len(text) < 1500 and "array(" not in text for text in shown)
    assert "and 170 more observations" in shown[3] and "and 8 more groups" in shown[4]
    assert shown[4].splitlines()[1].split() == ["308", "2.2586", "12.071", "9.199", "2.3048"]
    table = known.to_frame()
    assert list(table) == ["eta", "se", "mean", "lower", "upper"] and len(table) == 180
    assert effects.to_frame()["Days"].iloc[0] == effects.values[0, 1]


def test_profile_of_the_sds():
    """The intervals that lme4's confint prints for sleepstudy by ML."""
    expected = {
        "sd[Intercept | Subject]": (14.3815, 37.7160), "sd[Days | Subject]": (3.8012, 8.7534),
        "sd[residual]": (22.8983, 28.8580)}
    found = sleepstudy("ML").confint(method="profile")
    assert list(found) == list(expected)
    for name, ends in expected.items():
        assert found[name] == pytest.approx(ends, rel=1e-4)


def test_profile_of_a_variance_of_zero():
    fit = MixedModel.from_formula("Yield ~ 1 + (1 | Batch)", frame("dyestuff2")).fit()
    low, high = fit.confint(method="profile")["sd[Intercept | Batch]"]
    assert low < 1e-3
    assert 1.0 < high < 10.0


def test_wald_intervals():
    fit = sleepstudy()
    low, high = fit.confint(0.9)["Days"]
    assert (high - low) / 2.0 == pytest.approx(1.5458 * stats.norm.ppf(0.95), rel=1e-4)
    for arguments in ({"level": 1.0}, {"method": "boot"}):
        with pytest.raises(InputError):
            fit.confint(**arguments)


def test_anova_refits_where_fixed_effects_differ():
    smaller = sleepstudy(text="Reaction ~ 1 + (Days | Subject)")
    test = sleepstudy().anova(smaller)
    assert test.refitted == "ML"
    assert test.statistic == pytest.approx(23.537, abs=1e-3)
    assert test.df == 1
    assert "fitted again by ML" in str(test)
    # lme4 prints 0.0639 on 1 df for the correlation, and the same by REML: the fixed effects agree
    test = sleepstudy("ML").anova(sleepstudy("ML", "Reaction ~ Days + (Days || Subject)"))
    assert (test.refitted, test.df) == ("", 1)
    assert test.statistic == pytest.approx(0.0639, abs=1e-4)
    assert sleepstudy().anova(sleepstudy(text="Reaction ~ Days + (Days || Subject)")).refitted == ""


def test_anova_refuses_what_is_not_comparable():
    with pytest.raises(InputError, match="fitted by REML and by ML"):
        sleepstudy().anova(sleepstudy("ML"))
    with pytest.raises(InputError, match="different responses"):
        sleepstudy().anova(cbpp())


def test_residuals():
    fit = sleepstudy()
    y = frame("sleepstudy").Reaction.to_numpy()
    for kind in ("response", "pearson", "deviance"):
        np.testing.assert_allclose(fit.residuals(kind), y - fit.fitted())
    fit, data = cbpp(), frame("cbpp")
    n, p = data["size"].to_numpy(), fit.fitted()
    rest = data.incidence / n - p
    np.testing.assert_allclose(fit.residuals(), rest)
    np.testing.assert_allclose(fit.residuals("pearson"), rest / np.sqrt(p * (1.0 - p) / n))
    y = data.incidence.to_numpy()
    unit = 2.0 * (stats.binom.logpmf(y, n, y / n) - stats.binom.logpmf(y, n, p))
    np.testing.assert_allclose(fit.residuals("deviance"), np.sign(rest) * np.sqrt(unit), atol=1e-7)
    with pytest.raises(InputError, match="type must be"):
        fit.residuals("working")


def test_intervals_of_predictions():
    fit = sleepstudy()
    mean, new = fit.predict(interval="confidence"), fit.predict(interval="prediction", level=0.9)
    np.testing.assert_allclose(mean.upper - mean.mean, stats.norm.ppf(0.975) * mean.se)
    np.testing.assert_allclose((new.upper - new.mean) / stats.norm.ppf(0.95),
                               np.hypot(mean.se, fit.sigma))
    fit = cbpp()
    band = fit.predict(interval="confidence", re_form=False)
    assert ((band.lower > 0) & (band.lower < band.mean) & (band.mean < band.upper)).all()
    with pytest.raises(InputError, match="is for the gaussian family"):
        fit.predict(interval="prediction")
    with pytest.raises(InputError, match="interval must be"):
        fit.predict(interval="both")


def test_newdata_needs_a_formula():
    data = toy()
    fit = MixedModel(data.y, np.ones(len(data)), groups=data.g, Z=np.ones(len(data))).fit()
    np.testing.assert_allclose(fit.predict().mean, fit.fitted())
    with pytest.raises(InputError, match="newdata is for models from a formula"):
        fit.predict(data)


def test_p_values_of_smooths_are_uniform_without_an_effect():
    """Sizes of tests at 5 % and 20 % over seeds, beside a random intercept."""
    values = []
    for seed in range(40):
        data = toy(80, seed)
        data["y"] += np.random.default_rng(seed).normal(size=6)[pd_codes(data.g)]
        values.append(MixedModel.from_formula("y ~ s(t, k=8) + (1 | g)", data).fit()
                      .summary().smooths[0].p_value)
    values = np.array(values)
    assert np.mean(values < 0.05) < 0.15
    assert 0.05 < np.mean(values < 0.2) < 0.4


def pd_codes(labels):
    return np.unique(labels, return_inverse=True)[1]


def test_smooth_test_has_power_and_its_law_at_full_rank():
    data = toy(200)
    data["y"] += np.sin(6.0 * data.t)
    term = MixedModel.from_formula("y ~ s(t)", data).fit().summary().smooths[0]
    assert term.p_value < 1e-6
    assert term.edf < term.reference_df < term.n_coefficients


def test_plot_has_a_panel_for_every_smooth():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    fit = MixedModel.from_formula("y ~ s(t) + s(x, k=5) + (1 | g)", toy()).fit()
    figure = fit.plot()
    assert [axes.get_xlabel() for axes in figure.axes[2:]] == ["t", "x"]
    low = figure.axes[2].collections[0].get_paths()[0].vertices[:, 1]
    assert low.min() < figure.axes[2].lines[0].get_ydata().min()
    pyplot.close(figure)
