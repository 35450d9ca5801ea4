"""Coordinates of the search over V: standard deviations of priors, frames of what has no box."""

import numpy as np
import pytest

from reml_sae.engine import Outer, OuterPart
from reml_sae.engine.chart import Chart


def part(kind, box, quadratic):
    n = len(box)
    return OuterPart(kind, tuple(f"{kind}{j}" for j in range(n)), np.array(box, float),
                     np.full(n, quadratic))


OUTER = Outer((part("strength", [(-9.0, 18.0), (-12.0, 5.0)], True),
               part("shape", [(-1.0, 2.0)], False), part("fixed", [(-np.inf, np.inf)] * 2, False)),
              part("family", [(-20.0, 20.0)], True))
FRAME = np.diag([1.0, 1.0, 0.5, 1.0, 1.0, 1.0])
FRAME[3:5, 3:5] = [[2.0, 0.3], [0.3, 0.7]]


@pytest.mark.parametrize("seed", range(5))
def test_tangent(seed):
    rng = np.random.default_rng(seed)
    rho, origin = rng.normal(size=(2, 6)) * [2.0, 2.0, 0.2, 1.0, 1.0, 1.0]
    chart = Chart(OUTER, origin)
    np.testing.assert_allclose(chart.moved(rho, FRAME, np.zeros(6)), rho, atol=1e-14)
    step = chart.step(rho, origin)
    np.testing.assert_allclose(chart.moved(rho, np.eye(6), step), origin, atol=1e-14)
    found = [(chart.moved(rho, FRAME, step) - chart.moved(rho, FRAME, -step)) / 2e-6
             for step in 1e-6 * np.eye(6)]
    np.testing.assert_allclose(chart.tangent(rho, FRAME).T, found, atol=1e-6)


def test_longest_steps_end_on_the_box():
    rho = np.array([1.0, -3.0, 0.5, 0.0, 0.0, -2.0])
    chart = Chart(OUTER, np.zeros(6))
    low, high = OUTER.bounds.T
    least, most = chart.box(rho, FRAME)
    for step, of_strengths, of_others in ((least, high, low), (most, low, high)):
        end = np.where(chart.deviations, of_strengths, of_others)
        boxed = np.isfinite(step)
        np.testing.assert_array_equal(boxed, np.isfinite(end))
        found = chart.moved(rho, FRAME, np.where(boxed, step, 0.0))
        np.testing.assert_allclose(found[boxed], end[boxed], atol=1e-9)
    # a step beyond zero deviation is one to infinite strength
    assert chart.moved(rho, FRAME, np.array([-9.0, 0.0, 0.0, 0.0, 0.0, 0.0]))[0] == 18.0


def test_a_dispersion_is_no_deviation_of_a_prior():
    np.testing.assert_array_equal(Chart(OUTER, np.zeros(6)).deviations,
                                  [True, True, False, False, False, False])
