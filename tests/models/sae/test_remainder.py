"""What Laplace's method misses of rows, against integrals over circles and log amplitudes."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import i0e

from reml_sae.engine import Theta
from reml_sae.manifolds import Circle, Euclidean, ProjectivePlane, Sphere
from reml_sae.models.sae.point import SAEPoint
from reml_sae.models.sae.remainder import (
    LARGE,
    LARGE_ON_LINES,
    Direction,
    Polar,
    Remainder,
    of_angles,
    of_directions,
    of_polar,
)
from reml_sae.models.sae.rows import row_evidence
from tests.models.sae.systems import build
from tests.models.sae.test_gated_quadrature import planted


@pytest.mark.parametrize("kappa", [1e-6, 0.3, 3.0, 30.0, 0.999 * LARGE, 1.001 * LARGE])
def test_what_is_missing(kappa):
    mass, _ = quad(lambda t: np.exp(kappa * (np.cos(t) - 1.0)), -np.pi, np.pi, points=[0.0])
    expected = -np.log(mass) + 0.5 * np.log(2.0 * np.pi / kappa)
    assert of_angles(np.array([kappa]))[0][0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("kappa", [1e-3, 1.0, 40.0, 99.0, 101.0, 1e5])
def test_its_derivatives(kappa, order):
    h = 1e-4 * kappa
    above, below = of_angles(np.array([kappa + h, kappa - h]))[order]
    assert of_angles(np.array([kappa]))[order + 1][0] == pytest.approx(
        (above - below) / (2.0 * h), rel=1e-5)


@pytest.mark.parametrize(("order", "rel"), [(0, 1e-9), (1, 1e-8), (2, 1e-6)])
def test_series_and_function_meet(order, rel):
    above, below = of_angles(LARGE * np.array([1.0 + 1e-12, 1.0 - 1e-12]))[order]
    assert above == pytest.approx(below, rel=rel)


@pytest.mark.parametrize("antipodal", [False, True])
@pytest.mark.parametrize("kappa", [1e-6, 0.3, 3.0, 30.0, 0.999 * LARGE_ON_LINES,
                                   1.001 * LARGE_ON_LINES])
def test_what_is_missing_of_directions(kappa, antipodal):
    def density(gap):  # of the cosine to the mode from one
        return np.exp(-kappa * (gap - 0.5 * antipodal * gap**2))

    mass, _ = quad(density, 0.0, min(1.0 if antipodal else 2.0, 100.0 / kappa), epsabs=0.0,
                   epsrel=1e-12, limit=400)
    value, slope = of_directions(np.array([kappa]), antipodal)
    assert value[0] == pytest.approx(-np.log(mass * kappa), abs=1e-11)
    above, below = of_directions(kappa * np.exp([1e-4, -1e-4]), antipodal)[0]
    assert slope[0] == pytest.approx((above - below) / 2e-4, rel=1e-4, abs=1e-11)


def polar_row(length, alpha, phi, radius=1.0):
    """A row at a distance from the centre of a circle: its -log integral, and Laplace's."""
    def slope(u):
        return radius * np.exp(u) * (radius * np.exp(u) - length) / phi + alpha * u

    u = brentq(slope, -30.0 / alpha**0.5, 30.0 / alpha**0.5)
    likelihood = (radius * np.exp(u)) ** 2 / phi

    def height(v):
        gap = radius * np.exp(v) - length
        return 0.5 * gap**2 / phi + 0.5 * alpha * v**2

    def density(v):
        return np.exp(height(u) - height(v)) * 2.0 * np.pi * i0e(
            radius * length * np.exp(v) / phi)

    reach = 12.0 / alpha**0.5
    mass, _ = quad(density, u - reach, u + reach, points=[u - 0.2, u, u + 0.2], limit=400)
    laplace = 0.5 * np.log((likelihood + alpha) * likelihood / (2.0 * np.pi) ** 2)
    missing = of_polar(np.array([[likelihood]]), np.array([likelihood]), np.array([alpha]),
                       np.array([alpha * u]))
    return -np.log(mass), laplace, missing.value[0]


@pytest.mark.parametrize("length", [0.5, 0.8, 1.0, 1.3, 2.0])
@pytest.mark.parametrize("alpha", [4.0, 11.0, 100.0])
@pytest.mark.parametrize("phi", [0.01, 0.04, 0.2])
def test_an_amplitude_and_an_angle_are_a_point_of_the_plane(length, alpha, phi):
    truth, laplace, missing = polar_row(length, alpha, phi)
    assert laplace + missing == pytest.approx(truth, abs=0.015)


def test_without_it_the_error_is_many_times_as_large():
    rows = [polar_row(length, alpha, 0.04) for length in (0.5, 0.8, 1.3, 2.0)
            for alpha in (4.0, 11.0)]
    before = np.mean([abs(laplace - truth) for truth, laplace, _ in rows])
    after = np.mean([abs(laplace + missing - truth) for truth, laplace, missing in rows])
    assert after < 0.1 * before


@pytest.mark.parametrize("length", [0.0, 0.3, 1.0])
def test_nothing_is_missing_of_amplitudes_where_noise_hides_the_circle(length):
    """The angle is left, of which its prior is known."""
    truth, laplace, missing = polar_row(length, 11.0, 1.0, radius=1e-5)
    assert laplace + missing == pytest.approx(truth, abs=1e-6)


def test_nothing_is_missing_without_noise():
    big, one = np.array([1e10]), np.ones(1)
    assert abs(of_polar(big[:, None], big, 10.0 * one, one).value[0]) < 1e-8


@pytest.mark.parametrize("part", range(4))
def test_derivatives_of_an_amplitude_and_its_angles(part):
    rng = np.random.default_rng(part)
    K, curvature = np.exp(2.0 * rng.normal(size=(2, 40)))
    arguments = [np.exp(2.0 * rng.normal(size=(40, 2))), K, curvature,
                 0.7 * rng.normal(size=40) * np.sqrt(K * curvature / (K + curvature))]
    found = of_polar(*arguments)
    slope = (found.kappa, found.likelihood, found.curvature, found.slope)[part]
    direction = arguments[part] * rng.normal(size=arguments[part].shape)
    values = []
    for h in (1e-5, -1e-5):
        moved = [x + h * direction if i == part else x for i, x in enumerate(arguments)]
        values.append(of_polar(*moved).value)
    expected = (values[0] - values[1]) / 2e-5
    along = slope * direction
    np.testing.assert_allclose(along.sum(1) if along.ndim == 2 else along, expected,
                               rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bounded", [
    [Polar(0, np.array([2])), Polar(None, np.array([3]))],
    [Direction(np.arange(2, 5), antipodal=False), Polar(None, np.array([5]))],
    [Direction(np.arange(3, 6), antipodal=True)],
], ids=["angles", "a direction", "a line"])
def test_derivatives_in_rows(bounded):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6, 6))
    carried = np.ones((6, 6), bool)
    carried[0, :4] = False
    at = [root @ root.transpose(0, 2, 1) + 0.5 * np.eye(6), 0.4 + np.zeros((6, 6)),
          0.3 * rng.normal(size=(6, 6))]
    turn = rng.normal(size=(6, 6, 6))
    moves = [turn + turn.transpose(0, 2, 1), *rng.normal(size=(2, 6, 6))]

    def value(h):
        blocks, curvature, slope = (x + h * v for x, v in zip(at, moves, strict=True))
        return Remainder.of(np.linalg.inv(blocks), bounded, carried, curvature, slope).values

    found = Remainder.of(np.linalg.inv(at[0]), bounded, carried, at[1], at[2])
    along = [np.einsum("nab,nab->n", found.blocks, moves[0]),
             (found.curvature * moves[1] + found.slope * moves[2]).sum(axis=1)]
    np.testing.assert_allclose(sum(along), (value(1e-5) - value(-1e-5)) / 2e-5,
                               rtol=1e-6, atol=1e-8)
    scaling = np.vdot(found.blocks, at[0]) + np.vdot(found.curvature, at[1])
    assert found.scaling == pytest.approx(scaling, rel=1e-12)


@pytest.mark.parametrize("atom", [Circle(1), Sphere(1), ProjectivePlane(2)])
def test_a_place_that_no_row_knows_is_worth_its_prior(atom):
    """Of itself Laplace's method is paid without end for an atom that shrinks to a point."""
    model = build([atom], n=30)
    rho, theta = model.initial_rho(), model.initial_theta()
    point = Theta(theta.xi, 1e-5 * theta.beta)
    exact = model.with_integration("quadrature").row_quadrature(point.beta, rho).row_values()
    shared = (row_evidence(model, point, rho) - exact)[0]
    np.testing.assert_allclose(row_evidence(model, point, rho) - exact, shared, atol=1e-3)
    far = Theta(theta.xi, 1e-6 * theta.beta)
    np.testing.assert_allclose(
        row_evidence(model, far, rho), row_evidence(model, point, rho), atol=1e-3)


@pytest.mark.parametrize("atom", [Circle(1), Sphere(2), ProjectivePlane(2)])
def test_a_share_that_vanishes_earns_nothing_by_the_place_that_it_hides(atom):
    """Or a strong entropy is worth more the stronger it is, until it is beyond all numbers."""
    model = build([atom, Euclidean(1)], n=30)
    rho, theta = model.initial_rho(), model.initial_theta()
    worth = []
    for share in (1e-4, 1e-6):
        xi = theta.xi.copy()
        xi[:, :1] = model.assignment.start(model.active, np.array([[share, 1.0 - share]]))
        carried, not_carried = (
            row_evidence(model.with_state(theta, rho, np.tile(active, (len(xi), 1))),
                         Theta(xi, theta.beta), rho)
            for active in ([True, True], [False, True]))
        worth.append(carried - not_carried)
    np.testing.assert_allclose(*worth, atol=1e-2)


def test_a_singular_block_misses_nothing():
    inverse, none = np.array([[[0.0]], [[0.5]]]), np.zeros((2, 1))
    found = Remainder.of(inverse, [Polar(None, np.array([0]))], np.ones((2, 1), bool), none, none)
    np.testing.assert_allclose(found.values, [0.0, of_angles(np.array([2.0]))[0][0]])
    assert found.blocks[0, 0, 0] == 0.0


@pytest.mark.parametrize("spread", [0.1, 0.3])
def test_rows_of_gates_have_their_integral(spread):
    """Laplace's method alone is wrong by more than 3 nats in 300 rows."""
    before, after = [], []
    for seed in range(3):
        model, _ = planted(300, 0.2, spread, seed)
        rho = model.initial_rho()
        laplace = model.with_integration("laplace")

        def error(theta, model=model, laplace=laplace, rho=rho):
            exact = model.row_quadrature(theta.beta, rho).row_values()
            return (row_evidence(laplace, theta, rho) - exact).sum()

        theta = laplace.refine_rows(model.initial_theta(), rho, 60)
        resting = np.where(np.arange(theta.xi.shape[1]) < len(model.atoms), 0.0, theta.xi)
        constants = error(Theta(resting, 1e-7 * theta.beta))  # where nothing is missing
        after.append(error(theta) - constants)
        before.append(after[-1] - SAEPoint(laplace, theta, rho).remainder.values.sum())
    assert np.abs(before).min() > 3.0
    assert np.abs(after).max() < 1.0
