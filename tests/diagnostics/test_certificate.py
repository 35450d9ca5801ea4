"""The Laplace certificate against quadrature, and the Pareto shape against known tails."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import genpareto

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.diagnostics import laplace_certificate, pareto_shape
from reml_sae.engine import Theta, solve_inner
from reml_sae.models import MixedModel
from tests.models.sae.systems import at_mode


@pytest.mark.parametrize("shape", [-0.3, 0.2, 0.5, 0.9])
def test_pareto_shape(shape):
    weights = genpareto.rvs(shape, size=(20_000, 20), random_state=1)
    found = pareto_shape(np.log(weights))
    assert found.mean() == pytest.approx(shape, abs=0.1)
    assert found.std() < 0.15


def test_a_linear_row_is_exact():
    model = at_mode("line")
    found = laplace_certificate(model, model.initial_theta(), model.initial_rho())
    np.testing.assert_allclose(found.log_ratio, 0.0, atol=1e-10)


def test_a_circle_against_quadrature():
    model = at_mode("ellipse")
    theta, rho = model.initial_theta(), model.initial_rho()
    found = laplace_certificate(model, theta, rho, n_draws=4000)
    grid = np.linspace(-np.pi, np.pi, 500, endpoint=False)
    values = np.array([model.row_objective(Theta(np.full_like(theta.xi, t), theta.beta), rho)
                       for t in grid])
    integral = logsumexp(-values, axis=0) + np.log(grid[1] - grid[0])
    curvature = model.at(theta, rho).row_hessian("exact")[:, 0, 0]
    laplace = -model.row_objective(theta, rho) + 0.5 * np.log(2.0 * np.pi / curvature)
    error = found.log_ratio - (integral - laplace)
    assert (np.abs(error) < 6.0 * found.standard_error + 1e-3).all()
    assert np.abs(integral - laplace).max() > 0.005  # there is something to see


class FlatRow:
    """Rows of which the second knows nothing of its angle: no draw stays on the circle."""

    carried = np.ones((2, 1), bool)

    def row_objective(self, theta, rho):
        return 0.5 * theta.xi[:, 0] ** 2

    def row_sampler(self, theta, rho):
        return self

    def move(self, noise):
        return Theta(noise, np.zeros((0, 1))), np.array([0.0, -np.inf])


def test_a_row_whose_draws_all_leave_the_manifold_is_bounded_and_not_trusted():
    found = laplace_certificate(FlatRow(), Theta(np.zeros((2, 1)), np.zeros((0, 1))), np.zeros(0),
                                n_draws=100)
    np.testing.assert_allclose(found.log_ratio, [0.0, -np.log(100)], atol=1e-12)
    assert np.isinf(found.standard_error[1])
    assert found.pareto_k[0] < 0.7 and found.pareto_k[1] == np.inf


def test_seeds_repeat():
    model = at_mode("two-circles")
    arguments = model, model.initial_theta(), model.initial_rho()
    some, again = (laplace_certificate(*arguments, seed=4) for _ in range(2))
    np.testing.assert_array_equal(some.log_ratio, again.log_ratio)


def test_rows_that_are_held_several_times_are_draws_of_one():
    model = at_mode("two-circles")
    theta, rho = model.initial_theta(), model.initial_rho()
    every = np.tile(np.arange(len(theta.xi)), 10)
    one, many = laplace_certificate(model, theta, rho, n_draws=50), laplace_certificate(
        model.rows(every), Theta(theta.xi[every], theta.beta), rho, n_draws=50, copies=10)
    for figure in ("log_ratio", "standard_error", "pareto_k"):
        np.testing.assert_allclose(getattr(many, figure), getattr(one, figure), rtol=1e-8)


@pytest.mark.parametrize("family", ["gaussian", "binomial"])
def test_groups_of_a_mixed_model_against_quadrature(family):
    rng = np.random.default_rng(2)
    groups, x = np.repeat(np.arange(12), 5), rng.normal(size=60)
    eta = 0.5 + 0.8 * x + rng.normal(size=12)[groups]
    y = eta + rng.normal(size=60)
    if family == "binomial":
        y = (rng.random(60) < 1.0 / (1.0 + np.exp(-eta))).astype(float)
    model = MixedModel(y, np.column_stack([np.ones(60), x]), groups=groups, Z=np.ones(60),
                       family=family)
    rho = model.initial_rho()
    theta = solve_inner(model, rho, tol=1e-10).theta
    found = laplace_certificate(model, theta, rho, n_draws=4000)
    grid = np.linspace(-8.0, 8.0, 801)
    values = np.array([model.row_objective(Theta(np.full_like(theta.xi, b), theta.beta), rho)
                       for b in grid])
    integral = logsumexp(-values, axis=0) + np.log(grid[1] - grid[0])
    factor = model.at(theta, rho).effects.factor[0, 0]
    curvature = model.at(theta, rho).matrix("exact").rows[:, 0, 0] / factor**2
    laplace = -model.row_objective(theta, rho) + 0.5 * np.log(2.0 * np.pi / curvature)
    error = found.log_ratio - (integral - laplace)
    assert (np.abs(error) < 6.0 * found.standard_error + 1e-8).all()
    if family == "gaussian":
        np.testing.assert_allclose(found.log_ratio, 0.0, atol=1e-10)


def test_the_diagnostics_report_it():
    for n_atoms, message in ((1, "exact"), (2, "nats a row")):
        plant = planted_circles(60, 6, n_atoms, noise_sd=0.05)
        model = rs.SAEManifold(n_atoms=n_atoms, n_init=1, noise="isotropic").fit(plant.Z)
        check = next(c for c in model.diagnostics_.checks if c.name == "row integrals")
        assert check.status == "pass"
        assert abs(check.figure) < 0.25
        assert message in check.message


def test_a_good_fit_is_told_nothing_of_tails():
    """Of 200 draws many rows have a k above 0.7, and their mean is right all the same."""
    for seed in range(2):
        plant = planted_circles(100, 6, 2, noise_sd=0.1, random_state=seed)
        fit = rs.SAEManifold(2, rs.manifolds.Circle(1), noise="isotropic", n_init=1).fit(plant.Z)
        check = next(c for c in fit.diagnostics_.checks if c.name == "row integrals")
        model = fit.build_model(plant.Z)
        more = laplace_certificate(model, model.initial_theta(), fit.rho_, n_draws=2000, seed=1)
        assert check.status == "pass" and "tail" not in check.message
        error = (more.log_ratio - model.assignment.shut_gain(model.active)).mean()
        assert check.figure == pytest.approx(error, abs=0.03)
