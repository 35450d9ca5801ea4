"""The start along the neighbour graph finds a loop that winds."""

import numpy as np

import reml_sae as rs
from reml_sae.diagnostics import align_angles, circular_correlation
from reml_sae.estimators._loops import loop_angles


def winding(n, seed=0):
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(-np.pi, np.pi, n))
    Z = np.column_stack([f(h * t) for h in (1, 2, 3, 4) for f in (np.cos, np.sin)])
    return Z + 0.05 * rng.normal(size=Z.shape), t


def test_angles_follow_the_loop():
    for n in (200, 2500):
        Z, t = winding(n)
        angles = loop_angles(Z, 0.04, np.random.default_rng(0))
        assert angles.min() >= -np.pi and angles.max() < np.pi
        assert abs(circular_correlation(angles, t)) > 0.97


def test_too_few_rows():
    assert loop_angles(np.eye(5), 0.2, np.random.default_rng(0)) is None
    assert loop_angles(np.zeros((50, 3)), 0.2, np.random.default_rng(0)) is None


def test_a_winding_circle_is_fitted():
    Z, t = winding(200)
    model = rs.SAEManifold(n_atoms=1, topology=rs.manifolds.Circle(5)).fit(Z)
    assert model.converged_
    angles = align_angles(model.codes_.coordinates[0][:, 0], t)
    assert circular_correlation(angles, t) > 0.97  # the speed along the curve is not identified
    assert model.score(Z) > 0.99
    assert np.sqrt(model.dispersion_) < 0.06
