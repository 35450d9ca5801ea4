"""PIRLS: damped Newton on an arrow model (DESIGN A4).

    theta <- theta - (d2F)^-1 dF

The step solves the exact Hessian by conjugate gradients preconditioned with the arrow factor of
the majorized H, to the accuracy that superlinear convergence needs (Dembo, Eisenstat and Steihaug
1982); it falls back to H itself at negative curvature or under Levenberg damping. Every step must
decrease F. What step is tried (`_descent`) and how it is taken (`_accept`, and `_escape` at a
saddle) know nothing of each other; the damping is between them. Row-local sweeps, in which each row
accepts or rejects its own step, go between joint steps while far from the mode or damped.

Where a factor costs as much as many products with H, one of a state nearby stands in for it: the
step solves the same system, in a few iterations more, and the mode is told by a factor of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

import numpy as np

from reml_sae.engine.pcg import preconditioned_cg
from reml_sae.engine.protocol import InnerModel, InnerPoint, Theta
from reml_sae.errors import NotPositiveDefiniteError
from reml_sae.linalg import Factor

Point = TypeVar("Point", bound=InnerPoint)

MAX_DAMPING = 1e8
FIRST_DAMPING = 1e-2
FOLLOW_SWEEPS = 4
ESCAPES = 0.5, 0.1, 0.02, 4e-3, 8e-4
"""Lengths of steps away from a saddle: near where a mode forks its branches are close."""
FAR = 12
"""Iterations of conjugate gradients from which a factor is of no state nearby."""
LOOK_AROUND, LOOKED_FOR = 0.1, 1e-4
"""Decrement of a damped step below which negative curvature is looked for, and the relative
residual of the solves that do nothing else."""


MOST_WALLS = 5
"""Times that a solve may meet states without an objective: along these it would creep for ever."""


class InnerStatus(Enum):
    """How an inner solve ended."""

    CONVERGED = "the Newton decrement fell below the tolerance at a minimum"
    MAX_ITER = "the iteration budget ran out before the state was stationary"
    STALLED = "no damped step decreased the objective further"
    SADDLE = "the state is stationary but the exact Hessian has negative curvature"


@dataclass(frozen=True)
class InnerSolution(Generic[Point]):
    """Mode of F at fixed rho.

    Attributes
    ----------
    theta : Theta
    point : InnerPoint
        The model at ``theta``.
    status : InnerStatus
    n_iter : int
        Joint Newton steps.
    decrement : float
        Newton decrement (g^T H^-1 g)^(1/2), in units of the square root of nats.
    damping : float
        Levenberg damping of the last step.
    """

    theta: Theta
    point: Point
    status: InnerStatus
    n_iter: int
    decrement: float
    damping: float

    @property
    def converged(self) -> bool:
        """Whether the state is a stationary minimum."""
        return self.status is InnerStatus.CONVERGED


def solve_inner(
    model: InnerModel[Point],
    rho: np.ndarray,
    theta: Theta | None = None,
    *,
    tol: float = 1e-6,
    max_iter: int = 100,
    near: Factor | None = None,
    check: Callable[[], None] = lambda: None,
) -> InnerSolution[Point]:
    """Minimise F over theta at fixed rho.

    Parameters
    ----------
    model : InnerModel
    rho : (n_rho,) array
    theta : Theta, optional
        Start; the model's own initial state by default.
    tol : float
        Bound on the Newton decrement. F is in nats, so the bound needs no scale.
    max_iter : int
    near : Factor, optional
        Of H at a state and strengths nearby, where a factor is costly.
    check : callable
        Called before every step; raises where no more is to be made.

    Returns
    -------
    InnerSolution
        Always the best state met, with its status.
    """
    point = model.at(model.initial_theta() if theta is None else theta, rho)
    damping, decrement, walls = 0.0, np.inf, 0

    def ended(status: InnerStatus) -> InnerSolution[Point]:
        return InnerSolution(point.theta, point, status, iteration, decrement, damping)

    for iteration in range(max_iter + 1):
        check()
        moved: Theta | None = None
        descent = None if near is None else _descent_near(point, near, tol)
        try:
            if descent is None:
                near, factor = None, point.factorize(damping)
                descent = _descent(point, factor, damping, tol)
        except NotPositiveDefiniteError:
            pass  # more damping
        else:
            decrement = descent.decrement
            small, straight = decrement <= tol, descent.downhill is None
            if small and straight and damping == 0.0 and np.isfinite(point.objective):
                return ended(InnerStatus.CONVERGED)
            if iteration == max_iter:
                break
            if descent.downhill is not None and (small or damping > 0.0):
                moved = _escape(model, point, rho, descent.downhill)
                if moved is None and small and damping == 0.0:
                    return ended(InnerStatus.SADDLE)
            if moved is None:
                moved, walled = _accept(model, point, rho, descent)
                walls += walled
            if moved is None and near is not None:
                near = None
                continue
        if descent is None or moved is None:
            if damping >= MAX_DAMPING or walls >= MOST_WALLS:
                return ended(InnerStatus.STALLED)
            damping = max(10.0 * damping, FIRST_DAMPING)
            continue
        if near is None and damping == 0.0 and point.factor_is_costly:
            near = factor
        damping = 0.0 if damping <= FIRST_DAMPING else damping / 10.0
        # one row near a saddle can force a damping that stops all others: it moves by itself
        if descent.moves_rows and (decrement > 1.0 or damping > 0.0):
            moved = model.refine_rows(moved, rho)
        point = model.at(moved, rho)
    return ended(InnerStatus.MAX_ITER)


@dataclass(frozen=True)
class _Descent:
    """Where F falls from a point.

    Attributes
    ----------
    step : Theta
    predicted : float
        Fall of F in the whole step.
    decrement : float
        Of the majorized and damped H.
    downhill : Theta or None
        A direction of negative curvature, where one was met.
    moves_rows : bool
        Whether F depends on the rows, or they have been integrated out.
    n_iter : int
        Of conjugate gradients.
    """

    step: Theta
    predicted: float
    decrement: float
    downhill: Theta | None
    moves_rows: bool
    n_iter: int


def _descent_near(point: InnerPoint, near: Factor, tol: float) -> _Descent | None:
    """The Newton step by a factor of a state nearby; None where it needs the point's own."""
    descent = _descent(point, near, 0.0, tol)
    own = descent.decrement <= tol or descent.downhill is not None or descent.n_iter > FAR
    return None if own else descent


def _descent(point: InnerPoint, factor: Factor, damping: float, tol: float) -> _Descent:
    """The Newton step; under damping that of H + damping * diag(H).

    Near a stationary state of that, H itself may curve downwards in a direction in which symmetry
    leaves no gradient: one is looked for. Below the tolerance there is nothing else to solve for.

    Raises
    ------
    NotPositiveDefiniteError
    """
    gradient = point.gradient()
    negative = gradient.scaled(-1.0)
    step = Theta(*factor.solve(negative.xi, negative.beta))
    decrement = float(np.sqrt(max(negative.dot(step), 0.0)))
    downhill: Theta | None = None
    n_iter = 0
    if damping == 0.0:
        accuracy = max(decrement, LOOKED_FOR) if decrement <= tol else decrement
        result = preconditioned_cg(
            point.hvp, factor, negative, rtol=min(0.1, accuracy), max_iter=60, solved=step
        )
        step, downhill, n_iter = result.x, result.negative_curvature, result.n_iter
    elif decrement <= LOOK_AROUND:
        rng = np.random.default_rng(0)
        anywhere = Theta(*(rng.normal(size=part.shape) for part in (gradient.xi, gradient.beta)))
        downhill = preconditioned_cg(
            point.hvp, factor, anywhere, rtol=LOOKED_FOR, max_iter=60).negative_curvature
    return _Descent(step, -0.5 * gradient.dot(step), decrement, downhill, bool(gradient.xi.any()),
                    n_iter)


def _accept(
    model: InnerModel[Point], point: Point, rho: np.ndarray, descent: _Descent
) -> tuple[Theta | None, bool]:
    """The longest of a few steps that decreases F enough, None if there is none.

    And whether even the shortest led to where F has no value.
    """
    slack = 1e-14 * (1.0 + abs(point.objective)) * 10.0
    for factor in (1.0, 0.5, 0.1):
        trial = model.retract(point.theta, descent.step, factor)
        value = model.objective(trial, rho)
        enough = 1e-4 * factor * max(descent.predicted, 0.0)
        if value <= point.objective - enough + slack:
            return trial, False
    if not descent.moves_rows:
        return None, not np.isfinite(value)
    # one row near a saddle would damp all others: rows follow the new border by themselves
    trial = model.merge_rows(point.theta, model.retract(point.theta, descent.step), rho)
    trial = model.refine_rows(trial, rho, FOLLOW_SWEEPS)
    value = model.objective(trial, rho)
    enough = 1e-4 * max(descent.predicted, 0.0)
    return (trial if value < point.objective - enough else None), not np.isfinite(value)


def _escape(
    model: InnerModel[Point], point: Point, rho: np.ndarray, downhill: Theta
) -> Theta | None:
    """The best state along a direction of negative curvature; None if F does not fall."""
    largest = downhill.max_abs()
    best, best_value = None, point.objective - 1e-13 * (1.0 + abs(point.objective))
    for length in (sign * size for size in ESCAPES for sign in (1.0, -1.0)):
        trial = model.retract(point.theta, downhill, length / largest)
        value = model.objective(trial, rho)
        if value < best_value:
            best, best_value = trial, value
    return best
