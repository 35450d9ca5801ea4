"""The REML loop: minimise V over rho (DESIGN A5).

Three stages, each shown in the trace: schedules move the weights to their terminal values
("anneal"); generalized Fellner-Schall steps (Wood and Fasiolo 2017) set every strength to the value
at which the explicit part of the gradient vanishes ("fellner-schall"); a trust-region quasi-Newton
search with the exact adjoint gradient finishes on the fixed final objective ("trust-region").
Convergence is declared on the last stage alone.

A strength without a finite optimum is moved to the end of its box once the prior alone sets its
part of H, and reported in `FitResult.limits`. Where V has lost the digits that tell a better rho,
Newton steps on the gradient end the search.
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
from reml_sae.models import LOG_DISPERSION, ArrowModel, Curvature, ModelPoint, Theta
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
MAX_RESTARTS = 6
MAX_STALLS = 2
"""Iterations without a gain after which the quasi-Newton Hessian is made anew."""
MAX_POLISH = 8
ROUNDING, VALUE_ERROR = 1e-12, 1e-10
"""Relative errors of V: by rounding, and with the first-order effect of the inner decrement."""
LIMIT_BALANCE = 5e-3
"""Share of a prior's part of H that the data set, below which its strength is at its limit."""
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

    def improves(self, rho: Array, value: CriterionValue, rounding: float) -> bool:
        """Whether V is lower than the best, or the same to its rounding and flatter."""
        assert self.best is not None
        slack = rounding * (1.0 + abs(self.best.value))
        if abs(value.value - self.best.value) > slack:
            return value.value < self.best.value
        return self.slope(rho, value) < self.slope(self.best_rho, self.best)

    def slope(self, rho: Array, value: CriterionValue) -> float:
        """Largest absolute dV/drho inside the box."""
        return float(np.abs(self.projected(rho, value.gradient)).max(initial=0.0))

    def stationary(self, rho: Array, value: CriterionValue) -> bool:
        small = self.slope(rho, value) <= self.tol * (1.0 + abs(value.value))
        return small and value.inner.converged

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
        step = np.where(loop.model.quadratic_rho, _fellner_schall_step(loop.model, value), 0.0)
        rho = np.clip(rho + step, loop.bounds[:, 0], loop.bounds[:, 1])
        if gain < SMALL_GAIN or np.abs(step).max(initial=0.0) < 0.02:
            break


def _dispersion(model: ArrowModel) -> int | None:
    """Place of a log dispersion that scales the squares of the data fit; None without one.

    A family whose dispersion does more than that does not count it among `quadratic_rho`.
    """
    for j, (name, quadratic) in enumerate(zip(model.rho_names, model.quadratic_rho, strict=True)):
        if name == LOG_DISPERSION and quadratic:
            return j
    return None


def _fellner_schall_step(model: ArrowModel, value: CriterionValue) -> Array:
    """Step of log lambda to -(d log C + (1/2) tr H^-1 dH) / (dF/dlog lambda), clipped.

    For a dispersion the signs of numerator and denominator are exchanged, and the ratio is
    RSS / (N p - edf).
    """
    energy = value.explicit["objective"]
    volume = -(value.explicit["log_normalizer"] + value.explicit["half_logdet"])
    step = np.log(np.maximum(volume, 1e-300)) - np.log(np.maximum(energy, 1e-300))
    j = _dispersion(model)
    if j is not None:
        # log phi: dF = (N p - rss / phi) / 2, volume = edf / 2
        rss = value.inner.point.dispersion_energy
        rest = max(energy[j] + rss - volume[j], 1e-12 * rss, 1e-300)
        step[j] = np.log(max(rss, 1e-300) / rest)
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
        if found is not loop.best and found.inner.converged and loop.improves(
                rho, found, ROUNDING):
            loop.keep(rho, found)
        return found.value, np.where(rho == x, found.gradient, 0.0)

    stalls = 0
    refused: set[int] = set()

    def after(intermediate_result: OptimizeResult) -> None:
        nonlocal stalls
        assert loop.best is not None
        stalls = 0 if loop.best.inner.theta is not last[0] else stalls + 1
        last[0] = loop.best.inner.theta
        known.clear()
        known[loop.best_rho.tobytes()] = loop.best
        loop.record("trust-region", loop.best_rho, loop.best)
        if (loop.stationary(loop.best_rho, loop.best) or stalls >= MAX_STALLS
                or _at_limit(loop, refused).size):
            raise StopIteration

    spent, restarts = 0, 0
    while restarts <= MAX_RESTARTS:
        # where the search stops early its Hessian was wrong; a new one often ends it in a step
        assert loop.best is not None
        hessian[...] = _first_hessian(loop, loop.best, whole=restarts > 0)
        stalls, last = 0, [loop.best.inner.theta]
        outcome = minimize(
            objective, loop.best_rho, jac=True, hess=lambda x: hessian.copy(),
            method="trust-exact", callback=after,
            options={"maxiter": max_outer - spent, "gtol": 0.0,
                     "initial_trust_radius": FIRST_RADIUS, "max_trust_radius": MAX_RADIUS},
        )
        spent += int(outcome.nit)
        jumped = _jump_to_limits(loop, refused)
        if not jumped:
            _polish(loop, _first_hessian(loop, loop.best, whole=True) if restarts else hessian)
            restarts += 1
        if loop.stationary(loop.best_rho, loop.best):
            return STATIONARY
        if spent >= max_outer:
            return "the outer iteration budget ran out"
        if not loop.best.inner.converged:
            return f"the inner solve did not converge: {loop.best.inner.status.value}"
    return f"the outer search stopped before the gradient vanished ({outcome.message})"


def _at_limit(loop: _Loop, refused: set[int]) -> NDArray[np.intp]:
    """Strengths on a flat stretch of V inside the box, which falls towards its end.

    There V falls as 1 / strength, which a Newton step in the log strength follows for ever.
    """
    value, rho = loop.best, loop.best_rho
    assert value is not None
    flat = [j for j in np.flatnonzero(_is_infinite(value, np.arange(len(rho))))
            if j not in refused and value.gradient[j] < 0.0
            and rho[j] < loop.bounds[j, 1] < np.inf]
    return np.array(flat, np.intp)


def _jump_to_limits(loop: _Loop, refused: set[int]) -> bool:
    """Move strengths that are running to infinity to the end of the box, where V does not rise."""
    index = _at_limit(loop, refused)
    if not index.size or loop.best is None:
        return False
    refused.update(index.tolist())
    trial = loop.best_rho.copy()
    trial[index] = loop.bounds[index, 1]
    try:
        value = loop.evaluate(trial, gradient=True)
    except (InnerConvergenceError, NotPositiveDefiniteError) as error:
        logger.debug("jump to a limit refused: %s", error)
        return False
    if not value.inner.converged or value.value > loop.best.value:
        return False
    loop.keep(trial, value)
    loop.record("trust-region", trial, value)
    return True


def _polish(loop: _Loop, hessian: Array) -> None:
    """Newton steps with a fixed Hessian, judged by the gradient.

    The last gain of a search is about g^2 / V'', which sinks below the rounding of V, and below its
    error by the inner decrement, while the gradient g is still far above its own.
    """
    for _ in range(MAX_POLISH):
        best, rho = loop.best, loop.best_rho
        assert best is not None
        if loop.stationary(rho, best):
            return
        step = -np.linalg.lstsq(hessian, loop.projected(rho, best.gradient), rcond=None)[0]
        trial = np.clip(rho + step, loop.bounds[:, 0], loop.bounds[:, 1])
        if not 0.0 < np.abs(trial - rho).max(initial=0.0) <= FIRST_RADIUS:
            return
        value = loop.evaluate(trial, gradient=True)
        if not value.inner.converged or not loop.improves(trial, value, VALUE_ERROR):
            return
        loop.keep(trial, value)
        loop.record("trust-region", trial, value)


def _update_sr1(hessian: Array, step: Array, change: Array) -> None:
    """Symmetric rank-one update in place, skipped where its denominator vanishes."""
    residual = change - hessian @ step
    denominator = float(residual @ step)
    if abs(denominator) > 1e-8 * float(np.linalg.norm(residual) * np.linalg.norm(step)):
        hessian += np.outer(residual, residual) / denominator


def _first_hessian(loop: _Loop, value: CriterionValue, whole: bool = False) -> Array:
    """Start of the quasi-Newton Hessian of V.

    Near a Fellner-Schall point the curvature in a quadratic strength is about its energy. A
    dispersion and the other strengths, strongly coupled, have columns by differences of gradients;
    with ``whole``, all that are not at a limit have.
    """
    rho = loop.best_rho
    hessian = np.diag(np.maximum(np.abs(value.explicit["objective"]), 1.0))
    differenced = ~loop.model.quadratic_rho
    dispersion = _dispersion(loop.model)
    if dispersion is not None:
        differenced[dispersion] = True
    if whole:
        differenced[:] = rho < loop.bounds[:, 1]
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
    for j, name in enumerate(loop.model.rho_names):
        if rho[j] >= loop.bounds[j, 1] or _is_infinite(value, np.array([j]))[0]:
            found.append((name, "infinite"))
        elif rho[j] <= loop.bounds[j, 0]:
            found.append((name, "zero"))
    return tuple(found)


def _is_infinite(value: CriterionValue, index: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether the prior alone sets the strengths' part of H."""
    normalizer = value.explicit["log_normalizer"][index]
    balance = np.abs(normalizer + value.explicit["half_logdet"][index])
    return (np.abs(normalizer) > 0) & (balance < LIMIT_BALANCE * np.abs(normalizer))
