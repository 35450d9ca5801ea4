"""Moves of the joint mixture: what they change, and what they lead to."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from reml_sae.datasets import planted_manifolds
from reml_sae.manifolds import Euclidean, get_manifold
from reml_sae.relaxations import joint_mixture, joint_moves
from reml_sae.relaxations.joint_mixture import AtomCodes, JointGrid, JointMixture
from reml_sae.relaxations.joint_moves import Move, Optimum, begin_again, propose
from reml_sae.relaxations.joint_search import search_codes
from reml_sae.relaxations.policy import JointPolicy

POLICY = JointPolicy()


def plant(names, seed=0, n=160, p=8, sd=0.15):
    """White rows of one atom each; the atoms, and the codes that they were made of."""
    made = planted_manifolds(n, p, names, noise_sd=sd, random_state=seed)
    Z = made.Z - made.Z.mean(axis=0)
    atoms = [Euclidean(2, 1) if name == "plane" else get_manifold(name) for name in names]
    codes = AtomCodes(made.support.argmax(axis=1), np.concatenate(made.coordinates, axis=1))
    return Z / np.sqrt((Z**2).mean()), atoms, codes


def optimum(names, codes=None, **given):
    Z, atoms, true = plant(names, **given)
    mixture = JointMixture(Z, JointGrid.of(atoms, POLICY), True, POLICY)
    return Optimum(mixture, mixture.carried(true if codes is None else codes(true)))


def accuracy(labels, true, K):
    table = np.zeros((K, K))
    np.add.at(table, (labels, true), 1.0)
    return table[linear_sum_assignment(-table)].sum() / len(true)


def test_a_mixture_of_some_atoms_is_that_of_their_rows_alone():
    whole = optimum(["circle", "interval", "circle"])
    part = whole._part((0, 2))
    rows = np.flatnonzero(np.isin(whole.codes.labels, (0, 2)))
    Z, atoms, _ = plant(["circle", "interval", "circle"])
    alone = JointMixture(Z[rows], JointGrid.of([atoms[0], atoms[2]], POLICY), True, POLICY)
    codes = AtomCodes((whole.codes.labels[rows] == 2).astype(int),
                      whole.codes.coordinates[rows][:, [0, 2]])
    assert part.value == pytest.approx(alone.carried(codes).value, rel=1e-12)


@pytest.mark.parametrize("kind", joint_moves.KINDS)
def test_moves_give_every_row_an_atom_and_differ_where_they_say(kind):
    start, rng = optimum(["circle", "interval", "circle"]), np.random.default_rng(0)
    made = [move for move in (kind(start, rng) for _ in range(12)) if move is not None]
    assert made
    for move in made:
        assert set(np.unique(move.codes.labels)) <= {0, 1, 2}
        if move.atoms is not None:
            others = ~np.isin(start.codes.labels, move.atoms)
            np.testing.assert_array_equal(move.codes.labels[others], start.codes.labels[others])
            np.testing.assert_array_equal(move.codes.coordinates[others],
                                          start.codes.coordinates[others])


def test_from_a_right_end_no_move_leads_lower_and_coordinates_come_back():
    start, rng = optimum(["circle", "circle"], sd=0.1), np.random.default_rng(0)
    moves = [propose(start, rng) for _ in range(30)]
    again = [begin_again(start, k, rng) for k in (0, 1) for _ in range(5)]
    gains = [start.follow(move).gain for move in moves if move is not None]
    back = [start.follow(move).gain for move in again if move is not None]
    assert max(gains + back) <= start.mixture.alike
    assert sum(gain >= -start.mixture.alike for gain in back) > 3


def test_a_move_back_from_a_wrong_end_is_followed():
    """Atoms of different kinds with each other's rows."""
    names = ["circle", "interval"]
    wrong = optimum(names, lambda true: AtomCodes(1 - true.labels, true.coordinates))
    true = plant(names)[2]
    right = wrong.mixture.carried(true)
    found = wrong.follow(Move(true, (0, 1)))
    assert found.place is not None
    assert found.gain == pytest.approx(wrong.place.value - right.value, abs=1e-6)
    assert found.gain > 20.0


@pytest.mark.parametrize(("names", "n", "p", "sd", "seeds"), [
    (["circle", "plane", "circle"], 140, 6, 0.2, range(6)),
    # the coordinates of the strip hardly ever come right at once, those of the interval do
    (["mobius", "interval"], 80, 5, 0.12, range(2)),
])
def test_the_search_comes_to_the_evidence_of_the_truth(names, n, p, sd, seeds):
    """Where clusters of rows say little: random seeds alone."""
    policy = replace(POLICY, surface_points=100)
    missed = []
    for seed in seeds:
        Z, atoms, true = plant(names, seed, n=n, p=p, sd=sd)
        found = search_codes(Z, atoms, [], True, np.random.default_rng(seed), policy)
        mixture = JointMixture(Z, JointGrid.of(atoms, policy), True, policy)
        ahead = mixture.carried(true).value - mixture.carried(found.codes[0]).value
        right = accuracy(found.codes[0].labels, true.labels, len(names))
        if ahead < -5.0 or right < 0.9:
            missed.append(seed)
    assert not missed


def test_codes_do_not_depend_on_how_many_rows_are_in_memory(monkeypatch):
    found = optimum(["circle", "interval"])
    whole = found.mixture.codes(found.mixture.X, found.place)
    monkeypatch.setattr(joint_mixture, "CHUNK", 7)
    parts = found.mixture.codes(found.mixture.X, found.place)
    np.testing.assert_array_equal(whole.labels, parts.labels)
    np.testing.assert_array_equal(whole.coordinates, parts.coordinates)


def test_a_search_that_is_stopped_returns_what_it_has():
    Z, atoms, true = plant(["circle", "circle"])
    found = search_codes(Z, atoms, [true], True, np.random.default_rng(0), POLICY, lambda: True)
    assert len(found.codes) == 0 and not found.agreed
