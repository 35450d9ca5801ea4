"""The outer loop follows every schedule to its end, shows all of it, and converges there."""

from dataclasses import replace

import numpy as np
import pytest

import reml_sae as rs
from reml_sae import penalties as pen
from reml_sae.models import bind_penalty
from tests.models.sae.kinds import CARRIED, P
from tests.penalties.slow_schedules import SLOW

KINDS = {kind.name: kind for kind in CARRIED}
slow = pytest.mark.parametrize("config", SLOW, ids=lambda config: " ".join(map(str, (
    config["kind"], config["w_start"], "to", config["w_end"]))))


def annealed(fit, name):
    return np.array([row.weights[name] for row in fit.trace if row.stage == "anneal"])


@slow
def test_the_trace_shows_every_weight_up_to_the_end(config):
    path = pen.ScalarWeightSchedule(**config)
    fit = rs.fit_reml(KINDS["orthogonality"].model(weight_schedule=config), max_outer=1)
    name = "orthogonality.coordinates[0]"
    weights = annealed(fit, name)
    assert len(weights) == path.end + 1 and weights[-1] == config["w_end"]
    np.testing.assert_allclose(weights, [path.weight_at(i) for i in range(path.end + 1)])
    later = [row for row in fit.trace if row.stage != "anneal"]
    assert later and all(row.weights[name] == config["w_end"] for row in later)


@pytest.mark.parametrize("config", [SLOW[0], SLOW[5], SLOW[7]], ids=lambda config: config["kind"])
def test_the_fit_is_the_one_at_the_end_weight(config):
    kind = KINDS["orthogonality"]
    fit = rs.fit_reml(kind.model(weight_schedule=config))
    fixed = rs.fit_reml(kind.model(weight=config["w_end"]))
    assert fit.converged and fixed.converged
    assert fit.criterion == pytest.approx(fixed.criterion, abs=1e-5)


def test_the_slowest_of_several_schedules_ends_the_annealing():
    quick = {"kind": "geometric", "w_start": 8.0, "w_end": 2.0, "rate": 0.3}
    long = {"kind": "linear", "w_start": 3.0, "w_end": 1.0, "steps": 30}
    kind = KINDS["orthogonality"]
    model = kind.model(weight_schedule=quick)
    other = kind.penalty(weight_schedule=long)
    both = model.with_changes(terms=[*model.terms, *bind_penalty(other, kind.atoms, P)])
    assert model.schedule_end == pen.ScalarWeightSchedule(**quick).end < 30 == both.schedule_end
    assert both.settled().schedule_end is None
    assert [term.penalty.weight for term in both.apply_schedule(30).terms] == [2.0, 1.0]


ENTROPY = replace(KINDS["softmax_assignment_sparsity"], options={
    **KINDS["softmax_assignment_sparsity"].options, "dispersion": 0.1})


@pytest.mark.parametrize("changes", [
    {"weight": 0.0},
    {"weight_schedule": {"kind": "linear", "w_start": 3.0, "w_end": 0.0, "steps": 4}},
], ids=["held", "scheduled"])
def test_an_entropy_that_ends_at_weight_zero_owns_no_strength_and_leaves_the_flat_prior(changes):
    model = ENTROPY.model(**changes)
    assert not any("softmax" in name for name in model.rho_names)
    fit = rs.fit_reml(model)
    assert fit.converged and np.isfinite(fit.criterion)
    # without any penalty on the logits, the prior on the simplex is flat
    flat = model.with_changes(terms=[term for term in model.terms if term.target != "logits"])
    assert rs.criterion(flat, fit.rho, theta=fit.theta).value == pytest.approx(
        fit.criterion, abs=1e-8)


def test_an_entropy_that_starts_at_weight_zero_is_learned_at_the_end():
    config = {"kind": "linear", "w_start": 0.0, "w_end": 2.0, "steps": 4}
    fit = rs.fit_reml(ENTROPY.model(weight_schedule=config), max_outer=3)
    name = "softmax_assignment_sparsity.logits"
    np.testing.assert_allclose(annealed(fit, name), [0.0, 0.5, 1.0, 1.5, 2.0])
    assert name in dict(fit.trace[len(fit.trace) - 1].rho)
    assert np.isfinite(fit.gradient).all()


def test_a_start_of_strengths_is_that_at_the_end_of_the_schedule():
    config = {"kind": "linear", "w_start": 0.0, "w_end": 4.0, "steps": 4}
    penalty = pen.SoftmaxAssignmentSparsityPenalty(2, 1.0, weight_schedule=config)
    rho = penalty.rho_at(np.log(6.0))
    assert penalty.settled().strengths(rho) == pytest.approx([6.0])
    assert pen.SoftmaxAssignmentSparsityPenalty(2, 1.0, learnable=False).rho_at(1.0).size == 0
