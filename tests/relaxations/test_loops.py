"""The start along the neighbour graph finds a loop that winds."""

import numpy as np

import reml_sae as rs
from reml_sae.assignments import get_assignment
from reml_sae.diagnostics import align_angles, circular_correlation
from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.policy import SearchPolicy
from reml_sae.discovery.starts.protocol import CodeStart, StartProblem
from reml_sae.discovery.starts.wide_rings import along_loops
from reml_sae.manifolds import Circle
from reml_sae.relaxations.loops import loop_angles
from reml_sae.relaxations.policy import LoopPolicy


def winding(n, seed=0):
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(-np.pi, np.pi, n))
    Z = np.column_stack([f(h * t) for h in (1, 2, 3, 4) for f in (np.cos, np.sin)])
    return Z + 0.05 * rng.normal(size=Z.shape), t


def test_angles_follow_the_loop():
    for n in (200, 2500):
        Z, t = winding(n)
        angles = loop_angles(Z, 0.04, np.random.default_rng(0), LoopPolicy())
        assert angles.min() >= -np.pi and angles.max() < np.pi
        assert abs(circular_correlation(angles, t)) > 0.97


def test_too_few_rows():
    assert loop_angles(np.eye(5), 0.2, np.random.default_rng(0), LoopPolicy()) is None
    assert loop_angles(np.zeros((50, 3)), 0.2, np.random.default_rng(0), LoopPolicy()) is None


def test_a_winding_circle_is_fitted():
    Z, t = winding(200)
    model = rs.SAEManifold(n_atoms=1, topology=rs.manifolds.Circle(5), n_init=1,
                           noise="isotropic").fit(Z)
    assert model.converged_
    angles = align_angles(model.codes_.coordinates[0][:, 0], t)
    assert circular_correlation(angles, t) > 0.97  # the speed along the curve is not identified
    assert model.score(Z) > 0.99
    assert np.sqrt(model.dispersion_) < 0.06


def test_wide_circles_of_a_start_follow_their_own_rows():
    """Angles of the rows of two curves of four harmonics, from a start that has none."""
    random = np.random.default_rng(0)
    t, label = random.uniform(-np.pi, np.pi, 300), np.arange(300) % 2
    waves = np.column_stack([f(h * t) / h for h in range(1, 5) for f in (np.cos, np.sin)])
    Z = np.zeros((300, 16))
    for k in range(2):
        Z[label == k, 8 * k : 8 * k + 8] = waves[label == k]
    support = label[:, None] == np.arange(2)
    start = CodeStart(Candidate(support, support * 1.0, np.zeros((300, 2))), 0.9)

    def problem(atom):
        return StartProblem(Z, [atom] * 2, get_assignment("softmax", 2), 1, SearchPolicy())

    found = along_loops(problem(Circle(4)), [8, 8], start, random)
    assert len(found) == 2
    for k in range(2):
        own = label == k
        best = max(abs(circular_correlation(f.codes.coordinates[own, k], t[own])) for f in found)
        assert best > 0.95
        assert not found[0].codes.coordinates[~own, k].any()
    narrow = along_loops(problem(Circle(1)), [2, 2], start, random)
    assert not any(f.codes.coordinates.any() for f in narrow)
