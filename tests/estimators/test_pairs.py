"""Every kind of penalty, families and assignments by turns: a whole use, or refused before work.

A fit of one outer step, then everything that a user does with it; or an `InputError` that names the
kind and what it does not go with, before any start is looked for or any inner problem solved.
"""

import sys
import warnings
from functools import partial

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.diagnostics import checks
from reml_sae.discovery import first_fit
from reml_sae.discovery.fitting import Settings
from reml_sae.discovery.policy import SearchPolicy, SettlePolicy
from reml_sae.errors import ConvergenceWarning, DataWarning, InputError
from reml_sae.estimators import sae_manifold
from reml_sae.families import get_family
from tests.models.sae.kinds import CARRIED, REFUSED, Kind, N, P

FAMILIES = {
    "gaussian": ("gaussian", [-1.0]),
    "poisson": ("poisson", []),
    "binomial": ({"family": "binomial", "n_trials": 4}, []),
    "gamma": ("gamma", [-1.0]),
    "negative_binomial": ("negative_binomial", [2.0]),
    "student_t": ("student_t", [-1.5, 1.5]),
    "tweedie": ("tweedie", [-1.0, 0.3]),
}
KINDS = [*CARRIED, *(Kind(config, atoms, "refused") for config, atoms in REFUSED)]
ASSIGNMENTS = ["softmax", "topk", "ordered_beta_bernoulli", "threshold_gate"]
FEW_DRAWS = 25
APART = 0, 2, 4
"""Families that a kind is carried with, counted on from its own number. Losses and penalties add up
and do not see each other; what refuses a pair may see both, and is tried with all."""


def data(family):
    """Rows (N, P) about a circle, on the scale of the family's link."""
    config, psi = FAMILIES[family]
    rng = np.random.default_rng(0)
    t = rng.uniform(-np.pi, np.pi, N)
    frame = np.linalg.qr(rng.normal(size=(P, 2)))[0]
    eta = 1.5 * np.column_stack([np.cos(t), np.sin(t)]) @ frame.T
    return get_family(config).sample(rng, eta, np.array(psi))


@pytest.fixture
def work(monkeypatch):
    """A list that grows with every start that is looked for and every inner solve."""
    done = []

    def counted(function):
        def call(*args, **kwargs):
            done.append(function.__name__)
            return function(*args, **kwargs)
        return call

    criterion = sys.modules["reml_sae.engine.criterion"]
    monkeypatch.setattr(criterion, "solve_inner", counted(criterion.solve_inner))
    monkeypatch.setattr(first_fit, "find_code_starts", counted(first_fit.find_code_starts))
    # one round is enough to meet every part
    policy = SearchPolicy(settle=SettlePolicy(most_rounds=1, most_rough_rounds=1))
    monkeypatch.setattr(sae_manifold, "Settings", partial(Settings, policy=policy))
    certificate = partial(checks.laplace_certificate, n_draws=FEW_DRAWS)
    monkeypatch.setattr(checks, "laplace_certificate", certificate)
    return done


def use(kind, family, assignment, work):
    Z = data(family)
    model = rs.SAEManifold(
        n_atoms=len(kind.atoms), topology=list(kind.atoms), assignment=assignment,
        family=FAMILIES[family][0], penalties=[kind.config, *kind.beside], n_init=1, max_outer=1,
        demote=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", DataWarning)
        try:
            model.fit(Z)
        except InputError as error:
            assert not work, error
            assert kind.config["kind"] in str(error)
            return str(error)
        assert work
        codes = model.encode(Z)
        # which is `predict`, whose codes are those
        assert np.isfinite(model.reconstruct(codes)).all() and np.isfinite(codes.objective).all()
        assert np.isfinite(model.criterion_)
        model.summary()
    assert len(model.rho_) == len(model.rho_names_) == (
        sum(term.penalty.rho_count() for term in model._fitted.penalties)
        + len(FAMILIES[family][1]))
    return None


def pairs():
    """So that each kind meets three assignments, and each family every one."""
    families = list(FAMILIES)
    for number, kind in enumerate(KINDS):
        others = range(len(families)) if kind.variant == "refused" else APART
        for turn, apart in enumerate(others):
            family = families[(number + apart) % len(families)]
            assignment = ASSIGNMENTS[(number + turn) % len(ASSIGNMENTS)]
            yield pytest.param(kind, family, assignment, id=f"{family}-{assignment}-{kind.name}")


@pytest.mark.parametrize(("kind", "family", "assignment"), list(pairs()))
def test_pairs(kind, family, assignment, work):
    """What gates refuse is fitted under softmax."""
    refusal = use(kind, family, assignment, work)
    if refusal and assignment != "softmax":
        refusal = use(kind, family, "softmax", work)
    if kind.variant == "refused":
        assert refusal or kind.config["kind"] == assignment  # a prior on those gates
    elif refusal:
        # only what names outer parameters can miss those of a family
        assert kind.config["kind"] == "log_strength_prior" and family in refusal
