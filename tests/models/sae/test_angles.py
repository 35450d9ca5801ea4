"""What Laplace's method misses of angles, against the integral over the circle."""

import numpy as np
import pytest
from scipy.integrate import quad

from reml_sae.engine import Theta
from reml_sae.manifolds import Circle
from reml_sae.models.sae.angles import LARGE, MissingAngles, missing
from reml_sae.models.sae.rows import row_evidence
from tests.models.sae.systems import build


@pytest.mark.parametrize("kappa", [1e-6, 0.3, 3.0, 30.0, 0.999 * LARGE, 1.001 * LARGE])
def test_what_is_missing(kappa):
    mass, _ = quad(lambda t: np.exp(kappa * (np.cos(t) - 1.0)), -np.pi, np.pi, points=[0.0])
    expected = -np.log(mass) + 0.5 * np.log(2.0 * np.pi / kappa)
    assert missing(np.array([kappa]))[0][0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kappa", [1e-3, 1.0, 40.0, 99.0, 101.0, 1e5])
def test_its_slope(kappa):
    h = 1e-4 * kappa
    above, below = missing(np.array([kappa + h, kappa - h]))[0]
    assert missing(np.array([kappa]))[1][0] == pytest.approx((above - below) / (2.0 * h), rel=1e-5)


def test_series_and_function_meet():
    (above, below), slopes = missing(LARGE * np.array([1.0 + 1e-12, 1.0 - 1e-12]))
    assert above == pytest.approx(below, abs=1e-12)
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-8)


def test_an_angle_that_no_row_knows_is_worth_its_prior():
    """Of itself Laplace's method is paid without end for a circle that shrinks to a point."""
    model = build([Circle(1)], n=30)
    rho, theta = model.initial_rho(), model.initial_theta()
    point = Theta(theta.xi, 1e-6 * theta.beta)
    exact = model.with_integration("quadrature").row_quadrature(point.beta, rho).row_values()
    shared = (row_evidence(model, point, rho) - exact)[0]
    np.testing.assert_allclose(row_evidence(model, point, rho) - exact, shared, atol=1e-4)
    far = Theta(theta.xi, 1e-9 * theta.beta)
    np.testing.assert_allclose(
        row_evidence(model, far, rho), row_evidence(model, point, rho), atol=1e-4)


def test_a_singular_block_misses_nothing():
    blocks = np.array([[[0.0]], [[2.0]]])
    found = MissingAngles.of(blocks, np.array([0]), np.ones((2, 1), bool))
    np.testing.assert_allclose(found.values, [0.0, missing(np.array([2.0]))[0][0]])
    assert found.slope[0, 0, 0] == 0.0
