"""The last stage of the REML loop: a trust-region quasi-Newton search with the exact gradient.

A strength without a finite optimum is moved to the end of its box once the prior alone sets its
part of H. Where V has lost the digits that tell a better rho, Newton steps on the gradient end the
search.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize

from reml_sae.errors import InnerConvergenceError, NotPositiveDefiniteError
from reml_sae.outer._loop import Loop, dispersion_place, logger
from reml_sae.outer.criterion import CriterionValue

Array = NDArray[np.float64]

FIRST_RADIUS, MAX_RADIUS = 0.5, 1.0
FLATTEST = 0.05
"""Least curvature of V in a log strength that a search starts from."""
DIFFERENCE = 1e-3
MAX_RESTARTS = 6
MAX_STALLS = 2
"""Iterations without a gain after which the quasi-Newton Hessian is made anew."""
MAX_POLISH = 8
ROUNDING, VALUE_ERROR = 1e-12, 1e-10
"""Relative errors of V: by rounding, and with the first-order effect of the inner decrement."""
LIMIT_BALANCE = 5e-3
"""Share of a prior's part of H that the data set, below which its strength is at its limit."""
STATIONARY = "the gradient of the criterion is below tolerance"
NEGLIGIBLE, LEAST_CURVATURE = 1e-3, 1e-2
"""Fall of V, in nats, that is not worth a step; least curvature with which it is foretold."""
OUT_OF_BUDGET = "the outer iteration budget ran out"
FLAT = f"the criterion can fall by less than {NEGLIGIBLE:g} nats"


def quasi_newton(loop: Loop) -> str:
    """Trust-region SR1 on V; log strengths are unbounded there and clipped to the box."""
    value = loop.evaluate(loop.best_rho, gradient=True)
    loop.keep(loop.best_rho, value)
    if loop.stationary(loop.best_rho, value):
        if loop.left > 0:
            loop.record("trust-region", loop.best_rho, value)
        return STATIONARY
    if loop.left <= 0:
        return OUT_OF_BUDGET
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

    restarts = 0
    widest = MAX_RADIUS * np.sqrt(len(value.gradient))
    while restarts <= MAX_RESTARTS:
        # where the search stops early its Hessian was wrong; a new one often ends it in a step
        assert loop.best is not None
        hessian[...] = _first_hessian(loop, loop.best, whole=restarts > 0)
        stalls, last = 0, [loop.best.inner.theta]
        minimize(
            objective, loop.best_rho, jac=True, hess=lambda x: hessian.copy(),
            method="trust-exact", callback=after,
            options={"maxiter": loop.left, "gtol": 0.0,
                     "initial_trust_radius": FIRST_RADIUS, "max_trust_radius": widest},
        )
        jumped = _jump_to_limits(loop, refused)
        if not jumped:
            if restarts:
                hessian[...] = _first_hessian(loop, loop.best, whole=True)
            _polish(loop, hessian)
            restarts += 1
        if loop.stationary(loop.best_rho, loop.best):
            return STATIONARY
        if restarts > 1 and not jumped and _predicted_fall(loop, hessian) <= NEGLIGIBLE:
            return FLAT
        if loop.left <= 0:
            return OUT_OF_BUDGET
        if not loop.best.inner.converged:
            return f"the inner solve did not converge: {loop.best.inner.status.value}"
    return "the outer search stalled: V fell no further, but its gradient has not vanished"


def _at_limit(loop: Loop, refused: set[int]) -> NDArray[np.intp]:
    """Strengths on a flat stretch of V inside the box, which falls towards its end.

    There V falls as 1 / strength, which a Newton step in the log strength follows for ever.
    """
    value, rho = loop.best, loop.best_rho
    assert value is not None
    flat = [j for j in np.flatnonzero(_is_infinite(value, np.arange(len(rho))))
            if j not in refused and value.gradient[j] < 0.0
            and rho[j] < loop.bounds[j, 1] < np.inf]
    return np.array(flat, np.intp)


def _jump_to_limits(loop: Loop, refused: set[int]) -> bool:
    """Move strengths that are running to infinity to the end of the box, where V does not rise."""
    index = _at_limit(loop, refused)
    if not index.size or loop.best is None or loop.left <= 0:
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


def _polish(loop: Loop, hessian: Array) -> None:
    """Newton steps with a fixed Hessian, judged by the gradient.

    The last gain of a search is about g^2 / V'', which sinks below the rounding of V, and below its
    error by the inner decrement, while the gradient g is still far above its own.
    """
    for _ in range(min(MAX_POLISH, loop.left)):
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


def _predicted_fall(loop: Loop, hessian: Array) -> float:
    """Fall of V in a Newton step inside the box; infinite where it curves downwards."""
    assert loop.best is not None
    gradient = loop.projected(loop.best_rho, loop.best.gradient)
    free = np.flatnonzero(gradient)
    values, vectors = np.linalg.eigh(hessian[np.ix_(free, free)])
    if not loop.best.inner.converged or values[0] < -LEAST_CURVATURE:
        return np.inf
    along = vectors.T @ gradient[free]
    return float(0.5 * (along**2 / np.maximum(values, LEAST_CURVATURE)).sum())


def _update_sr1(hessian: Array, step: Array, change: Array) -> None:
    """Symmetric rank-one update in place, skipped where its denominator vanishes."""
    residual = change - hessian @ step
    denominator = float(residual @ step)
    if abs(denominator) > 1e-8 * float(np.linalg.norm(residual) * np.linalg.norm(step)):
        hessian += np.outer(residual, residual) / denominator


def _first_hessian(loop: Loop, value: CriterionValue, whole: bool = False) -> Array:
    """Start of the quasi-Newton Hessian of V.

    Near a Fellner-Schall point the curvature in a quadratic strength is about its energy. A
    dispersion and the other strengths, strongly coupled, have columns by differences of gradients;
    with ``whole``, all that are not at a limit have.
    """
    rho = loop.best_rho
    energy = np.abs(value.explicit["objective"])
    # where a strength runs to infinity, V falls as its inverse: the curvature is the slope
    hessian = np.diag(np.maximum(np.maximum(energy, -value.gradient), FLATTEST))
    differenced = ~loop.model.quadratic_rho
    dispersion = dispersion_place(loop.model)
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


def limits(loop: Loop, rho: Array, value: CriterionValue) -> tuple[tuple[str, str], ...]:
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
