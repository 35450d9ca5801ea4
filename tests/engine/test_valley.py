"""Strengths that the data cannot tell apart are named, and those they can raise no alarm."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.models import MixedModel, Smooth
from tests.models.mixed.systems import MODELS

SEEDS = range(4)


def indicators(g):
    return (g[:, None] == np.unique(g)).astype(float)


def one_row_a_group(rng, method):
    y, g = rng.normal(size=40), np.arange(40)
    model = MixedModel(y, np.ones(40), groups=g, Z=np.ones(40), method=method)
    return model, {"log_precision[z0]", "log_dispersion"}


def one_row_a_level(rng, method):
    y, X = rng.normal(size=40), np.column_stack([np.ones(40), np.eye(40)])
    model = MixedModel(y, X, penalties=[Smooth(slice(1, 41), [np.eye(40)], "row")], method=method)
    return model, {"log_lambda[row]", "log_dispersion"}


def as_many_effects_as_rows(rng, method):
    """Two rows a group at the same places have three covariances, for four parameters."""
    g, t = np.repeat(np.arange(30), 2), np.tile([0.0, 1.0], 30)
    Z = np.column_stack([np.ones(60), t])
    y = (Z * rng.normal(size=(30, 2))[g]).sum(axis=1) + 0.5 * rng.normal(size=60)
    model = MixedModel(y, Z, groups=g, Z=Z, covariance="full", method=method)
    return model, {"log_precision[z0]", "log_precision[z1]", "factor[z1,z0]", "log_dispersion"}


def one_factor_twice(rng, method):
    g = np.repeat(np.arange(12), 5)
    y = rng.normal(size=12)[g] + rng.normal(size=60)
    model = MixedModel(y, np.column_stack([np.ones(60), indicators(g)]), groups=g, Z=np.ones(60),
                       penalties=[Smooth(slice(1, 13), [np.eye(12)], "again")], method=method)
    return model, {"log_precision[z0]", "log_lambda[again]"}


def one_column_twice(rng, method):
    g = np.repeat(np.arange(12), 5)
    y = rng.poisson(np.exp(1.0 + rng.normal(size=12)[g])).astype(float)
    model = MixedModel(y, np.ones(60), groups=g, Z=[np.ones(60), np.ones(60)], family="poisson",
                       method=method)
    return model, {"log_precision[z0]", "log_precision[z1]"}


def one_matrix_twice(rng, method):
    g = np.repeat(np.arange(12), 5)
    y = rng.normal(size=12)[g] + rng.normal(size=60)
    model = MixedModel(y, np.column_stack([np.ones(60), indicators(g)]), method=method,
                       penalties=[Smooth(slice(1, 13), [np.eye(12), 2.0 * np.eye(12)], "g")])
    return model, {"log_lambda[g.0]", "log_lambda[g.1]"}


@pytest.mark.parametrize("method", ["REML", "ML", "Laplace"])
@pytest.mark.parametrize("case", [one_row_a_group, one_row_a_level, as_many_effects_as_rows,
                                  one_factor_twice, one_column_twice, one_matrix_twice])
def test_valleys_are_named(case, method):
    for seed in SEEDS:
        model, names = case(np.random.default_rng(seed), method)
        fit = rs.fit_reml(model)
        if {name for name, _ in fit.limits} & names:  # the optimum is that of the smaller model
            continue
        assert not fit.converged
        assert fit.message.startswith("V is flat along a combination of ")
        found = fit.message.removeprefix("V is flat along a combination of ").split(", which")[0]
        assert set(found.split(", ")) == names


def test_effects_that_fixed_effects_hold_already():
    for seed in SEEDS:
        rng, g = np.random.default_rng(seed), np.repeat(np.arange(10), 5)
        fit = rs.fit_reml(MixedModel(rng.normal(size=50), indicators(g), groups=g, Z=np.ones(50)))
        assert not fit.converged and not fit.limits
        assert fit.message.startswith("V does not depend on log_precision[z0]")


def test_one_binary_observation_a_group():
    y = np.random.default_rng(0).integers(0, 2, 60).astype(float)
    for method in ("REML", "ML", "Laplace"):
        fit = rs.fit_reml(MixedModel(y, np.ones(60), groups=np.arange(60), Z=np.ones(60),
                                     family="binomial", method=method))
        assert not fit.converged and "log_precision[z0]" in fit.message
    # two trials tell the spread of the chances
    fit = rs.fit_reml(MixedModel(y, np.ones(60), groups=np.arange(60), Z=np.ones(60), n_trials=2,
                                 family="binomial"))
    assert fit.converged


def test_one_row_a_group_that_can_be_told():
    """Slopes whose spread grows with the covariate, and counts with more than Poisson variance."""
    for seed in SEEDS:
        rng, g = np.random.default_rng(seed), np.arange(80)
        x = rng.normal(size=80)
        y = rng.normal(size=80) + 2.0 * x * rng.normal(size=80)
        assert rs.fit_reml(MixedModel(y, np.ones(80), groups=g, Z=x)).converged
        counts = rng.poisson(np.exp(1.0 + rng.normal(size=80))).astype(float)
        assert rs.fit_reml(MixedModel(counts, np.ones(80), groups=g, Z=np.ones(80),
                                      family="poisson")).converged


@pytest.mark.parametrize("name", MODELS)
def test_sound_models_raise_no_alarm(name):
    fit = rs.fit_reml(MODELS[name]())
    assert fit.converged, fit.message


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_a_flat_strength_inside_its_box_is_a_limit(kind):
    """V is flat in one of two strengths on a block, from the fit on to the end of the box."""
    model = MODELS[f"negative_binomial-{kind}"]()
    fit = rs.fit_reml(model)
    j = model.rho_names.index("log_lambda[t.0]")
    assert fit.converged and model.outer.bounds[j, 0] < fit.rho[j] < model.outer.bounds[j, 1]
    assert ("log_lambda[t.0]", "zero") in fit.limits
    end = fit.rho.copy()
    end[j] = model.outer.bounds[j, 0]
    assert rs.criterion(model, end).value <= fit.criterion + 1e-3


def test_families_at_a_limit_are_limits_and_no_valleys():
    names = set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        counts, reals = rng.poisson(3.0, 60).astype(float), rng.uniform(-1.0, 1.0, 100)
        for y, family in ((counts, "negative_binomial"), (reals, "student_t")):
            fit = rs.fit_reml(MixedModel(y, np.ones(len(y)), family=family))
            assert fit.converged, fit.message
            names |= set(fit.limits)
    assert names == {("log_theta", "infinite"), ("log_df", "infinite")}


def test_valleys_are_looked_for_unless_told_not_to():
    model, _ = one_row_a_group(np.random.default_rng(0), "REML")
    assert rs.fit_reml(model, valleys=False).converged
