"""PIRLS: Newton in a trust region, on an arrow model (DESIGN A4).

    theta <- theta - (d2F)^-1 dF

The step solves the exact Hessian by conjugate gradients preconditioned with the arrow factor of
the majorized H, to the accuracy that superlinear convergence needs (Dembo, Eisenstat and Steihaug
1982), and no farther than a trust radius in the metric of H (Steihaug 1983): where coordinates
and decoders trade against each other F curves downwards, and a quadratic model foretells
hundreds of nats. Its length has a meaning: the majorizer's own step is as long as the decrement,
and a row that is alone moves by so many of its posterior standard deviations. Every step must
decrease F; a shorter one is an earlier point of the same path. Where H is not positive definite, or
the radius has fallen far below the step of H itself, its diagonal is raised (Levenberg).
What step is tried (`_descent`) and how it is taken (`_accept`, and `_escape` at a saddle) know
nothing of each other; the radius is between them. Row-local sweeps, in which each row
accepts or rejects its own step, go between joint steps while far from the mode or held back.

Where a factor costs as much as many products with H, one of a state nearby stands in for it: the
step solves the same system, in a few iterations more, and the mode is told by a factor of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from reml_sae.engine.pcg import PCGResult, preconditioned_cg
from reml_sae.engine.protocol import InnerModel, InnerPoint, Theta
from reml_sae.errors import NotPositiveDefiniteError
from reml_sae.linalg import Factor

Point = TypeVar("Point", bound=InnerPoint)

MAX_DAMPING = 1e8
FIRST_DAMPING = 1e-2
LENGTHS, SHORTER, LONGER = 5, 0.25, 2.0
"""How many lengths of a step are tried at most, each so much shorter; what a good one is worth."""
ALONE, FOLLOW_SWEEPS = 2, 4
"""Refusals of a joint step after which rows follow its border by themselves, in so many sweeps."""
ENOUGH, POOR, GOOD = 1e-4, 0.25, 0.75
"""Shares of the foretold fall of F from which a step is taken, and below and above which the radius
changes."""
ROUNDING = 1e-12
"""Of F, relative to it; below that a fall is as good as another."""
CRAMPED = 0.1
"""Radius, in decrements, below which H is damped."""
IDLE = 3
"""Steps in a row that neither lower F by more than rounding nor halve the decrement: it has come to
its own rounding."""
MOST_WALLS = 6
"""Steps of a solve that may lead to states without an objective: along these it would creep for
ever."""
MOST_ITERATIONS, FAR = 60, 12
"""Iterations of conjugate gradients at most, and those after which a factor is of no state nearby.
"""
ESCAPES = 0.5, 0.1, 0.02, 4e-3, 8e-4
"""Lengths of steps away from a saddle: near where a mode forks its branches are close."""
LOOK_AROUND, LOOKED_FOR = 0.1, 1e-4
"""Decrement by a damped H below which negative curvature is looked for, and the relative
residual of the solves that do nothing else."""


class InnerStatus(Enum):
    """How an inner solve ended."""

    CONVERGED = "the Newton decrement fell below the tolerance at a minimum"
    MAX_ITER = "the iteration budget ran out before the state was stationary"
    STALLED = "no step, however short, decreased the objective further"
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
        Levenberg damping of H in the last step.
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
    damping, radius, decrement, walls, idle = 0.0, np.inf, np.inf, 0, 0

    def ended(status: InnerStatus) -> InnerSolution[Point]:
        return InnerSolution(point.theta, point, status, iteration, decrement, damping)

    for iteration in range(max_iter + 1):
        check()
        descent = None if near is None else _descent_near(point, near, radius, tol)
        if descent is None:
            try:
                near, factor = None, point.factorize(damping)
            except NotPositiveDefiniteError:
                if damping >= MAX_DAMPING:
                    return ended(InnerStatus.STALLED)
                damping = max(10.0 * damping, FIRST_DAMPING)
                continue
            descent = _descent(
                point, factor, _Slope.of(point, factor), damping, radius, tol)
        rounded = descent.step.fall <= ROUNDING * (1.0 + abs(point.objective))
        idle = idle + 1 if rounded and descent.decrement > 0.5 * decrement else 0
        decrement = descent.decrement
        small, straight = decrement <= tol, descent.downhill is None
        if small and straight and damping == 0.0 and np.isfinite(point.objective):
            return ended(InnerStatus.CONVERGED)
        if idle > IDLE:
            return ended(InnerStatus.STALLED)
        if iteration == max_iter:
            break
        moved: Theta | None = None
        if descent.downhill is not None and (small or damping > 0.0):
            moved = _escape(model, point, rho, descent.downhill)
            if moved is None and small and damping == 0.0:
                return ended(InnerStatus.SADDLE)
        held_back, before = damping > 0.0 or descent.step.length >= radius, radius
        if moved is None:
            moved, radius, walled = _accept(model, point, rho, descent, radius)
            walls += walled
        if moved is None and near is not None:
            near, radius = None, before
            continue
        if walls >= MOST_WALLS:
            return ended(InnerStatus.STALLED)
        if near is None and damping == 0.0 and point.factor_is_costly:
            near = factor
        if radius < CRAMPED * decrement:
            # H does not tell what F does along its own step: its diagonal holds every parameter
            if damping >= MAX_DAMPING and moved is None:
                return ended(InnerStatus.STALLED)
            damping, radius = min(max(10.0 * damping, FIRST_DAMPING), MAX_DAMPING), np.inf
            near = None
        elif moved is not None:
            damping = 0.0 if damping <= FIRST_DAMPING else damping / 10.0
        if moved is None:
            continue
        # one row near a saddle can force a radius that stops all others: it moves by itself
        if descent.moves_rows and (decrement > 1.0 or held_back):
            moved = model.refine_rows(moved, rho)
        point = model.at(moved, rho)
    return ended(InnerStatus.MAX_ITER)


@dataclass(frozen=True)
class _Descent:
    """Where F falls from a point.

    Attributes
    ----------
    step : PCGResult
    within : callable
        The step that is no longer than what it is called with.
    decrement : float
        Of the majorized and damped H.
    downhill : Theta or None
        A direction of negative curvature, where one was met.
    moves_rows : bool
        Whether F depends on the rows, or they have been integrated out.
    """

    step: PCGResult
    within: Callable[[float], PCGResult]
    decrement: float
    downhill: Theta | None
    moves_rows: bool


class _Slope(NamedTuple):
    """The gradient with its sign changed, H^-1 times that, and the decrement."""

    downward: Theta
    newton: Theta
    decrement: float

    @classmethod
    def of(cls, point: InnerPoint, factor: Factor) -> _Slope:
        """By a factor of H, or of one nearby."""
        downward = point.gradient().scaled(-1.0)
        newton = Theta(*factor.solve(downward.xi, downward.beta))
        return cls(downward, newton, float(np.sqrt(max(downward.dot(newton), 0.0))))


def _descent_near(
    point: InnerPoint, near: Factor, radius: float, tol: float
) -> _Descent | None:
    """The step by a factor of a state nearby; None where it needs the point's own."""
    slope = _Slope.of(point, near)
    if slope.decrement <= tol:
        return None
    descent = _descent(point, near, slope, 0.0, radius, tol, FAR + 1)
    return None if descent.downhill is not None or descent.step.n_iter > FAR else descent


def _descent(
    point: InnerPoint, factor: Factor, slope: _Slope, damping: float, radius: float, tol: float,
    max_iter: int = MOST_ITERATIONS,
) -> _Descent:
    """The Newton step within the radius; by a damped H, no longer than the step of that itself.

    Near a stationary state of that, H itself may curve downwards in a direction in which symmetry
    leaves no gradient: one is looked for. Below the tolerance there is nothing else to solve for.
    """
    downward, newton, decrement = slope
    accuracy = min(0.1, max(decrement, LOOKED_FOR) if decrement <= tol else decrement)

    def within(longest: float) -> PCGResult:
        return preconditioned_cg(point.hvp, factor, downward, accuracy, max_iter=max_iter,
                                 solved=newton, longest=longest)

    if damping == 0.0:
        step = within(np.inf if decrement <= tol else radius)
        downhill = step.negative_curvature
    else:
        step, downhill = within(min(radius, decrement)), None
        if decrement <= LOOK_AROUND:
            rng = np.random.default_rng(0)
            anywhere = Theta(*(rng.normal(size=part.shape)
                               for part in (downward.xi, downward.beta)))
            downhill = preconditioned_cg(
                point.hvp, factor, anywhere, LOOKED_FOR, max_iter=max_iter).negative_curvature
    return _Descent(step, within, decrement, downhill, bool(downward.xi.any()))


def _accept(
    model: InnerModel[Point], point: Point, rho: np.ndarray, descent: _Descent, radius: float
) -> tuple[Theta | None, float, bool]:
    """The longest of a few steps that decreases F enough, None if none does; and the next radius.

    Where the whole state does not, every row may stay where it was. At last whether F had no
    value at one of them.
    """
    rounding, walled = ROUNDING * (1.0 + abs(point.objective)), False

    def share_of(foretold: float, trial: Theta) -> float:
        fall = point.objective - model.objective(trial, rho)
        return (fall + rounding) / (foretold + rounding)

    step = descent.step
    for number in range(LENGTHS):
        if number == ALONE and descent.moves_rows:
            # along a bent valley the border goes far where rows follow it by themselves
            trial = model.merge_rows(
                point.theta, model.retract(point.theta, descent.step.x), rho)
            trial = model.refine_rows(trial, rho, FOLLOW_SWEEPS)
            if share_of(descent.step.fall, trial) >= ENOUGH:
                return trial, descent.step.length, walled
        if number:
            step = descent.within(SHORTER * step.length)
        trial = model.retract(point.theta, step.x)
        share = share_of(step.fall, trial)
        if not share >= ENOUGH and descent.moves_rows:
            trial = model.merge_rows(point.theta, trial, rho)
            share = share_of(step.fall, trial)
        walled |= share == -np.inf
        if share >= ENOUGH:
            if share < POOR:
                return trial, SHORTER * step.length, walled
            if number:
                return trial, step.length, walled
            grows = share > GOOD and step.length >= radius
            return trial, LONGER * radius if grows else radius, walled
    return None, SHORTER * step.length, walled


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
