"""`max_outer` bounds the iterations of a fit, and `max_time` ends it wherever the fit may be."""

import itertools
import warnings
from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles, planted_manifolds
from reml_sae.discovery import journal, search
from reml_sae.discovery.fitting import Settings
from reml_sae.discovery.policy import SearchPolicy, TopologyPolicy
from reml_sae.engine import Deadline, OuterStatus, deadline, inner
from reml_sae.engine.deadline import Stopped
from reml_sae.errors import ConvergenceWarning, DataWarning, InputError
from reml_sae.estimators import sae_manifold
from reml_sae.manifolds import Circle, Euclidean

Z, FEW = planted_circles(60, 4, 1, noise_sd=0.2).Z, planted_circles(36, 3, 1, noise_sd=0.2).Z
TWO = planted_circles(48, 5, 2, noise_sd=0.05).Z
PAIRS = planted_manifolds(24, 4, ["circle"] * 2, n_active=2, noise_sd=0.2).Z
FEW_TOPOLOGIES = (Euclidean(1, 1), Circle(1))
KINDS = {
    "circle": {"n_atoms": 1},
    "two circles": {"n_atoms": 2, "topology": Circle(1), "n_init": 2, "noise": "isotropic"},
    "two of two": {"n_atoms": 2, "topology": Circle(1), "assignment": "topk", "n_active": 2,
                   "n_init": 1, "noise": "isotropic"},
    "exact": {"n_atoms": 1, "curvature": "exact"},
    "any shape": {"n_atoms": 1, "topology": "auto", "n_init": 1},
    "any shapes": {"n_atoms": 2, "topology": "auto", "n_init": 1, "demote": False,
                   "noise": "isotropic"},
    "any number": {"n_atoms": "auto", "max_atoms": 2, "n_init": 1, "noise": "isotropic"},
}
PLANTED = {"two circles": TWO, "two of two": PAIRS, "any shapes": TWO}
"""Rows of kinds with two atoms; of others they are those of one circle."""


def fit(data=Z, **parameters):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = rs.SAEManifold(**parameters).fit(data)
    said = [str(item.message) for item in caught if item.category is ConvergenceWarning]
    assert bool(said) == (not found.converged_)
    assert all(found.message_ in text for text in said)
    return found


@cache
def fitted():
    return fit(n_atoms=1)


@cache
def one_circle():
    """The arrow model of a fit."""
    return fitted().build_model(Z)


def assert_usable(found, data=Z):
    assert np.isfinite(found.criterion_)
    assert np.isfinite(found.predict(data)).all()
    assert found.summary()


@pytest.mark.parametrize("max_outer", [1, 7])
@pytest.mark.parametrize("kind", ["circle", "two circles", "two of two", "exact"])
def test_max_outer_bounds_the_trace(kind, max_outer):
    data = PLANTED.get(kind, Z)
    found = fit(data, **KINDS[kind], max_outer=max_outer)
    assert 1 <= found.n_iter_ == len(found.trace_) <= max_outer
    assert_usable(found, data)
    if not found.converged_:
        assert "budget ran out" in found.message_


@pytest.mark.parametrize(("seed", "max_outer"), [(0, 3), (1, 16)])
def test_max_outer_holds_over_rounds(seed, max_outer):
    """Mixed rows change their atoms between rounds."""
    data = planted_circles(40, 5, 2, noise_sd=0.4, random_state=seed).Z
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", DataWarning)
        found = rs.SAEManifold(n_atoms=2, noise="isotropic", max_outer=max_outer,
                               n_init=1).fit(data)
    assert len(found.trace_) <= max_outer


@pytest.mark.parametrize("max_outer", [0, 1, 3, 7])
def test_max_outer_of_fit_reml(max_outer):
    model = one_circle()
    model = model.with_state(model.initial_theta(), model.initial_rho() + 1.0)
    found = rs.fit_reml(model, max_outer=max_outer)
    assert found.n_iter == len(found.trace) <= max_outer
    assert np.isfinite(found.gradient).all()
    assert found.converged or "budget ran out" in found.message


@pytest.mark.parametrize("budget", [{"max_outer": -1}, {"max_time": -1.0}, {"max_time": np.nan},
                                    {"rough": True, "max_outer": 0}])
def test_wrong_budgets_of_fit_reml(budget):
    with pytest.raises(InputError, match=list(budget)[-1]):
        rs.fit_reml(one_circle(), **budget)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, "1"])
def test_wrong_max_time(value):
    with pytest.raises(InputError, match="max_time"):
        rs.SAEManifold(max_time=value).fit(Z)


@pytest.fixture
def looks(monkeypatch):
    """A clock that ticks once whenever it is looked at."""
    ticks = itertools.count()
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    return ticks


@pytest.mark.parametrize("kind", KINDS)
def test_time_may_run_out_anywhere(kind, looks, monkeypatch):
    """Whichever look at the clock is the first that is too late, the fit keeps its best state."""
    monkeypatch.setattr(search, "AUTO_TOPOLOGIES", FEW_TOPOLOGIES)
    policy = SearchPolicy(topology=TopologyPolicy(n_permutations=3, least_permutations=2))
    monkeypatch.setattr(sae_manifold, "Settings", partial(Settings, policy=policy))
    data = PLANTED.get(kind, FEW)
    fit(data, **KINDS[kind], max_time=1e9)
    n_looks = next(looks)
    assert n_looks > 10
    # the last looks may come when nothing is left to do
    for late in np.unique(np.geomspace(1, 0.6 * n_looks, 3)[1:].astype(int)):
        found = fit(data, **KINDS[kind], max_time=late - 0.5)
        assert not found.converged_, late
        assert found.message_ == OuterStatus.OUT_OF_TIME.value, (late, found.message_)
        assert_usable(found, data)


@pytest.mark.parametrize("sharp", [False, True])
def test_time_is_looked_at_before_every_step(sharp, monkeypatch):
    """But for those to a first state, where one is needed."""
    steps, looks = [], []
    clock = SimpleNamespace(monotonic=lambda: float(looks.append(len(steps)) or 0.0))
    monkeypatch.setattr(deadline, "time", clock)
    descent = inner._descent
    monkeypatch.setattr(inner, "_descent", lambda *state: steps.append(0) or descent(*state))
    model = one_circle()
    model = model.with_state(model.initial_theta(), model.initial_rho() + 1.0)
    assert rs.fit_reml(model, max_time=Deadline(1.0, sharp=sharp)).converged
    assert len(steps) > 10 and np.diff(looks).max() == 1
    assert (looks[0] == 0) == sharp
    steps.clear()
    if sharp:
        with pytest.raises(Stopped):
            rs.fit_reml(model, max_time=Deadline(0.0, sharp=True))
    else:
        assert rs.fit_reml(model, max_time=Deadline(0.0)).interrupted
    assert bool(steps) != sharp


def test_out_of_time_one_fit_is_made(monkeypatch):
    """None of the shapes that are compared: the first of them is taken."""
    made = []
    fit_reml = journal.fit_reml
    monkeypatch.setattr(search, "AUTO_TOPOLOGIES", FEW_TOPOLOGIES)

    def counted(*arguments, **options):
        made.append(fit_reml(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(journal, "fit_reml", counted)
    assert_usable(fit(FEW, **KINDS["any shape"], max_time=1e-9), FEW)
    assert len(made) == 1


def test_no_limit_changes_nothing():
    assert fit(n_atoms=1, max_time=1e6).criterion_ == fitted().criterion_
