"""PIRLS: damped Newton on an arrow model (DESIGN A4).

    theta <- theta - (d2F)^-1 dF

The step solves the exact Hessian by conjugate gradients preconditioned with the arrow factor of
the majorized H, to the accuracy that superlinear convergence needs (Dembo, Eisenstat and Steihaug
1982); it falls back to H itself at negative curvature or under Levenberg damping. Every step must
decrease F. Row-local sweeps, in which each row accepts or rejects its own step, go between joint
steps while far from the mode or damped.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

import numpy as np

from reml_sae.engine.pcg import preconditioned_cg
from reml_sae.engine.protocol import InnerModel, InnerPoint, Theta
from reml_sae.errors import NotPositiveDefiniteError

Point = TypeVar("Point", bound=InnerPoint)

MAX_DAMPING = 1e8
FIRST_DAMPING = 1e-2
FOLLOW_SWEEPS = 4


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

    Returns
    -------
    InnerSolution
        Always the best state met, with its status.
    """
    state = model.initial_theta() if theta is None else theta
    point = model.at(state, rho)
    damping, decrement = 0.0, np.inf
    for iteration in range(max_iter + 1):
        gradient = point.gradient()
        rows_move = bool(gradient.xi.any())  # not where they have been integrated out
        negative = gradient.scaled(-1.0)
        try:
            factor = point.factorize(damping)
        except NotPositiveDefiniteError:
            if damping >= MAX_DAMPING:
                return InnerSolution(point.theta, point, InnerStatus.STALLED, iteration, decrement,
                                     damping)
            damping = max(10.0 * damping, FIRST_DAMPING)
            continue
        step = Theta(*factor.solve(negative.xi, negative.beta))
        decrement = float(np.sqrt(max(negative.dot(step), 0.0)))
        downhill: Theta | None = None
        if damping == 0.0:
            result = preconditioned_cg(
                point.hvp, factor, negative, rtol=min(0.1, decrement), max_iter=60
            )
            step, downhill = result.x, result.negative_curvature
            if decrement <= tol and downhill is None and np.isfinite(point.objective):
                return InnerSolution(point.theta, point, InnerStatus.CONVERGED, iteration,
                                     decrement, damping)
        if iteration == max_iter:
            break
        if decrement <= tol and downhill is not None:
            moved = _escape(model, point, rho, downhill)
            if moved is None:
                return InnerSolution(point.theta, point, InnerStatus.SADDLE, iteration, decrement,
                                     damping)
        else:
            moved = _accept(model, point, rho, step, -0.5 * gradient.dot(step), rows_move)
        if moved is None:
            if damping >= MAX_DAMPING:
                return InnerSolution(point.theta, point, InnerStatus.STALLED, iteration, decrement,
                                     damping)
            damping = max(10.0 * damping, FIRST_DAMPING)
            continue
        state = moved
        damping = 0.0 if damping <= FIRST_DAMPING else damping / 10.0
        # one row near a saddle can force a damping that stops all others: it moves by itself
        if rows_move and (decrement > 1.0 or damping > 0.0):
            state = model.refine_rows(state, rho)
        point = model.at(state, rho)
    return InnerSolution(point.theta, point, InnerStatus.MAX_ITER, max_iter, decrement, damping)


def _accept(
    model: InnerModel[Point], point: Point, rho: np.ndarray, step: Theta, predicted: float,
    rows_move: bool,
) -> Theta | None:
    """The longest of a few steps that decreases F enough; None if there is none."""
    slack = 1e-14 * (1.0 + abs(point.objective)) * 10.0
    for factor in (1.0, 0.5, 0.1):
        trial = model.retract(point.theta, step, factor)
        value = model.objective(trial, rho)
        enough = 1e-4 * factor * max(predicted, 0.0)
        if value <= point.objective - enough + slack:
            return trial
    if not rows_move:
        return None
    # one row near a saddle would damp all others: rows follow the new border by themselves
    trial = model.merge_rows(point.theta, model.retract(point.theta, step), rho)
    trial = model.refine_rows(trial, rho, FOLLOW_SWEEPS)
    value = model.objective(trial, rho)
    return trial if value < point.objective - 1e-4 * max(predicted, 0.0) else None


def _escape(
    model: InnerModel[Point], point: Point, rho: np.ndarray, downhill: Theta
) -> Theta | None:
    """The best state along a direction of negative curvature; None if F does not fall."""
    size = downhill.max_abs()
    best, best_value = None, point.objective - 1e-13 * (1.0 + abs(point.objective))
    for length in (0.5, -0.5, 0.1, -0.1, 0.02, -0.02):
        trial = model.retract(point.theta, downhill, length / size)
        value = model.objective(trial, rho)
        if value < best_value:
            best, best_value = trial, value
    return best
