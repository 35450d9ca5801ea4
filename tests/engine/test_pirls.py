"""The inner solve: stationary where it says so, the same mode as a general optimiser."""

import numpy as np
import pytest
from scipy.optimize import minimize

from reml_sae.engine import InnerStatus, Theta, criterion, preconditioned_cg, solve_inner
from reml_sae.models.sae import point as points
from tests.models.sae.kinds import CARRIED
from tests.models.sae.systems import MODELS, at_mode, random_direction

every = pytest.mark.parametrize("name", MODELS)


@every
def test_converged_means_stationary(name):
    model = MODELS[name]()
    solution = solve_inner(model, model.initial_rho(), tol=1e-9)
    assert solution.status is InnerStatus.CONVERGED
    gradient = solution.point.gradient()
    step = Theta(*solution.point.factorize().solve(gradient.xi, gradient.beta))
    assert np.sqrt(gradient.dot(step)) <= 1e-9
    assert solution.point.objective <= model.objective(model.initial_theta(), model.initial_rho())


@pytest.mark.parametrize("name", ["ellipse", "two-circles"])
def test_a_general_optimiser_finds_nothing_better(name):
    model = at_mode(name)
    rho, mode = model.initial_rho(), model.initial_theta()
    shape = mode.xi.shape
    carried = np.ones(shape, bool)
    carried[:, model.assignment.dim:] = model.active_coordinates

    def theta(x):
        return Theta(x[:mode.xi.size].reshape(shape), x[mode.xi.size:].reshape(mode.beta.shape))

    def objective(x):
        point = model.at(theta(x), rho)
        gradient = point.gradient()
        return point.objective, np.concatenate([(gradient.xi * carried).ravel(),
                                                gradient.beta.ravel()])

    rng = np.random.default_rng(0)
    start = np.concatenate([mode.xi.ravel(), mode.beta.ravel()])
    start += 1e-2 * rng.normal(size=start.size)
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000,
                     "ftol": 1e-15, "gtol": 1e-8})
    assert found.fun >= model.objective(mode, rho) - 1e-6


def test_an_exhausted_budget_is_not_called_converged():
    model = MODELS["three-shapes"]()
    solution = solve_inner(model, model.initial_rho(), tol=1e-12, max_iter=1)
    assert solution.status is InnerStatus.MAX_ITER
    assert not solution.converged


def test_no_row_near_a_saddle_holds_up_the_others():
    """Starts that differ by rounding alone all reach a mode."""
    kind = next(kind for kind in CARRIED if kind.config["kind"] == "softmax_assignment_sparsity")
    for seed in range(4):
        rng, theta = np.random.default_rng(seed), kind.model().initial_theta()
        for weight in kind.weights:
            model = kind.model(weight=weight, learnable=False)
            moved = theta.xi * (1.0 + 1e-12 * rng.normal(size=theta.xi.shape))
            solution = solve_inner(model, model.initial_rho(), Theta(moved, theta.beta), tol=1e-9,
                                   max_iter=300)
            assert solution.converged, (seed, weight, solution.status)
            theta = solution.theta


def test_a_stationary_saddle_is_left():
    from reml_sae.manifolds import Circle
    from tests.models.sae.systems import build

    model = build([Circle(1)], noise=0.05, dispersion=0.05)
    rho = model.initial_rho()
    mode = solve_inner(model, rho, tol=1e-10).theta
    xi = mode.xi.copy()
    xi[0] += np.pi  # the far side of the circle: a maximum of this row's likelihood
    solution = solve_inner(model, rho, Theta(xi, mode.beta), tol=1e-8)
    assert solution.converged
    assert solution.point.objective == pytest.approx(model.objective(mode, rho), abs=1e-6)


@every
def test_rows_never_get_worse(name):
    model = MODELS[name]()
    theta, rho = model.initial_theta(), model.initial_rho()
    before = model.row_objective(theta, rho)
    after = model.row_objective(model.refine_rows(theta, rho, 5), rho)
    assert (after <= before + 1e-12 * np.abs(before)).all()


@every
def test_conjugate_gradients_solve_the_exact_hessian(name):
    model = at_mode(name)
    point = model.at(model.initial_theta(), model.initial_rho())
    b = random_direction(model, np.random.default_rng(1))
    found = preconditioned_cg(point.hvp, point.factorize(), b, 1e-11)
    assert found.converged and found.negative_curvature is None
    assert point.hvp(found.x).plus(b, -1.0).max_abs() <= 1e-7 * b.max_abs()


class Walled:
    """A model whose objective has no value where beta has moved farther than so from its start."""

    def __init__(self, model, reach):
        self.model, self.start, self.reach = model, model.initial_theta().beta, reach

    def __getattr__(self, name):
        return getattr(self.model, name)

    def objective(self, theta, rho):
        far = np.linalg.norm(theta.beta - self.start) > self.reach
        return np.inf if far else self.model.objective(theta, rho)


def test_a_solve_does_not_creep_along_a_wall():
    model = MODELS["ellipse"]()
    rho, start = model.initial_rho(), model.initial_theta()
    way = np.linalg.norm(solve_inner(model, rho, tol=1e-8).theta.beta - start.beta)
    solution = solve_inner(Walled(model, 0.3 * way), rho, tol=1e-8)
    assert solution.status is InnerStatus.STALLED
    assert solution.n_iter < 30
    assert solution.point.objective < model.objective(start, rho)


@pytest.mark.parametrize("name", ["two-circles", "three-shapes"])
def test_a_factor_of_a_state_nearby_leads_to_the_same_mode(name, monkeypatch):
    """By fewer factors, and V and its gradient are those of a factor at the mode."""
    monkeypatch.setattr(points, "COSTLY_BORDER", 0)
    made = []
    factorize = points.SAEPoint.factorize
    monkeypatch.setattr(points.SAEPoint, "factorize",
                        lambda self, damping=0.0: made.append(self) or factorize(self, damping))
    model = at_mode(name)
    rho = model.initial_rho() + 0.1
    found = {}
    for costly in (False, True):
        monkeypatch.setattr(points.SAEPoint, "factor_is_costly", costly)
        near = criterion(model, model.initial_rho(), tol=1e-9)
        made.clear()
        value = criterion(model, rho, theta=model.initial_theta(), tol=1e-9, near=near.inner)
        assert value.inner.converged
        found[costly] = value, len({id(point) for point in made})
    (own, all_made), (near, few) = found[False], found[True]
    assert few < all_made
    assert near.value == pytest.approx(own.value, abs=1e-8)
    np.testing.assert_allclose(near.gradient, own.gradient, rtol=1e-6, atol=1e-7)


def test_a_factor_of_another_problem_does_no_harm(monkeypatch):
    monkeypatch.setattr(points.SAEPoint, "factor_is_costly", True)
    model = at_mode("two-circles")
    rho = model.initial_rho()
    far = model.at(model.initial_theta(), rho + 6.0).factorize()
    found = solve_inner(model, rho + 0.2, tol=1e-9, near=far)
    expected = solve_inner(model, rho + 0.2, tol=1e-9)
    assert found.converged
    assert found.point.objective == pytest.approx(expected.point.objective, abs=1e-8)


class Dense:
    """A factor of a positive definite matrix, for vectors whose rows are empty."""

    def __init__(self, matrix):
        self.matrix = matrix

    def solve(self, rows, border):
        return rows, np.linalg.solve(self.matrix, border)


@pytest.mark.parametrize("least", [0.1, -1.0], ids=["definite", "indefinite"])
def test_the_path_of_conjugate_gradients_is_left_at_its_bound(least):
    """Lengths and falls are those of the steps, and both grow with the bound."""
    rng, n = np.random.default_rng(0), 8
    metric = np.cov(rng.normal(size=(n, 3 * n))) + np.eye(n)
    turn = np.linalg.qr(rng.normal(size=(n, n)))[0]
    K, nothing = turn @ np.diag(np.linspace(least, 3.0, n)) @ turn.T, np.zeros((0, 1))
    b, last = Theta(nothing, rng.normal(size=(n, 1))), 0.0
    for bound in (0.1, 1.0, 10.0, 100.0, np.inf):
        found = preconditioned_cg(lambda v: Theta(nothing, K @ v.beta), Dense(metric), b, 1e-8, n,
                                  longest=bound)
        x = found.x.beta
        assert found.length == pytest.approx(np.sqrt(np.vdot(x, metric @ x)), rel=1e-8)
        assert found.fall == pytest.approx(np.vdot(b.beta - 0.5 * K @ x, x), rel=1e-8)
        assert found.length <= bound * (1.0 + 1e-12)
        assert found.converged or found.length == bound or bound == np.inf
        assert found.fall >= last or bound == np.inf
        last = found.fall
    if least < 0.0:
        down = found.negative_curvature.beta
        assert np.vdot(down, K @ down) <= 0.0
    else:
        np.testing.assert_allclose(K @ x, b.beta, atol=1e-6)


@every
def test_the_last_digits_take_few_steps(name):
    """Falls within the rounding of F say nothing about the radius, which would shrink for ever."""
    model = at_mode(name)
    direction = random_direction(model, np.random.default_rng(3))
    for size in (1e-5, 1e-7):
        start = model.retract(model.initial_theta(), direction, size)
        solution = solve_inner(model, model.initial_rho(), start, tol=1e-8)
        assert solution.converged
        assert solution.n_iter <= 6
