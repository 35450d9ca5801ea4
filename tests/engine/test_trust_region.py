"""The step of the outer search against brute force."""

import numpy as np
import pytest
from scipy.optimize import minimize

from reml_sae.engine.trust_region import boxed_step, predicted_change

WIDE = 1e9


def system(seed, n, shift):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n))
    return rng, rng.normal(size=n), 0.5 * (A + A.T) + shift * np.eye(n)


@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0])
@pytest.mark.parametrize("radius", [0.1, 1.0, 10.0])
def test_global_minimum_in_the_ball(shift, radius):
    for seed in range(10):
        rng, g, H = system(seed, 4, shift)
        wide = np.full(4, WIDE)
        step = boxed_step(g, H, radius, -wide, wide)
        assert np.linalg.norm(step) <= radius * (1.0 + 1e-9)
        found = predicted_change(g, H, step)
        directions = rng.normal(size=(4000, 4))
        directions *= (radius * rng.random(4000) ** 0.25 / np.linalg.norm(directions, axis=1)
                       )[:, None]
        values = directions @ g + 0.5 * np.einsum("ni,ij,nj->n", directions, H, directions)
        assert found <= values.min() + 1e-12


def test_hard_case_goes_along_negative_curvature():
    H, g = np.diag([-2.0, 1.0]), np.array([0.0, 0.1])
    step = boxed_step(g, H, 1.0, np.full(2, -WIDE), np.full(2, WIDE))
    assert np.linalg.norm(step) == pytest.approx(1.0)
    assert predicted_change(g, H, step) < -0.98


def test_box_is_kept_and_the_others_are_solved_again():
    for seed in range(40):
        rng, g, H = system(seed, 5, 6.0)
        low, high = -0.2 * rng.random(5), 0.2 * rng.random(5)
        low[0] = high[1] = 0.0
        step = boxed_step(g, H, 5.0, low, high)
        assert (step >= low).all() and (step <= high).all()
        best = minimize(lambda s, g=g, H=H: predicted_change(g, H, s), np.zeros(5),
                        jac=lambda s, g=g, H=H: g + H @ s, bounds=list(zip(low, high, strict=True)))
        assert predicted_change(g, H, step) <= 0.9 * best.fun + 1e-12


def test_a_blocked_parameter_does_not_stop_the_others():
    """The first one pushes out of its box with all its might; the second one has little to gain."""
    g, H = np.array([-1.0, 1e-3]), np.array([[1.0, -0.5], [-0.5, 1.0]])
    step = boxed_step(g, H, 1.0, np.array([-5.0, -5.0]), np.array([0.0, 5.0]))
    np.testing.assert_allclose(step, [0.0, -1e-3], rtol=1e-12)


def test_a_radius_of_any_size_is_kept():
    """Rounding puts the root of the secular equation on either side of its bound."""
    rng = np.random.default_rng(0)
    for _ in range(2000):
        n = rng.integers(1, 4)
        curvature, radius = 10.0 ** rng.uniform(-6, 9, n), 10.0 ** rng.uniform(-16, -3)
        slope = rng.normal(size=n) * 10.0 ** rng.uniform(-6, 6)
        step = boxed_step(slope, np.diag(curvature), radius, np.full(n, -np.inf),
                          np.full(n, np.inf))
        assert np.linalg.norm(step) <= radius * (1.0 + 1e-6)
