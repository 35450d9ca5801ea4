"""The REML loop: minimise V over rho (DESIGN A5).

Three stages, each shown in the trace: schedules move the weights to their terminal values
("anneal"); generalized Fellner-Schall steps (Wood and Fasiolo 2017) set every strength to the value
at which the explicit part of the gradient vanishes ("fellner-schall"); a trust-region quasi-Newton
search with the exact adjoint gradient finishes on the fixed final objective ("trust-region").
Convergence is declared on the last stage alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize

from reml_sae.errors import InnerConvergenceError, NotPositiveDefiniteError
from reml_sae.inner import InnerSolution
from reml_sae.models import ArrowModel, Curvature, ModelPoint, Theta
from reml_sae.outer.criterion import CriterionValue, criterion
from reml_sae.outer.trace import REMLTrace, TraceRow

Array = NDArray[np.float64]
Callback = Callable[[TraceRow], object]
logger = logging.getLogger("reml_sae")

FELLNER_SCHALL_CLIP = 2.0
FELLNER_SCHALL_LOOSE = 0.05
FIRST_RADIUS, MAX_RADIUS = 0.5, 1.0
DIFFERENCE = 1e-3
MAX_ANNEAL = 30
MAX_RESTARTS = 3
STATIONARY = "the gradient of the criterion is below tolerance"
SMALL_GAIN = 1.0


@dataclass(frozen=True)
class FitResult:
    """Outcome of `fit_reml`; always the best state met.

    Attributes
    ----------
    rho : (n_rho,) array
    theta : Theta
    criterion : float
        V at ``rho``.
    gradient : (n_rho,) array
    trace : REMLTrace
    converged : bool
        The projected gradient of V and the inner decrement are both below tolerance.
    message : str
        Why the loop ended, as a sentence.
    interrupted : bool
        The user stopped the loop.
    edf : float
        Effective degrees of freedom of the data fit.
    limits : tuple of (name, str)
        Strengths that ran to a limit, where V is flat: "infinite" or "zero".
    value : CriterionValue
    n_iter : int
    """

    rho: Array
    theta: Theta
    criterion: float
    gradient: Array
    trace: REMLTrace
    converged: bool
    message: str
    interrupted: bool
    edf: float
    limits: tuple[tuple[str, str], ...]
    value: CriterionValue
    n_iter: int

    @property
    def inner(self) -> InnerSolution[ModelPoint]:
        """The inner solution at the optimum."""
        return self.value.inner


class _Loop:
    """State that the stages share: the best point so far, the trace, the clock."""

    def __init__(self, model: ArrowModel, curvature: Curvature, tol: float, inner_tol: float,
                 callbacks: Sequence[Callback], trace: REMLTrace):
        self.model, self.curvature, self.tol, self.inner_tol = model, curvature, tol, inner_tol
        self.callbacks, self.trace = callbacks, trace
        self.bounds = model.rho_bounds
        self.start = time.perf_counter()
        self.best: CriterionValue | None = None
        self.best_rho = np.clip(model.initial_rho(), self.bounds[:, 0], self.bounds[:, 1])
        self.theta = model.initial_theta()

    def evaluate(self, rho: Array, gradient: bool, tol: float | None = None) -> CriterionValue:
        return criterion(self.model, rho, theta=self.theta, curvature=self.curvature,
                         gradient=gradient, tol=self.inner_tol if tol is None else tol)

    def keep(self, rho: Array, value: CriterionValue) -> None:
        self.best, self.best_rho, self.theta = value, rho.copy(), value.inner.theta

    def projected(self, rho: Array, gradient: Array) -> Array:
        low, high = self.bounds[:, 0], self.bounds[:, 1]
        blocked = ((rho <= low) & (gradient > 0)) | ((rho >= high) & (gradient < 0))
        return np.where(blocked, 0.0, gradient)

    def stationary(self, rho: Array, value: CriterionValue) -> bool:
        norm = np.abs(self.projected(rho, value.gradient)).max(initial=0.0)
        return bool(norm <= self.tol * (1.0 + abs(value.value))) and value.inner.converged

    def record(self, stage: str, rho: Array, value: CriterionValue) -> None:
        names = self.model.rho_names
        row = TraceRow(
            iteration=len(self.trace), stage=stage, criterion=value.value, parts=value.parts,
            gradient_norm=float(np.abs(self.projected(rho, value.gradient)).max(initial=0.0)),
            rho=dict(zip(names, rho.tolist(), strict=True)),
            strengths=self.model.strengths(rho), weights=self.model.weights(),
            edf=value.edf, inner_iterations=value.inner.n_iter,
            inner_status=value.inner.status.name.lower(), damping=value.inner.damping,
            seconds=time.perf_counter() - self.start,
        )
        self.trace.append(row)
        logger.info("outer %d %s: V = %.6f, |gradient| = %.3g, inner %d (%s)", row.iteration,
                    stage, row.criterion, row.gradient_norm, row.inner_iterations,
                    row.inner_status)
        for callback in self.callbacks:
            callback(row)


def fit_reml(
    model: ArrowModel,
    *,
    curvature: Curvature = "majorizer",
    max_outer: int = 50,
    max_fellner_schall: int = 8,
    tol: float = 1e-6,
    inner_tol: float = 1e-8,
    callbacks: Sequence[Callback] = (),
    trace: REMLTrace | None = None,
) -> FitResult:
    """Choose rho by minimising the REML / Laplace criterion.

    Parameters
    ----------
    model : ArrowModel
    curvature : "majorizer" or "exact"
    max_outer : int
        Budget of quasi-Newton iterations.
    max_fellner_schall : int
        Budget of Fellner-Schall steps before them.
    tol : float
        The projected gradient of V must fall below ``tol * (1 + abs(V))``.
    inner_tol : float
        Newton decrement of every inner solve. V is not stationary in theta, so its error is of
        the first order in the decrement and must lie below what a last step of the search gains.
    callbacks : sequence of callables
        Called with each `TraceRow`.
    trace : REMLTrace, optional
        Continued where given.

    Returns
    -------
    FitResult
        A fit that did not converge, or was interrupted, still returns its best state.
    """
    loop = _Loop(model, curvature, tol, inner_tol, callbacks,
                 REMLTrace() if trace is None else trace)
    begun = len(loop.trace)
    interrupted = False
    try:
        _anneal(loop)
        _fellner_schall(loop, max_fellner_schall)
        message = _quasi_newton(loop, max_outer)
    except (InnerConvergenceError, NotPositiveDefiniteError) as error:
        if loop.best is None:
            raise
        message = f"the search stopped at its best state: {error}"
    except KeyboardInterrupt:
        message, interrupted = "interrupted by the user; the best state so far was kept", True
        if loop.best is None:
            raise
    return _result(loop, message, interrupted, len(loop.trace) - begun)


def _anneal(loop: _Loop) -> None:
    """Follow the mode while scheduled weights go to their ends."""
    if not loop.model.is_scheduled:
        return
    start, weights = loop.model, None
    for iteration in range(MAX_ANNEAL):
        loop.model = start.apply_schedule(iteration)
        value = loop.evaluate(loop.best_rho, gradient=False, tol=FELLNER_SCHALL_LOOSE)
        loop.theta = value.inner.theta
        loop.record("anneal", loop.best_rho, value)
        if weights is not None and all(
            abs(weight - weights[name]) <= 1e-3 * weight
            for name, weight in loop.model.weights().items()
        ):
            break
        weights = loop.model.weights()
    loop.model = start.settled()


def _fellner_schall(loop: _Loop, max_steps: int) -> None:
    rho = loop.best_rho
    for _ in range(max_steps):
        value = loop.evaluate(rho, gradient=False, tol=FELLNER_SCHALL_LOOSE)
        gain = np.inf if loop.best is None else loop.best.value - value.value
        if gain < 0.0:
            break
        loop.keep(rho, value)
        loop.record("fellner-schall", rho, value)
        step = np.where(loop.model.quadratic_rho, _fellner_schall_step(value), 0.0)
        rho = np.clip(rho + step, loop.bounds[:, 0], loop.bounds[:, 1])
        if gain < SMALL_GAIN or np.abs(step).max(initial=0.0) < 0.02:
            break


def _fellner_schall_step(value: CriterionValue) -> Array:
    """Step of log lambda to -(d log C + (1/2) tr H^-1 dH) / (dF/dlog lambda), clipped.

    For the dispersion the signs of numerator and denominator are exchanged, and the ratio is
    RSS / (N p - edf).
    """
    energy = value.explicit["objective"]
    volume = -(value.explicit["log_normalizer"] + value.explicit["half_logdet"])
    step = np.log(np.maximum(volume, 1e-300)) - np.log(np.maximum(energy, 1e-300))
    # log phi: dF = (N p - rss / phi) / 2, volume = edf / 2
    rss = value.inner.point.dispersion_energy
    step[-1] = np.log(max(rss, 1e-300) / max(energy[-1] + rss - volume[-1], 1e-12 * rss, 1e-300))
    return np.clip(step, -FELLNER_SCHALL_CLIP, FELLNER_SCHALL_CLIP)


def _quasi_newton(loop: _Loop, max_outer: int) -> str:
    """Trust-region SR1 on V; log strengths are unbounded there and clipped to the box."""
    if max_outer == 0:
        return "the outer iteration budget is zero"
    value = loop.evaluate(loop.best_rho, gradient=True)
    loop.keep(loop.best_rho, value)
    if loop.stationary(loop.best_rho, value):
        loop.record("trust-region", loop.best_rho, value)
        return STATIONARY
    hessian = np.empty((len(value.gradient), len(value.gradient)))
    known = {loop.best_rho.tobytes(): value}
    low, high = loop.bounds[:, 0], loop.bounds[:, 1]

    def objective(x: Array) -> tuple[float, Array]:
        rho = np.clip(x, low, high)
        key = rho.tobytes()
        if key not in known:
            try:
                known[key] = loop.evaluate(rho, gradient=True)
            except (InnerConvergenceError, NotPositiveDefiniteError) as error:
                logger.debug("outer trial refused: %s", error)
                return np.inf, np.zeros_like(rho)
        found = known[key]
        assert loop.best is not None
        if found is not loop.best:
            _update_sr1(hessian, rho - loop.best_rho, found.gradient - loop.best.gradient)
        if found.value <= loop.best.value and found.inner.converged:
            loop.keep(rho, found)
        return found.value, np.where(rho == x, found.gradient, 0.0)

    def after(intermediate_result: OptimizeResult) -> None:
        assert loop.best is not None
        known.clear()
        known[loop.best_rho.tobytes()] = loop.best
        loop.record("trust-region", loop.best_rho, loop.best)
        if loop.stationary(loop.best_rho, loop.best):
            raise StopIteration

    spent = 0
    for _ in range(MAX_RESTARTS):
        # where the search stops early its Hessian was wrong; a new one often ends it in a step
        assert loop.best is not None
        hessian[...] = _first_hessian(loop, loop.best)
        outcome = minimize(
            objective, loop.best_rho, jac=True, hess=lambda x: hessian.copy(),
            method="trust-exact", callback=after,
            options={"maxiter": max_outer - spent, "gtol": 0.0,
                     "initial_trust_radius": FIRST_RADIUS, "max_trust_radius": MAX_RADIUS},
        )
        if loop.stationary(loop.best_rho, loop.best):
            return STATIONARY
        spent += int(outcome.nit)
        if spent >= max_outer:
            return "the outer iteration budget ran out"
        if not loop.best.inner.converged:
            return f"the inner solve did not converge: {loop.best.inner.status.value}"
    return f"the outer search stopped before the gradient vanished ({outcome.message})"


def _update_sr1(hessian: Array, step: Array, change: Array) -> None:
    """Symmetric rank-one update in place, skipped where its denominator vanishes."""
    residual = change - hessian @ step
    denominator = float(residual @ step)
    if abs(denominator) > 1e-8 * float(np.linalg.norm(residual) * np.linalg.norm(step)):
        hessian += np.outer(residual, residual) / denominator


def _first_hessian(loop: _Loop, value: CriterionValue) -> Array:
    """Start of the quasi-Newton Hessian of V.

    Near a Fellner-Schall point the curvature in a quadratic strength is about its energy. The
    dispersion and the other strengths, strongly coupled, have columns by differences of gradients.
    """
    rho = loop.best_rho
    hessian = np.diag(np.maximum(np.abs(value.explicit["objective"]), 1.0))
    differenced = ~loop.model.quadratic_rho
    differenced[-1] = True
    for j in np.flatnonzero(differenced):
        trial = rho.copy()
        trial[j] += DIFFERENCE if rho[j] + DIFFERENCE <= loop.bounds[j, 1] else -DIFFERENCE
        column = (loop.evaluate(trial, gradient=True).gradient - value.gradient) / (
            trial[j] - rho[j])
        hessian[j, :] = hessian[:, j] = column
    return hessian


def _result(loop: _Loop, message: str, interrupted: bool, n_iter: int) -> FitResult:
    assert loop.best is not None
    value, rho = loop.best, loop.best_rho
    has_gradient = bool(np.isfinite(value.gradient).all())
    converged = has_gradient and loop.stationary(rho, value)
    return FitResult(
        rho=rho, theta=value.inner.theta, criterion=value.value, gradient=value.gradient,
        trace=loop.trace, converged=converged, message=message, interrupted=interrupted,
        edf=value.edf,
        limits=_limits(loop, rho, value), value=value, n_iter=n_iter,
    )


def _limits(loop: _Loop, rho: Array, value: CriterionValue) -> tuple[tuple[str, str], ...]:
    """Strengths on a flat stretch of V: the prior alone sets their part of H, or nothing does."""
    found = []
    normalizer, logdet = value.explicit["log_normalizer"], value.explicit["half_logdet"]
    for j, name in enumerate(loop.model.rho_names):
        size = abs(normalizer[j])
        balance = abs(normalizer[j] + logdet[j])
        if rho[j] >= loop.bounds[j, 1] or (size > 0 and balance < 5e-3 * size):
            found.append((name, "infinite"))
        elif rho[j] <= loop.bounds[j, 0]:
            found.append((name, "zero"))
    return tuple(found)
