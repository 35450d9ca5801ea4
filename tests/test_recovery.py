"""Scores of recovery: perfect codes under any gauge, and codes that are wrong in a known way."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import special_ortho_group

from reml_sae.datasets import planted_manifolds, planted_mixed_rows, recovery_scores
from reml_sae.datasets._shapes import SHAPES
from reml_sae.errors import InputError

KINDS = tuple(SHAPES)
UNIMODULAR = ([[1, 1], [0, 1]], [[0, -1], [1, 1]], [[1, 0], [-1, -1]], [[0, 1], [1, 0]])


def wrap(t):
    return np.mod(t + np.pi, 2 * np.pi) - np.pi


def gauge_change(name, t, rng):
    """The same points in other coordinates."""
    sign, turn = rng.choice([-1.0, 1.0]), rng.uniform(-9, 9)
    if name in ("circle", "ellipse"):
        return wrap(sign * t + turn)
    if name == "interval":
        return sign * np.sinh(t)
    if name in ("linear", "plane", "curved_sheet"):
        return t @ rng.normal(size=(t.shape[1],) * 2) + rng.normal(size=t.shape[1])
    if name in ("torus", "donut"):
        return wrap(t @ np.array(UNIMODULAR[rng.integers(4)]) + rng.uniform(-9, 9, size=2))
    if name == "cylinder":
        return np.column_stack([wrap(sign * t[:, 0] + turn), 2.0 * sign * t[:, 1] + 1.0])
    if name == "mobius":
        moved = sign * t[:, 0] + turn
        flip = (-1.0) ** np.round((moved - wrap(moved)) / (2 * np.pi))
        return np.column_stack([wrap(moved), 0.5 * flip * t[:, 1]])
    move = special_ortho_group.rvs(3, random_state=rng) * sign
    if name == "projective_plane":
        return rng.choice([-1.0, 1.0], size=(len(t), 1)) * t @ move
    return t @ move


def perfect_codes(data, rng, order):
    coordinates = [gauge_change(data.topologies[k], data.coordinates[k], rng) for k in order]
    return SimpleNamespace(assignments=data.amplitudes[:, order], coordinates=coordinates,
                           gates=data.support[:, order])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_active", [1, 3])
def test_perfect_codes_score_perfectly(n_active, seed):
    rng = np.random.default_rng(seed)
    data = planted_manifolds(60 * len(KINDS), 8, KINDS, n_active=n_active, random_state=seed)
    order = rng.permutation(len(KINDS))
    fitted = ["circle", "circle", "interval", "linear", "plane", "torus", "torus", "cylinder",
              "sphere", "mobius", "projective_plane", "euclidean"]
    scores = recovery_scores(data, perfect_codes(data, rng, order), [fitted[k] for k in order])
    assert (order[scores.matching] == np.arange(len(KINDS))).all()
    assert scores.assignment_accuracy == 1.0 and not scores.mismatched
    np.testing.assert_allclose(scores.overlap, 1.0)
    np.testing.assert_allclose(scores.coordinate_error, 0.0, atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_errors_are_in_the_units_of_the_atom(name):
    """A known perturbation is measured, and unrelated coordinates are far off."""
    rng = np.random.default_rng(1)
    data = planted_manifolds(4000, 8, [name])
    true = data.coordinates[0]
    codes = perfect_codes(data, rng, np.array([0]))
    shift = 0.1 * rng.normal(size=true.shape)
    near = true + shift
    if name in ("sphere", "projective_plane"):
        tangent = shift - (shift * true).sum(axis=1, keepdims=True) * true
        near = true + tangent
        near /= np.linalg.norm(near, axis=1, keepdims=True)
        size = 0.1 * np.sqrt(2.0)
    elif name == "interval":
        # half of the rows are anywhere: two uniform positions differ by 1/6 in mean square
        near = np.where(rng.random((len(true), 1)) < 0.5, true, np.roll(true, 1))
        size = np.sqrt(0.5 / 6.0)
    else:
        size = 0.1
    codes.coordinates = [gauge_change(name, near, rng)]
    assert recovery_scores(data, codes).coordinate_error[0] == pytest.approx(size, rel=0.25)
    codes.coordinates = [SHAPES[name].draw(rng, len(true))]
    unrelated = 0.27 if name == "interval" else 0.75
    assert recovery_scores(data, codes).coordinate_error[0] > unrelated


@pytest.mark.parametrize("n_active", [1, 2])
def test_wrong_assignments_cost_their_share(n_active):
    rng = np.random.default_rng(0)
    data = planted_manifolds(4000, 8, ["circle"] * 4, n_active=n_active)
    order = np.array([2, 0, 1, 3])
    codes = perfect_codes(data, rng, order)
    wrong = np.arange(1000)
    codes.assignments[wrong] = np.roll(codes.assignments[wrong], 1, axis=1)
    codes.gates[wrong] = np.roll(codes.gates[wrong], 1, axis=1)
    for k, t in enumerate(codes.coordinates):
        t[~(codes.gates & data.support[:, order])[:, k]] = np.nan
    scores = recovery_scores(data, codes)
    assert scores.matching.tolist() == [1, 2, 0, 3]
    # a shift round four atoms leaves one of two in place for four of the six pairs
    expected = 0.75 if n_active == 1 else 0.75 + 0.25 * (4 / 6) / 3
    assert scores.assignment_accuracy == pytest.approx(expected, abs=0.02)
    assert (scores.overlap < 1.0).all()
    np.testing.assert_allclose(scores.coordinate_error, 0.0, atol=1e-9)


def test_other_numbers_of_atoms():
    rng = np.random.default_rng(0)
    data = planted_manifolds(400, 8, ["circle"] * 4)
    codes = perfect_codes(data, rng, np.array([3, 1]))
    scores = recovery_scores(data, codes)
    assert scores.matching.tolist() == [-1, 1, -1, 0]
    assert scores.assignment_accuracy == 0.5
    assert np.isnan(scores.coordinate_error).tolist() == [True, False, True, False]
    codes = perfect_codes(data, rng, np.array([3, 1, 1, 0, 2]))
    # the planted atom 1 is split into two fitted ones
    half = np.arange(400) < 200
    codes.assignments[half, 1] = codes.assignments[~half, 2] = 0.0
    codes.gates[half, 1] = codes.gates[~half, 2] = False
    scores = recovery_scores(data, codes)
    assert scores.matching[[0, 2, 3]].tolist() == [3, 4, 0]
    assert scores.assignment_accuracy == pytest.approx(0.875, abs=0.03)


def test_other_topologies_are_named():
    data = planted_manifolds(300, 8, ["sphere", "circle", "plane"])
    codes = perfect_codes(data, np.random.default_rng(0), np.arange(3))
    fitted = [SimpleNamespace(name="projective_plane"), SimpleNamespace(name="circle"), "plane"]
    scores = recovery_scores(data, codes, fitted)
    assert scores.mismatched == ("atom 0: planted sphere, fitted projective_plane",)
    assert np.isnan(scores.coordinate_error).tolist() == [True, False, False]
    codes.coordinates[2] = codes.coordinates[2][:, :1]
    assert recovery_scores(data, codes).mismatched == ("atom 2: planted plane, fitted plane",)


def test_rows_that_use_every_atom_are_matched_by_their_strongest():
    data = planted_mixed_rows(200, 8)
    codes = perfect_codes(data, np.random.default_rng(0), np.array([1, 0]))
    scores = recovery_scores(data, codes)
    assert scores.matching.tolist() == [1, 0] and scores.assignment_accuracy == 1.0
    np.testing.assert_allclose(scores.coordinate_error, 0.0, atol=1e-9)


def test_codes_of_other_rows():
    data = planted_manifolds(30, 8, ["circle"] * 2)
    codes = perfect_codes(data, np.random.default_rng(0), np.arange(2))
    with pytest.raises(InputError, match="encode planted"):
        recovery_scores(data.rows(slice(20)), codes)
    with pytest.raises(InputError, match="topologies"):
        recovery_scores(data, codes, ["circle"])
