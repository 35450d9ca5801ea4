"""Separated data: columns are named, the fit is not converged, and sound data raise no alarm."""

import numpy as np
import pytest
from scipy.optimize import linprog

import reml_sae as rs
from reml_sae.families import Binomial, get_family
from reml_sae.models import MixedModel, Smooth, mixed_summary
from reml_sae.models.mixed.separation import separating_columns
from tests.models.mixed.systems import FAMILIES, build, bumps, second_difference

N, GROUPS = 160, 12
COUNTS = {"poisson": [], "negative_binomial": [0.8], "tweedie": [-0.5, 0.0]}


def base(seed):
    """Groups, a covariate and a factor with three levels."""
    rng = np.random.default_rng(seed)
    g = np.r_[np.arange(GROUPS), rng.integers(0, GROUPS, N - GROUPS)]
    return rng, g, rng.normal(size=N), rng.integers(0, 3, N)


def response(rng, family, eta):
    if isinstance(family, Binomial):
        return family.sample(rng, eta, np.zeros(0))
    return family.sample(rng, eta + 0.5, np.array(COUNTS[family.name]))


ENDS = [("binomial", Binomial()), ("binomial of 3", Binomial(n_trials=3)),
        *((name, get_family(name)) for name in COUNTS)]


def level(rng, family, x, f):
    """A level whose responses are all at an end, in a column of its own."""
    y = response(rng, family, 0.3 * x)
    own = f == 1
    y[own] = 0.0
    return y, {"one": np.ones(N), "x": x, "b": own * 1.0, "c": (f == 2) * 1.0}, {"b"}


def other_coding(rng, family, x, f):
    """The reference level itself: its mean is the intercept, and the others are relative to it."""
    y = response(rng, family, 0.3 * x)
    y[f == 0] = 0.0
    return y, {"one": np.ones(N), "x": x, "b": (f == 1) * 1.0, "c": (f == 2) * 1.0}, {
        "one", "b", "c"}


def interaction(rng, family, x, f):
    """One cell of a two-way table."""
    y = response(rng, family, 0.3 * x)
    side = rng.integers(0, 2, N)
    cell = (f == 2) & (side == 1)
    y[cell] = 0.0
    return y, {"one": np.ones(N), "b": (f == 1) * 1.0, "c": (f == 2) * 1.0, "side": side * 1.0,
               "b:side": (f == 1) * side * 1.0, "c:side": cell * 1.0}, {"c:side"}


def two_levels(rng, family, x, f):
    y = response(rng, family, 0.3 * x)
    y[f > 0] = 0.0
    return y, {"one": np.ones(N), "x": x, "b": (f == 1) * 1.0, "c": (f == 2) * 1.0}, {"b", "c"}


def threshold(rng, family, x, f):
    """A covariate that is zero but where the response is free to vary."""
    y = response(rng, family, 0.3 * (f == 1))
    dose = np.maximum(x, 0.0)
    y[x > 0.0] = 0.0
    return y, {"one": np.ones(N), "b": (f == 1) * 1.0, "dose": dose}, {"dose"}


SHAPES = (level, other_coding, interaction, two_levels, threshold)


def model_of(y, columns, g, family, method="REML", **extra):
    return MixedModel(y, np.column_stack(list(columns.values())), x_names=list(columns),
                      groups=g, Z=np.ones(N), family=family, method=method, **extra)


def named(message):
    return set(message.split(" separate")[0].split(", ")) if " separate" in message else set()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "family"), ENDS)
def test_separated_columns_are_named(name, family, shape):
    for seed in range(5):
        rng, g, x, f = base(seed)
        y, columns, expected = shape(rng, family, x, f)
        assert named(model_of(y, columns, g, family).objection(())) == expected, (name, seed)


@pytest.mark.parametrize("margin", [1e-4, 0.1])
def test_complete_separation_by_a_covariate(margin):
    for seed in range(5):
        rng, g, x, f = base(seed)
        x = x + margin * np.sign(x)
        columns = {"one": np.ones(N), "x": x, "noise": rng.normal(size=N), "b": (f == 1) * 1.0}
        for scale in (1.0, 1e-3, 1e5):
            y = (x > 0.0).astype(float)
            found = model_of(y, {**columns, "x": scale * x}, g, Binomial()).objection(())
            # the intercept alone tells nothing: it is named where 0 is not the only cut
            assert "x" in named(found) and named(found) <= {"one", "x"}


@pytest.mark.parametrize("method", ["REML", "ML", "Laplace"])
@pytest.mark.parametrize("family", ["binomial", "poisson", "negative_binomial"])
def test_separated_fit_is_not_converged(family, method):
    fam = get_family(family)
    rng, g, x, f = base(3)
    y, columns, _ = level(rng, fam, x, f)
    model = model_of(y, columns, g, fam, method)
    fit = rs.fit_reml(model)
    assert not fit.converged
    assert fit.message.startswith("b separates the data") and "Smooth" in fit.message
    assert "NOT CONVERGED: b separates" in str(mixed_summary(model, fit))
    # each remedy of the message works
    held = model_of(y, columns, g, fam, method, penalties=[Smooth([2, 3], [np.eye(2)])])
    assert rs.fit_reml(held).converged
    del columns["b"]
    assert rs.fit_reml(model_of(y, columns, g, fam, method)).converged


def test_a_treatment_whose_rows_are_all_one():
    rng, g, _, _ = base(8)
    y = rng.binomial(1, 0.4, N).astype(float)
    treatment = (np.arange(N) < 34).astype(float)
    y[:34] = 1.0
    columns = {"one": np.ones(N), "treatment": treatment}
    fit = rs.fit_reml(model_of(y, columns, g, Binomial()))
    assert not fit.converged and fit.message.startswith("treatment separates")
    y[0] = 0.0  # one failure is enough
    assert rs.fit_reml(model_of(y, columns, g, Binomial())).converged


def test_null_space_of_a_smooth_and_a_vanished_penalty():
    rng, g, x, f = base(5)
    t = np.linspace(-1.0, 1.0, N)
    y = (t > 0.1).astype(float)
    basis = bumps(t, 6) + 0.3 * np.linspace(-1, 1, 6)
    model = MixedModel(y, np.column_stack([np.ones(N), basis]), family="binomial",
                       penalties=[Smooth(slice(1, 7), [second_difference(6)], "trend")])
    assert "the unpenalised part of trend" in model.objection(())
    y, columns, _ = level(rng, Binomial(), x, f)
    model = model_of(y, columns, g, Binomial(), penalties=[Smooth([2], [np.eye(1)], "b")])
    assert model.objection(()) == ""
    assert model.objection([("log_lambda[b]", "infinite")]) == ""
    assert named(model.objection([("log_lambda[b]", "zero")])) == {"b"}


def test_no_false_alarm_on_sound_data():
    """Data with an overlap, by a programme that knows nothing of cones of rows or null spaces."""
    alarms = sound = 0
    for seed in range(260):
        rng = np.random.default_rng(seed)
        n, p = int(rng.integers(12, 80)), int(rng.integers(1, 5))
        X = np.column_stack([np.ones(n), rng.normal(size=(n, p)), rng.integers(0, 2, n)])
        X = X[:, np.r_[True, (X[:, 1:] != X[:1, 1:]).any(axis=0)]]
        family = Binomial(n_trials=1 + seed % 2) if seed % 3 else get_family("poisson")
        y = response(rng, family, X @ rng.normal(size=X.shape[1]) - 0.5) if seed % 3 else (
            rng.poisson(np.exp(0.4 * X @ rng.normal(size=X.shape[1]) - 1.0)).astype(float))
        side = family.open_side(y)
        found = separating_columns(X, side, [str(j) for j in range(X.shape[1])])
        assert bool(found) == dense_separation(X, side), seed
        sound += not dense_separation(X, side)
        alarms += bool(found)
    assert sound >= 200 and alarms >= 10


def dense_separation(X, side):
    """The textbook's programme: max sum s x^T d over |d| <= 1, all inequalities at once."""
    is_open = side != 0
    signed = side[is_open, None] * X[is_open]
    outcome = linprog(-signed.sum(axis=0), A_ub=-signed, b_ub=np.zeros(len(signed)),
                      A_eq=X[~is_open] if (~is_open).any() else None,
                      b_eq=np.zeros((~is_open).sum()) if (~is_open).any() else None,
                      bounds=(-1.0, 1.0), method="highs")
    return outcome.fun < -1e-6


def test_sound_fits_of_all_families_converge_without_an_objection():
    for family in FAMILIES:
        assert build(family).objection(()) == ""


def test_many_rows_need_few_in_the_programme():
    rng = np.random.default_rng(0)
    n = 60_000
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 5))])
    y = rng.binomial(1, 1.0 / (1.0 + np.exp(-X[:, 1]))).astype(float)
    side, names = Binomial().open_side(y), [f"x{j}" for j in range(6)]
    assert separating_columns(X, side, names) == ()
    # the rows that prevent a separation are two of sixty thousand
    y = (X[:, 2] > 0.2).astype(float)
    assert "x2" in separating_columns(X, Binomial().open_side(y), names)
    y[[int(np.argmax(X[:, 2])), int(np.argmin(X[:, 2]))]] = [0.0, 1.0]
    assert separating_columns(X, Binomial().open_side(y), names) == ()
