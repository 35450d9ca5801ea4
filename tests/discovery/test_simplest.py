"""A fit at a bad optimum is started again from its simplest shape, and ends no higher than that."""

import warnings

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.discovery import first_fit, search
from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.moves import restart
from reml_sae.discovery.moves.restart import Restart
from reml_sae.discovery.starts.protocol import CodeStart
from reml_sae.manifolds import Circle, Sphere

N, SD, SEEDS = 120, 0.2, range(2)


def half(angle, rng):
    """An angle that goes round once where the given one goes round twice."""
    return 0.5 * angle + np.pi * rng.integers(2, size=N)


def circle(rng):
    t = rng.uniform(-np.pi, np.pi, N)
    return np.column_stack([np.cos(t), np.sin(t)]), np.angle(np.exp(1j * half(t, rng)))[:, None]


def sphere(rng):
    height, t = rng.uniform(-1.0, 1.0, N), rng.uniform(-np.pi, np.pi, N)
    radius = np.sqrt(1.0 - height**2)
    points, codes = (np.column_stack([radius * np.cos(angle), radius * np.sin(angle), height])
                     for angle in (t, half(t, rng)))
    return points, codes


CASES = {
    "circle": (circle, Circle(1), (Circle(2), Circle(3))),
    "sphere": (sphere, Sphere(1), (Sphere(2),)),
}
"""Rows with codes that wind twice, the simplest shape, and atoms."""


def fit(Z, topology, start=None, monkeypatch=None, **options):
    with warnings.catch_warnings(), monkeypatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr(search, "MOVES", (Restart(),))
        if start is not None:
            codes = Candidate(np.ones((N, 1), bool), np.ones((N, 1)), start)
            patch.setattr(first_fit, "find_code_starts", lambda *others: [CodeStart(codes, None)])
        return rs.SAEManifold(n_atoms=1, topology=topology, **options).fit(Z)


@pytest.mark.parametrize("case", CASES)
def test_v_is_not_above_that_of_the_nested_model(case, monkeypatch):
    plant, narrow, atoms = CASES[case]
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        Z, start = plant(rng)
        Z = np.pad(Z, ((0, 0), (0, 5 - Z.shape[1]))) + SD * rng.normal(size=(N, 5))
        nested = fit(Z, narrow, monkeypatch=monkeypatch, noise="isotropic")
        for wide in atoms:
            found = fit(Z, wide, start, monkeypatch, noise="isotropic")
            assert found.converged_
            assert found.criterion_ <= nested.criterion_ + 0.1


def test_a_restart_that_em_foretells_to_fail_is_not_fitted(monkeypatch):
    """A curve that bends, at its optimum: its ellipse is far above it, and so is all from there."""
    rng = np.random.default_rng(0)
    t = rng.uniform(-np.pi, np.pi, 200)
    waves = np.column_stack([np.cos(t), np.sin(t), np.cos(2 * t), np.sin(2 * t)])
    with monkeypatch.context() as patch:
        patch.setattr(restart, "refitted", lambda *_: pytest.fail("it was fitted"))
        found = fit(waves + SD * rng.normal(size=waves.shape), Circle(2), monkeypatch=patch,
                    noise="isotropic")
    (move,) = found.search_.moves
    assert (move.kind, move.accepted) == ("restart", False) and move.after >= move.before
