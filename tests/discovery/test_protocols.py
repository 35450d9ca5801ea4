"""Starts, moves and thresholds of others: one class in one tuple, one policy that a fit keeps."""

import json
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from typing import ClassVar

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.discovery import search
from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.first_fit import fit_starts
from reml_sae.discovery.judge import try_move
from reml_sae.discovery.metric import MetricRows
from reml_sae.discovery.moves import registry as moves
from reml_sae.discovery.moves.protocol import Context, Proposal, refitted
from reml_sae.discovery.moves.remove import Remove
from reml_sae.discovery.policy import MovePolicy, SearchPolicy
from reml_sae.discovery.starts import registry as starts
from reml_sae.discovery.starts.protocol import CodeStart, StartProblem
from reml_sae.discovery.strengths import known_of
from reml_sae.discovery.structure import Structure
from reml_sae.errors import InputError
from reml_sae.io import read_artifact, write_artifact
from reml_sae.manifolds import Circle
from reml_sae.relaxations.policy import GridPolicy, RelaxationPolicy
from tests.discovery.test_discovery import (
    CIRCLE,
    fitted,
    halved,
    rng,
    settings,
    standardised,
    two_circles,
)

OPEN = Structure(None, None, 16, False)


class Planted:
    """The angles that the rows were made of."""

    def __init__(self, t):
        self.t = t

    def propose(self, problem, rng):
        assert problem.is_partition and problem.dims == [2]
        n = len(self.t)
        return [CodeStart(Candidate(np.ones((n, 1), bool), np.ones((n, 1)), self.t), None)]


def test_a_start_of_others_competes(monkeypatch):
    data = planted_circles(80, 5, 1, noise_sd=0.1)
    Z, own = standardised(data.Z), settings(5)
    monkeypatch.setattr(starts, "STARTS", (Planted(data.coordinates[0]),))
    alone = fit_starts(MetricRows.isotropic(Z), [CIRCLE], own, rng()).result.criterion
    monkeypatch.undo()
    monkeypatch.setattr(starts, "STARTS", (*starts.STARTS, Planted(data.coordinates[0])))
    assert fit_starts(MetricRows.isotropic(Z), [CIRCLE], own, rng()).result.criterion <= alone


@dataclass
class Again:
    """The same model, fitted again from its own codes."""

    limit: float
    names_only: bool = False
    error: Exception | None = None
    answers: list = None
    kind: ClassVar[str] = "again"

    def applies(self, fitted, context):
        return True

    def propose(self, fitted, context):
        def fit(own):
            assert own.curvature == "majorizer" and not own.callbacks
            if self.error:
                raise self.error
            model = fitted.model
            return refitted(fitted, model.atoms, fitted.codes, known_of(fitted), own)

        self.answers = [fitted]
        for k in range(2):
            fitted = yield Proposal(k, "from its codes", self.limit, fit)
            self.answers.append(fitted)


def tried(move, own=None):
    start = fitted(two_circles, "softmax", CIRCLE, CIRCLE)
    return start, *try_move(move, start, Context(OPEN, own or settings(6), rng()))


def test_the_judge_answers_with_the_model_that_is_left():
    move = Again(limit=1e3)
    start, found, records = tried(move)
    assert [(r.kind, r.atom, r.accepted) for r in records] == [("again", 0, True),
                                                               ("again", 1, True)]
    assert move.answers[0] is start and move.answers[-1] is found is not start
    assert records[0].before == start.result.criterion
    assert records[1].after == found.result.criterion


def test_what_is_refused_leaves_the_fit_as_it_is():
    move = Again(limit=-1e3)
    start, found, records = tried(move)
    assert found is start and all(answer is start for answer in move.answers)
    assert len(records) == 2 and not any(record.accepted for record in records)


def test_what_is_only_named_leaves_the_fit_as_it_is():
    start, found, records = tried(Again(limit=1e3, names_only=True))
    assert found is start and [record.accepted for record in records] == [False, False]
    assert tried(Again(limit=-1e3, names_only=True))[2] == []


@pytest.mark.parametrize(("error", "detail"), [
    (InputError("no such penalty"), "not allowed, no such penalty"),
    (rs.errors.InnerConvergenceError("no state"), "no usable state")])
def test_what_cannot_be_fitted_is_recorded(error, detail):
    start, found, records = tried(Again(limit=1e3, error=error))
    assert found is start
    assert all(detail in record.detail and np.isnan(record.after) for record in records)


def test_moves_after_an_accepted_one_are_given_a_settled_fit(monkeypatch):
    """An atom that was begun anew only where no move had come before stayed at a wrong optimum."""
    seen = []

    class Seeing(Again):
        def applies(self, fitted, context):
            seen.append(fitted.result.converged)
            return False

    start, rough, _ = tried(Again(limit=1e3))
    monkeypatch.setattr(search, "MOVES", (Again(limit=1e3), Seeing(limit=0.0)))
    found, records = search._improve(start, Context(OPEN, settings(6), rng()))
    assert len(records) == 2 and not rough.result.converged
    assert seen == [True] and found.result.converged


def test_an_interrupt_keeps_the_fit_and_marks_it():
    start, found, records = tried(Again(limit=1e3, error=KeyboardInterrupt()))
    assert found.model is start.model and found.result.interrupted and not records


def test_a_move_of_others_is_tried(monkeypatch):
    monkeypatch.setattr("reml_sae.discovery.search.MOVES", (*moves.MOVES, Again(limit=-1e3)))
    data = planted_circles(80, 5, 1, noise_sd=0.1)
    model = rs.SAEManifold(n_atoms=1, n_init=1).fit(data.Z)
    assert model.search_.moves[-1].kind == "again"


# --- policy ----------------------------------------------------------------------------------


def test_a_margin_of_the_policy_is_the_margin():
    start = halved("softmax")
    timid = replace(settings(6), policy=SearchPolicy(move=MovePolicy(margin=1e6)))
    found, records = try_move(Remove(), start, Context(OPEN, timid, rng()))
    assert found is start and len(records) == 3


def test_a_policy_is_plain_frozen_values():
    policy = SearchPolicy(move=MovePolicy(margin=5.0))
    values = json.loads(json.dumps(policy.to_dict()))
    assert SearchPolicy.from_dict(values) == policy
    with pytest.raises(FrozenInstanceError):
        policy.move.margin = 1.0
    del values["move"]["patience"], values["encode"]
    values["start"]["of_another_version"] = 1.0
    assert SearchPolicy.from_dict(values) == policy


def test_an_artifact_keeps_the_policy_and_may_lack_it(tmp_path):
    data = planted_circles(80, 5, 1, noise_sd=0.1)
    path = tmp_path / "fit.safetensors"
    rs.SAEManifold(n_atoms=1, n_init=1).fit(data.Z).save(path)
    assert rs.load(path).search_.policy == SearchPolicy()
    tensors, metadata = read_artifact(path)
    assert set(metadata["search"]["policy"]) == {item.name for item in fields(SearchPolicy)}
    metadata["search"]["policy"]["encode"]["pursuit"]["beams"] = 2
    write_artifact(path, tensors, metadata)
    assert rs.load(path).search_.policy.encode.pursuit.beams == 2
    del metadata["search"]["policy"]
    write_artifact(path, tensors, metadata)
    old = rs.load(path)
    assert old.search_.policy == SearchPolicy() and len(old.encode(data.Z)) == 80


def test_relaxations_hear_of_the_policy():
    data = planted_circles(80, 5, 1, noise_sd=0.1)
    few = RelaxationPolicy(grid=GridPolicy(same=-1.0))
    found = [len(starts.find_code_starts(
        StartProblem(standardised(data.Z), [CIRCLE], settings(5).assign(1), 1, policy), rng()))
        for policy in (SearchPolicy(), SearchPolicy(relaxation=few))]
    assert found[0] == 1 < found[1]


# --- what a topology says of itself ----------------------------------------------------------


class Loop(Circle):
    """A circle by another name."""

    name: ClassVar[str] = "loop"


def test_a_ring_by_another_name_is_fitted_as_a_ring():
    Z = planted_circles(100, 6, 2, noise_sd=0.1).Z
    ours, theirs = (rs.SAEManifold(n_atoms=2, topology=[kind(2)] * 2, n_init=2,
                                   noise="isotropic").fit(Z)
                    for kind in (Circle, Loop))
    assert theirs.criterion_ == ours.criterion_
    assert theirs.rho_names_ == ours.rho_names_
