"""Rows of atoms that cross each other find the atom that they are of."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_manifolds, recovery_scores
from reml_sae.discovery import search
from reml_sae.discovery.codes import Candidate, hard_shares
from reml_sae.discovery.moves.regroup import Regroup
from reml_sae.discovery.starts.protocol import CodeStart
from reml_sae.discovery.starts.registry import find_code_starts


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No other move mends what it misses."""
    monkeypatch.setattr(search, "MOVES", (Regroup(),))


def problem(seed):
    """Two circles that cross, in three dimensions, and one apart from them."""
    return planted_manifolds(90, 6, ["circle"] * 3, noise_sd=0.12, random_state=seed)


def in_halves(plant, assignment):
    """A start whose first two atoms have half of each other's rows."""
    t = np.concatenate(plant.coordinates, axis=1)
    labels = plant.labels.copy()
    for k in (0, 1):
        labels[(plant.labels == k) & (t[:, k] > 0.0)] = 1 - k
    support = labels[:, None] == np.arange(3)
    amplitudes = (hard_shares(labels, 3, 0.95) if assignment == "softmax"
                  else support.astype(float))
    shared = np.where(plant.labels == 0, t[:, 0], t[:, 1])
    start = CodeStart(Candidate(support, amplitudes,
                                np.column_stack([shared, shared, t[:, 2]])), None)
    return lambda problem, *rest: ([start] if len(problem.atoms) == 3
                                   else find_code_starts(problem, *rest))


def accuracy(seed, assignment, monkeypatch):
    plant = problem(seed)
    monkeypatch.setattr("reml_sae.discovery.first_fit.find_code_starts",
                        in_halves(plant, assignment))
    model = rs.SAEManifold(n_atoms=3, assignment=assignment, noise="isotropic",
                           n_init=1).fit(plant.Z)
    return model, recovery_scores(plant, model.codes_).assignment_accuracy


def test_rows_that_began_with_the_wrong_atoms(monkeypatch):
    found = [accuracy(seed, assignment, monkeypatch)
             for seed, assignment in ((1, "softmax"), (3, "topk"))]
    assert min(share for _, share in found) > 0.9
    assert any(move.kind == "regroup" and move.accepted
               for model, _ in found for move in model.search_.moves)


@pytest.mark.parametrize(("shape", "n_atoms", "offset"), [("linear", 3, 10.0), ("circle", 2, 0.0)],
                         ids=["apart", "all there is"])
def test_atoms_without_a_problem_of_their_own_are_left_alone(monkeypatch, shape, n_atoms, offset):
    """Three lines far from each other share no row; the starts of two circles were their own."""
    plant = planted_manifolds(60, 6, [shape] * n_atoms, noise_sd=0.1, offset=offset)
    monkeypatch.setattr("reml_sae.discovery.moves.regroup.fit_starts",
                        lambda *_: pytest.fail("nothing is to be shared out"))
    rs.SAEManifold(n_atoms=n_atoms, topology=shape, assignment="topk",
                   noise="isotropic").fit(plant.Z)
