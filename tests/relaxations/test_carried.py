"""Coordinates carried on by the latent-grid mixture."""

import numpy as np
import pytest

from reml_sae.manifolds import Circle
from reml_sae.relaxations.carried import carried_on, rise_of_mixture
from reml_sae.relaxations.policy import CarryPolicy, GridPolicy


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


def ends(X, starts, more=(), harmonics=2, **policy):
    return carried_on(X, Circle(harmonics), starts, more, np.random.default_rng(0),
                      CarryPolicy(**policy), GridPolicy())


def test_poor_angles_are_carried_to_good_ones():
    """On most seeds angles with an error of half a radian end near the true ones."""
    near = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        t, X = ring(rng)
        poor = t + rng.normal(0.0, 0.7, t.shape)
        assert distance(t, poor) > 0.3
        found = ends(X, [poor])
        near += len(found) == 1 and distance(t, found[0]) < 0.05
    assert near >= 9


def test_ends_are_distinct_and_ranked():
    rng = np.random.default_rng(0)
    t, X = ring(rng)
    astray = rng.uniform(-np.pi, np.pi, t.shape)
    starts = [astray, t, t + 1e-3]
    found = ends(X, starts, patience=0, close_per_row=np.inf)
    assert distance(t, found[0]) < 0.05
    assert len(found) == 2 and distance(t, found[1]) > 0.05
    only = ends(X, starts, patience=0, close_per_row=0.01)
    assert len(only) == 1
    np.testing.assert_array_equal(only[0], found[0])
    assert len(ends(X, starts, patience=0, close_per_row=np.inf, most_kept=1)) == 1


def test_more_starts_are_tried_until_several_agree():
    t, X = ring(np.random.default_rng(0))
    asked = []

    def more(good):
        for number in range(10):
            asked.append(number)
            yield t + 1e-3 * number if good else np.zeros_like(t)

    ends(X, [t], more(True), agree=3)
    assert len(asked) == 3
    asked.clear()
    ends(X, [t], more(False), agree=3)
    assert len(asked) == 10


def test_crosses_of_ends_are_better():
    """A loop that winds thrice in strong directions of noise: most starts end astray."""
    better = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        t = rng.uniform(-np.pi, np.pi, (150, 1))
        waves = np.hstack([0.3 * np.cos(t), 0.3 * np.sin(t), np.cos(3 * t), np.sin(3 * t)])
        frame = np.linalg.qr(rng.normal(size=(12, 7)))[0].T
        X = waves @ frame[:4] + rng.normal(size=(150, 3)) @ frame[4:]
        X += 0.05 * rng.normal(size=X.shape)
        X -= X.mean(axis=0)
        starts = [rng.uniform(-np.pi, np.pi, t.shape) for _ in range(6)]
        left = []
        for patience in (0, 12):
            basis = Circle(3).basis(ends(X, starts, harmonics=3, patience=patience)[0])
            left.append(((X - basis @ np.linalg.lstsq(basis, X, rcond=None)[0]) ** 2).sum())
        better.append(left[1] / left[0])
    assert np.median(better) < 0.99
    assert max(better) < 1.03


def test_the_rise_between_two_ends():
    """From codes that wind twice to true ones it is a fall, which the way back undoes."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        t, X = ring(rng)
        twice = 0.5 * t + np.pi * rng.integers(2, size=t.shape)
        fall, rise, none = (rise_of_mixture(X, Circle(2), before, after, GridPolicy())
                            for before, after in ((twice, t), (t, twice), (t, t + 1e-3)))
        assert fall < -50.0
        assert rise == -fall
        assert abs(none) < 0.01


@pytest.mark.parametrize("X", [np.zeros((20, 3)), np.zeros((20, 0))])
def test_equal_rows_keep_their_coordinates(X):
    t = np.linspace(-1.0, 1.0, 20)[:, None]
    (found,) = ends(X, [t], harmonics=1)
    np.testing.assert_array_equal(found, t)
    assert rise_of_mixture(X, Circle(1), t, t + 1.0, GridPolicy()) == 0.0
