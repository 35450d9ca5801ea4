"""The order in which a curve of many functions goes through clusters of rows."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.discovery.starts.protocol import on_one_atom
from reml_sae.manifolds import Circle
from reml_sae.relaxations.order import arcs_moved, other_orders
from reml_sae.relaxations.policy import OrderPolicy

CLUSTERS = 8


def clusters(seed, n=96, p=8, factor=0.0):
    """Rows in tight clusters along a curve of three harmonics: their cluster, angle, and they."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % CLUSTERS)
    t = 2.0 * np.pi * labels / CLUSTERS + 0.03 * rng.normal(size=n) - 3.0
    decoder = rng.normal(size=(7, p)) / np.repeat([np.inf, 1.0, 2.0, 3.0], [1, 2, 2, 2])[:, None]
    axis = rng.normal(size=p) / np.sqrt(p)
    noise = 0.15 * rng.normal(size=(n, p)) + factor * rng.normal(size=(n, 1)) * axis
    return labels, t, Circle(3).basis(t[:, None]) @ decoder + noise


def shuffled(labels, t, seed):
    """Angles with the clusters in another order."""
    order = np.random.default_rng(seed).permutation(CLUSTERS)
    moved = t + 2.0 * np.pi * (order[labels] - labels) / CLUSTERS
    return np.mod(moved + np.pi, 2.0 * np.pi)[:, None] - np.pi


def in_turn(labels, t):
    """Whether the clusters come one after the other, either way round."""
    means = np.array([np.angle(np.exp(1j * t[labels == k]).mean()) for k in range(CLUSTERS)])
    steps = np.mod(np.diff(np.argsort(means), append=np.argsort(means)[0]), CLUSTERS)
    return (steps == 1).all() or (steps == CLUSTERS - 1).all()


def test_arcs_stay_whole():
    """All points have a place, and no more than three neighbours are parted; all moves occur."""
    n, met = 5, set()
    for seed in range(2000):
        place = arcs_moved(n, np.random.default_rng(seed))
        tour = np.argsort(place)
        assert sorted(place) == list(range(n))
        parted = np.abs(np.diff(tour, append=tour[0]))
        assert (np.isin(parted, [1, n - 1])).sum() >= n - 3
        met.add(tuple(tour))
    assert {(1, 0, 2, 3, 4), (0, 2, 3, 1, 4), (0, 3, 2, 1, 4), (3, 2, 0, 1, 4)} <= met


@pytest.mark.parametrize(("factor", "p", "n"), [(0.0, 8, 96), (2.0, 12, 144)])
def test_arcs_alone_find_the_order(factor, p, n):
    """From another, in white noise and amid a factor longer than the curve; 7 of 8 seeds each."""
    right = 0
    for seed in range(3):
        labels, t, Z = clusters(seed, n, p, factor)
        found = other_orders(Z, Circle(3), shuffled(labels, t, seed), not factor,
                             np.random.default_rng(seed), OrderPolicy(seeds=0))
        right += bool(found) and in_turn(labels, found[0][:, 0])
    assert right >= 2


def test_the_right_order_is_left():
    _, t, Z = clusters(0)
    assert not other_orders(Z, Circle(3), t[:, None], True, np.random.default_rng(0),
                            OrderPolicy(seeds=4, patience=40))


def test_a_fit_that_began_in_another_order(monkeypatch):
    """It ends in the right one, by this move, in 2 of 3 seeds at least."""
    right = 0
    for seed in range(3):
        labels, t, Z = clusters(seed)
        start = on_one_atom(shuffled(labels, t, seed))
        monkeypatch.setattr("reml_sae.discovery.first_fit.find_code_starts",
                            lambda problem, *rest, start=start: [start])
        model = rs.SAEManifold(n_atoms=1, topology=Circle(3), noise="isotropic", n_init=1).fit(Z)
        moved = any(move.kind == "reorder" and move.accepted for move in model.search_.moves)
        right += moved and in_turn(labels, model.codes_.coordinates[0][:, 0])
    assert right >= 2
