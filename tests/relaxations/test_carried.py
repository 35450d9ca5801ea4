"""Coordinates carried on by the latent-grid mixture."""

import numpy as np
import pytest

from reml_sae.manifolds import Circle
from reml_sae.relaxations.carried import carried_on
from reml_sae.relaxations.policy import GridPolicy


def ring(rng: np.random.Generator, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Angles (n, 1) and rows (n, 8) of an ellipse that bends out of its plane."""
    t = rng.uniform(-np.pi, np.pi, (n, 1))
    waves = np.hstack([2.0 * np.cos(t), np.sin(t), 0.5 * np.cos(2.0 * t)])
    frame = np.linalg.qr(rng.normal(size=(8, 3)))[0]
    X = waves @ frame.T + 0.05 * rng.normal(size=(n, 8))
    return t, X - X.mean(axis=0)


def distance(t: np.ndarray, other: np.ndarray) -> float:
    """Median distance of angles, whichever way round and wherever they begin."""
    return min(float(np.median(np.abs(np.angle(turn / np.mean(turn)))))
               for sign in (1.0, -1.0) for turn in [np.exp(1j * (t - sign * other)).ravel()])


def test_poor_angles_are_carried_to_good_ones():
    """On most seeds angles with an error of half a radian end near the true ones."""
    near = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        t, X = ring(rng)
        poor = t + rng.normal(0.0, 0.7, t.shape)
        assert distance(t, poor) > 0.3
        found = carried_on(X, Circle(2), [poor], GridPolicy(), np.inf)
        near += len(found) == 1 and distance(t, found[0]) < 0.05
    assert near >= 9


def test_ends_are_distinct_and_ranked():
    rng = np.random.default_rng(0)
    t, X = ring(rng)
    astray = rng.uniform(-np.pi, np.pi, t.shape)
    found = carried_on(X, Circle(2), [astray, t, t + 1e-3], GridPolicy(), np.inf)
    assert distance(t, found[0]) < 0.05
    assert len(found) <= 2
    only = carried_on(X, Circle(2), [astray, t, t + 1e-3], GridPolicy(), 1.0)
    assert len(only) == 1
    np.testing.assert_array_equal(only[0], found[0])


@pytest.mark.parametrize("X", [np.zeros((20, 3)), np.zeros((20, 0))])
def test_equal_rows_keep_their_coordinates(X):
    t = np.linspace(-1.0, 1.0, 20)[:, None]
    (found,) = carried_on(X, Circle(1), [t], GridPolicy(), 1.0)
    np.testing.assert_array_equal(found, t)
