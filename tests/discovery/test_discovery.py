"""Topologies, structure moves and the number of atoms, on planted shapes and on none."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from reml_sae.assignments import get_assignment
from reml_sae.datasets import gaussian_control, planted_manifolds, planted_mixture
from reml_sae.discovery import topology
from reml_sae.discovery.codes import Candidate, hard_shares
from reml_sae.discovery.first_fit import fit_starts
from reml_sae.discovery.fitting import Settings, model_from_codes, rough_fit
from reml_sae.discovery.joint_topologies import choose_topologies, near_rows
from reml_sae.discovery.judge import try_move
from reml_sae.discovery.local import local_rows
from reml_sae.discovery.metric import MetricRows
from reml_sae.discovery.moves.birth import choose_n_atoms
from reml_sae.discovery.moves.flats import Demote, NameFlatTwin
from reml_sae.discovery.moves.merge import Merge
from reml_sae.discovery.moves.protocol import Context
from reml_sae.discovery.moves.remove import Remove
from reml_sae.discovery.moves.reshape import Reshape
from reml_sae.discovery.policy import SearchPolicy, TopologyPolicy
from reml_sae.discovery.settle import settle
from reml_sae.discovery.strengths import renumbered
from reml_sae.discovery.structure import Structure
from reml_sae.discovery.topology import TopologyChoice, choose_topology
from reml_sae.engine import OuterKey
from reml_sae.errors import InputError
from reml_sae.estimators._validation import default_terms, resolve_terms
from reml_sae.families import Gaussian
from reml_sae.manifolds import Circle, Euclidean, Interval
from reml_sae.penalties import SoftmaxAssignmentSparsityPenalty

pytestmark = pytest.mark.usefixtures("searches_once")

LINE, PLANE, CIRCLE = Euclidean(1, 1), Euclidean(2, 1), Circle(2)
FEW = (LINE, PLANE, CIRCLE)
KINDS = ("softmax", "topk")


def rng():
    return np.random.default_rng(0)


def settings(p, kind="softmax", n_active=1, bind=None):
    def assign(n_atoms):
        return get_assignment(kind, n_atoms, n_active=n_active)

    return Settings(
        bind=bind or (lambda atoms: default_terms(atoms, assign(len(atoms)))), assign=assign,
        curvature="majorizer", max_outer=50, tol=1e-4, n_init=1, callbacks=(), family=Gaussian(),
        offset=np.zeros(p))


def standardised(Z):
    Z = Z - Z.mean(axis=0)
    return Z / np.sqrt(np.mean(Z**2))


@cache
def two_circles():
    return standardised(planted_mixture(120, 6, ["circle"] * 2, noise_sd=0.1).Z)


@cache
def circle_and_line():
    plant = planted_manifolds(160, 6, ["circle", "linear"], noise_sd=0.1, offset=3.0,
                              orthogonal=True)
    return standardised(plant.Z)


@cache
def fitted(data, kind, *atoms):
    Z = data()
    own = settings(Z.shape[1], kind)
    return settle(fit_starts(MetricRows.isotropic(Z), atoms, own, rng()), own)


@cache
def halved(kind, bind=None):
    """A fit of two circles in which two of three atoms have every second row of one."""
    two, own = fitted(two_circles, kind, *[CIRCLE] * 2), settings(6, kind, bind=bind)
    t = two.codes.coordinates[:, [0, 0, 1]]
    labels = np.where(two.codes.amplitudes.argmax(axis=1) == 1, 2, np.arange(len(t)) % 2)
    codes = Candidate(labels[:, None] == np.arange(3), hard_shares(labels, 3, 0.9), t)
    return rough_fit(model_from_codes(two.rows, [CIRCLE] * 3, own, codes), own, "halved")


def tried(move, start, own, **known):
    """The model after a move of an open structure, and the records."""
    return try_move(move, start, Context(Structure(None, None, 16, False), own, rng(), **known))


# --- one atom --------------------------------------------------------------------------------


def test_a_circle_is_found():
    Z = planted_manifolds(80, 5, ["circle"], noise_sd=0.1).Z
    choice = choose_topology(Z, FEW, settings(5), rng())
    assert choice.manifold == CIRCLE
    assert choice.p_value < 0.05
    assert choice.statistic > 10.0
    assert choice.table[0][0] == CIRCLE.label
    values = [value for _, value in choice.table]
    assert values == sorted(values) and len(values) == 3


@pytest.mark.parametrize(("rank", "flat"), [(1, LINE), (2, PLANE)])
def test_gaussian_rows_are_flat(rank, flat):
    Z = gaussian_control(150, 6, rank=rank, noise_sd=0.1)
    choice = choose_topology(Z, FEW, settings(6), rng())
    assert choice.manifold == flat
    assert np.isnan(choice.p_value)
    assert choose_topology(Z, FEW, settings(6), rng()).table == choice.table


def permutation_test(monkeypatch, observed, permuted):
    """p-value and number of permutations, where these have the given statistics, again and again.
    """
    values = (value for number in range(19) for value in (permuted[number % len(permuted)], 0.0))
    made = []
    monkeypatch.setattr(topology, "rough_criterion", lambda *_: made.append(0) or next(values))
    X = np.zeros((9, 2))
    p_value = topology._permutation_test(X, CIRCLE, observed, [LINE], settings(2), rng())
    return p_value, len(made) // 2


@pytest.mark.parametrize(("observed", "permuted", "p_value", "number"), [
    (10.0, [-9.0, 10.0], 2 / 3, 2),  # one that reaches it
    (12.0, [-9.0, 1.0, 11.0], 0.05, 19),  # the highest, but not by far
    (200.0, [-9.0, 1.0, 11.0], 0.0, 4),  # far beyond them
    (10.0, [0.0], 0.05, 19),  # a spread of nothing is not believed
    (50.0, [0.0], 0.0, 4),
    (200.0, [0.0, -np.inf], 0.05, 19),  # no spread at all
])
def test_permutations_end_when_they_have_told(monkeypatch, observed, permuted, p_value, number):
    found, made = permutation_test(monkeypatch, observed, permuted)
    assert found == pytest.approx(p_value, abs=TopologyPolicy().sure)
    assert made == number


def test_an_arc_is_an_interval():
    """Of few rows too, though a circle has fewer functions."""
    Z = planted_manifolds(600, 4, ["interval"], noise_sd=0.1, random_state=3).Z
    for n in (250, 600):
        choice = choose_topology(Z[:n], (CIRCLE, Interval(8)), settings(4), rng())
        assert choice.manifold == Interval(8)


def test_rows_far_from_an_atom_say_nothing_of_its_shape():
    start = fitted(two_circles, "softmax", CIRCLE, CIRCLE)
    rows, X = local_rows(start, 0, SearchPolicy())
    near = near_rows(start, 0, rows, X, 6.0)
    assert near.mean() > 0.95
    X[:3] *= 3.0
    changed = near_rows(start, 0, rows, X, 6.0)
    assert not changed[:3].any()
    np.testing.assert_array_equal(changed[3:], near[3:])


def test_a_curve_that_is_the_flat_does_not_win():
    Z = planted_manifolds(400, 8, ["plane"], noise_sd=0.1).Z
    choice = choose_topology(Z, (PLANE, Euclidean(2, 2)), settings(8), rng())
    assert choice.table[0][0] == Euclidean(2, 2).label
    assert choice.manifold == PLANE
    assert np.isnan(choice.p_value)


def test_two_clusters_on_a_line_are_no_curve():
    """The margins alone make an interval look better; permuted rows say that it is not a shape."""
    own = rng()
    Z = 0.1 * own.normal(size=(80, 4))
    Z[:, 0] += own.choice([-1.0, 1.0], 80)
    choice = choose_topology(Z, (LINE, Interval(6)), settings(4), rng())
    assert choice.table[0][0] == Interval(6).label
    assert choice.p_value >= 0.1
    assert choice.manifold == LINE


@pytest.mark.parametrize("X", [np.ones((30, 4)), np.zeros((30, 4)), np.eye(5), np.zeros((0, 3))])
def test_rows_without_a_shape_are_flat(X):
    choice = choose_topology(X, (CIRCLE, LINE), settings(4), rng())
    assert choice.manifold == LINE
    assert choice.table == ()


def test_bad_input_says_so():
    with pytest.raises(InputError, match="candidates"):
        choose_topology(np.ones((9, 2)), (), settings(2), rng())
    with pytest.raises(InputError, match="finite"):
        choose_topology(np.full((9, 2), np.nan), FEW, settings(2), rng())


# --- moves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_circle_on_a_line_is_demoted_and_the_other_stays(kind):
    start = fitted(circle_and_line, kind, CIRCLE, CIRCLE)
    found, moves = tried(Demote(), start, settings(6, kind))
    assert sorted(atom.name for atom in found.model.atoms) == ["circle", "euclidean"]
    (move,) = [move for move in moves if move.accepted]
    assert move.kind == "demote"
    assert found.model.atoms[move.atom] == LINE
    assert found.result.criterion == move.after < move.before == start.result.criterion
    same, (named,) = tried(NameFlatTwin(), start, settings(6, kind))
    assert same is start and named.atom == move.atom and not named.accepted
    labels = found.codes.amplitudes.argmax(axis=1)
    assert 60 < (labels == move.atom).sum() < 100


@pytest.mark.parametrize("kind", KINDS)
def test_an_atom_too_many_is_removed(kind):
    start = halved(kind)
    before = start.codes.coordinates.copy()
    own = settings(6, kind)
    for found, moves in (tried(Merge(), start, own), tried(Remove(), start, own)):
        assert len(found.model.atoms) == 2
        assert moves[0].accepted and moves[0].after < moves[0].before - 3.0
        two = fitted(two_circles, kind, *[CIRCLE] * 2)
        assert abs(settle(found, own).result.criterion - two.result.criterion) < 1.0
    np.testing.assert_array_equal(start.codes.coordinates, before)


@pytest.mark.parametrize("kind", KINDS)
def test_atoms_that_are_needed_stay(kind):
    start = fitted(two_circles, kind, *[CIRCLE] * 2)
    found, moves = tried(Remove(), start, settings(6, kind))
    assert found is start
    assert [move.accepted for move in moves] == [False, False]
    assert all(move.after > move.before + 100.0 for move in moves)
    assert tried(Merge(), start, settings(6, kind)) == (start, [])
    assert tried(Demote(), start, settings(6, kind)) == (start, [])
    assert tried(NameFlatTwin(), start, settings(6, kind)) == (start, [])


def test_rows_and_strengths_keep_their_atom():
    start = halved("softmax")
    found, (move,) = tried(Merge(), start, settings(6))
    left = [k for k in range(3) if k != move.atom]
    for k, other in enumerate(left):
        old, new = (local_rows(*pair, SearchPolicy())[0] for pair in ((start, other), (found, k)))
        assert len(np.intersect1d(old, new)) > 0.9 * len(old)
    every, own = OuterKey("a", "logits"), [OuterKey("b", "decoder", k, 2) for k in (0, 1, 9, 10)]
    known = dict(zip((every, *own), range(5), strict=True))
    assert renumbered(known, 1) == {every: 0, own[0]: 1, replace(own[2], atom=8): 3, own[2]: 4}


def test_a_penalty_for_so_many_atoms_forbids_their_removal():
    def bind(atoms):
        penalties = [SoftmaxAssignmentSparsityPenalty(k_atoms=3)]
        assignment = get_assignment("softmax", len(atoms))
        return resolve_terms(penalties, atoms, assignment, Gaussian(), (120, 6))

    start = halved("softmax", bind)
    found, moves = tried(Remove(), start, settings(6, bind=bind))
    assert found is start
    assert len(moves) == 3
    assert all("not allowed" in move.detail and not move.accepted for move in moves)


# --- several atoms ---------------------------------------------------------------------------


def test_every_atom_gets_its_own_topology():
    Z, own = circle_and_line(), settings(6)
    start = fitted(circle_and_line, "softmax", CIRCLE, CIRCLE)
    atoms, codes, choices = choose_topologies(start, own, FEW, rng())
    assert sorted(atom.name for atom in atoms) == ["circle", "euclidean"]
    assert [choice.manifold for choice in choices] == atoms
    assert codes.coordinates.shape == (160, 2)
    joint = rough_fit(model_from_codes(MetricRows.isotropic(Z), atoms, own, codes), own, "joint")
    assert joint.result.criterion < start.result.criterion


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_circles_is_found(kind):
    found, table = choose_n_atoms(MetricRows.isotropic(two_circles()), lambda k: [CIRCLE] * k,
                                  settings(6, kind), 16, rng())
    assert len(found.model.atoms) == 2
    assert [n for n, _ in table] == [1, 2, 3, 4]
    assert min(table, key=lambda entry: entry[1])[0] == 2


def test_numbers_that_the_assignment_forbids_are_passed_over():
    _, table = choose_n_atoms(MetricRows.isotropic(two_circles()), lambda k: [CIRCLE] * k,
                              settings(6, "topk", n_active=2), 2, rng())
    assert [n for n, _ in table] == [2]


def test_a_rival_shape_is_tried_in_the_joint_model():
    """Rows of an arc alone would make an interval of a circle; V of the joint model does not."""
    arc, own = Interval(6), settings(6)
    start = fitted(two_circles, "softmax", arc, CIRCLE)
    table = ((arc.label, 0.0), (CIRCLE.label, 1e4))
    choices = [TopologyChoice(arc, table, 0.01, 9.0),
               TopologyChoice(CIRCLE, ((CIRCLE.label, 0.0),), 0.01, 9.0)]
    changed, moves = tried(Reshape(), start, own, choices=choices, candidates=(arc, CIRCLE))
    assert [atom.name for atom in changed.model.atoms] == ["circle", "circle"]
    assert [(move.kind, move.atom, move.accepted) for move in moves] == [("reshape", 0, True)]
    assert changed.result.criterion < start.result.criterion


@pytest.mark.parametrize("kind", KINDS)
def test_local_rows_leave_out_the_other_atoms_and_the_amplitude(kind):
    found = fitted(two_circles, kind, CIRCLE, CIRCLE)
    model, theta = found.model, found.result.theta
    rows, X = local_rows(found, 0, SearchPolicy())
    own = CIRCLE.basis(theta.xi[rows][:, model.coordinate_columns(0)])
    left = X - own @ theta.beta[model.layout.basis_slices[0]]
    a = model.assignment.amplitudes(model.logits(theta), model.is_open).a[rows, 0]
    residual = (model.working - model.scaled_basis(theta)[1] @ theta.beta)[rows]
    np.testing.assert_allclose(a[:, None] * left, residual, atol=1e-10)
