"""What one state of a prior tells of V, where the data tell all its functions alike."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from reml_sae.engine import Outer, OuterPart
from reml_sae.engine.chart import Chart
from reml_sae.engine.criterion import CriterionValue
from reml_sae.engine.fellner_schall import CLIP, _step
from reml_sae.engine.response import data_share, foretold_hessian, has_formula

M, PRECISION = 7, 3.0
"""Functions of the prior, and what the data tell each of them at a dispersion of 1."""
OUTER = Outer((OuterPart("strength", ("strength",), np.array([[-30.0, 30.0]]), np.array([True])),),
              OuterPart("family", ("phi",), np.array([[-9.0, 9.0]]), np.array([True])))
ORIGIN = np.array([0.3, 0.0])


def level(rho, estimate):
    """V of one prior whose functions have this estimate without it, whatever the dispersion."""
    strength, d = np.exp(rho[0]), PRECISION * np.exp(-rho[1])
    fit = strength * d * estimate**2 / (strength + d)
    return 0.5 * M * (fit + np.log(strength + d) - rho[0])


def found_at(rho, estimate):
    strength, d = np.exp(rho[0]), PRECISION * np.exp(-rho[1])
    energy = 0.5 * M * strength * (d * estimate / (strength + d)) ** 2
    half_logdet = 0.5 * M * strength / (strength + d)
    explicit = {"objective": np.array([energy, 5.0]), "half_logdet": np.array([half_logdet, 0.0]),
                "log_normalizer": np.array([-0.5 * M, 0.0])}
    inner = SimpleNamespace(point=SimpleNamespace(dispersion_energy=40.0))
    return CriterionValue(level(rho, estimate), np.array([energy + half_logdet - 0.5 * M, 0.0]),
                          {}, inner, 0.0, explicit, None)


def best(estimate):
    """The log strength at which V is least, by search."""
    return minimize_scalar(lambda log: level(np.array([log, 0.0]), estimate), (-8.0, 4.0),
                           bounds=(-8.0, 12.0), method="bounded", options={"xatol": 1e-10}).x


@pytest.mark.parametrize("estimate", [0.65, 0.9, 2.0])
@pytest.mark.parametrize("start", [-4.0, -1.0, 0.5, 3.0, 6.0])
def test_one_step_goes_to_the_least_v(start, estimate):
    rho = np.array([start, 0.0])
    value, chart = found_at(rho, estimate), Chart(OUTER, ORIGIN)
    gradient = chart.tangent(rho, np.eye(2)).T @ value.gradient
    curvature = foretold_hessian(chart, rho, value)[0, 0]
    moved = chart.moved(rho, np.eye(2), np.array([-gradient[0] / curvature, 0.0]))
    assert moved[0] == pytest.approx(best(estimate), abs=1e-4)
    step = np.clip(best(estimate) - start, -CLIP, CLIP)
    assert _step(value, OUTER.dispersion)[0] == pytest.approx(step, abs=1e-4)


@pytest.mark.parametrize("estimate", [0.0, 0.3, 0.55])
@pytest.mark.parametrize("start", [-4.0, 0.5, 6.0])
def test_where_v_falls_all_the_way_one_step_goes_to_the_end(start, estimate):
    rho = np.array([start, 0.0])
    value, chart = found_at(rho, estimate), Chart(OUTER, ORIGIN)
    gradient = chart.tangent(rho, np.eye(2)).T @ value.gradient
    curvature = foretold_hessian(chart, rho, value)[0, 0]
    moved = chart.moved(rho, np.eye(2), np.array([-gradient[0] / curvature * (1 + 1e-9), 0.0]))
    assert moved[0] == 30.0 and curvature > 0.0
    assert _step(value, OUTER.dispersion)[0] == CLIP


def test_the_curvature_at_the_minimum_is_that_of_v():
    for estimate in (0.7, 1.0, 2.0):
        rho, chart = np.array([best(estimate), 0.0]), Chart(OUTER, ORIGIN)
        found = foretold_hessian(chart, rho, found_at(rho, estimate))[0, 0]
        h = 1e-3
        around = [level(chart.moved(rho, np.eye(2), np.array([step, 0.0])), estimate)
                  for step in (-h, 0.0, h)]
        assert found == pytest.approx(np.dot(around, [1.0, -2.0, 1.0]) / h**2, rel=1e-3)


@pytest.mark.parametrize("estimate", [0.2, 1.0])
def test_mixed_derivative_with_the_dispersion(estimate):
    rho, chart = np.array([1.2, 0.4]), Chart(OUTER, ORIGIN)
    found = foretold_hessian(chart, rho, found_at(rho, estimate))
    h = 1e-4
    expected = sum(
        a * b * level(chart.moved(rho, np.eye(2), h * np.array([a, b])), estimate)
        for a in (1.0, -1.0) for b in (1.0, -1.0)) / (4.0 * h**2)
    assert found[0, 1] == found[1, 0] == pytest.approx(expected, rel=1e-4)
    assert found[1, 1] == 40.0


def test_share_of_the_data():
    rho = np.array([0.8, 0.5])
    d = PRECISION * np.exp(-0.5)
    np.testing.assert_allclose(data_share(found_at(rho, 1.0)), [d / (d + np.exp(0.8)), 1.0])


def test_a_strength_whose_normaliser_is_in_integrals_has_no_formula():
    """As those of the amplitudes of rows that are integrated out: no Fellner-Schall step of it."""
    found = found_at(ORIGIN, 1.0)
    assert has_formula(OUTER, found).all()
    found.explicit["log_normalizer"][:] = 0.0
    assert has_formula(OUTER, found).tolist() == [False, True]
