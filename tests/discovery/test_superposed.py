"""Rows that use most atoms: their codes are found from nothing, and fits find the planted atoms."""

from dataclasses import replace

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_manifolds, planted_mixed_rows, planted_mixture
from reml_sae.discovery import journal
from reml_sae.discovery.encode import encode
from reml_sae.discovery.first_fit import fit_starts
from reml_sae.discovery.fitting import model_from_codes, rough_fit
from reml_sae.discovery.metric import MetricRows
from reml_sae.discovery.policy import SearchPolicy
from reml_sae.discovery.settle import settle
from reml_sae.discovery.starts.mixed import is_overdispersed
from reml_sae.discovery.starts.protocol import StartProblem
from reml_sae.discovery.starts.registry import find_code_starts
from reml_sae.engine import InnerStatus
from reml_sae.errors import InnerConvergenceError
from reml_sae.models.sae.rows import row_evidence
from tests.discovery.test_discovery import rng, settings, standardised


@pytest.fixture(scope="module")
def three_of_four():
    """A fit of rows that use three of four circles, and its plant."""
    data = planted_manifolds(240, 8, ["circle"] * 4, n_active=3, random_state=3)
    return data, rs.SAEManifold(n_atoms=4, topology=rs.manifolds.Circle(1), assignment="topk",
                                n_active=3, n_init=1).fit(data.Z)


def test_most_atoms_of_a_row(three_of_four):
    data, model = three_of_four
    assert model.converged_
    scores = rs.datasets.recovery_scores(data, model.codes_)
    assert scores.assignment_accuracy > 0.99
    assert max(scores.coordinate_error) < 0.2


def test_a_search_from_nothing_finds_every_row(three_of_four):
    data, model = three_of_four
    arrow = model.build_model(data.Z)
    theta, rho = arrow.initial_theta(), arrow.initial_rho()
    found, active, _ = encode(arrow, theta, rho, SearchPolicy().encode, search_from_state=False)
    excess = row_evidence(arrow.with_state(found, rho, active), found, rho)
    excess -= row_evidence(arrow, theta, rho)
    assert (excess < 0.01).mean() > 0.99


def test_only_rows_that_mix_atoms_are_overdispersed():
    for data, mixes in ((planted_mixture(160, 8, ["circle"] * 2), False),
                        (planted_mixed_rows(160, 8), True)):
        Z = standardised(data.Z)
        own = settings(8)
        atoms = [rs.manifolds.Circle()] * 2
        problem = StartProblem(Z, atoms, own.assign(2), 1, own.policy)
        start = find_code_starts(problem, rng())[0]
        model = model_from_codes(MetricRows.isotropic(Z), atoms, own, start.codes)
        found = rough_fit(model, own, "start")
        assert is_overdispersed(found, own.policy.start.overdispersed) == mixes


@pytest.mark.parametrize(("steps", "kept"), [(40, True), (1, False)])
def test_rows_begin_mixed_only_where_that_comes_to_a_mode(steps, kept):
    Z, policy = standardised(planted_mixed_rows(160, 8).Z), SearchPolicy()
    own = replace(settings(8), policy=replace(
        policy, start=replace(policy.start, mixed_steps=steps)))
    found = fit_starts(MetricRows.isotropic(Z), [rs.manifolds.Circle(1)] * 2, own, rng())
    assert found.result.inner.status is not InnerStatus.MAX_ITER
    assert ((found.model.active.sum(axis=1) > 1).mean() > 0.5) == kept


def test_a_rough_fit_is_kept_where_reml_reaches_no_state(monkeypatch):
    Z = standardised(planted_mixture(80, 5, ["circle"]).Z)
    start = fit_starts(MetricRows.isotropic(Z), [rs.manifolds.Circle()], settings(5), rng())

    def fail(*_, **__):
        raise InnerConvergenceError("no state")

    monkeypatch.setattr(journal, "fit_reml", fail)
    kept = settle(start, settings(5))
    assert kept.model is start.model
    assert not kept.result.converged and "no usable state" in kept.result.message
    np.testing.assert_array_equal(kept.result.rho, start.result.rho)
