"""The last stage of the REML loop: a trust-region quasi-Newton search with the exact gradient.

It goes in the coordinates of `chart`, with the curvature that `response` foretells at every point
and what secants have learnt beside it. A strength without a finite optimum is moved to the end of
its box once the prior alone sets its part of H. Where V has lost the digits that tell a better rho,
Newton steps on the gradient end the search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from reml_sae.engine.chart import Chart
from reml_sae.engine.crease import crease
from reml_sae.engine.criterion import CriterionValue, at_mode
from reml_sae.engine.loop import Loop, logger
from reml_sae.engine.response import foretold_hessian, has_formula
from reml_sae.engine.status import NEGLIGIBLE, OuterStatus
from reml_sae.engine.trust_region import boxed_step, predicted_change
from reml_sae.errors import InnerConvergenceError, NotPositiveDefiniteError
from reml_sae.typing import Array

FIRST_RADIUS, MAX_RADIUS, LEAST_RADIUS = 0.5, 1.0, 1e-5
POOR, GOOD, SHORTER = 0.25, 0.75, 0.25
"""Shares of the foretold change of V below and above which the radius changes, and its factor."""
FLATTEST = 0.05
"""Least curvature of V in a parameter of which nothing else is known."""
DIFFERENCE = 1e-3
OWN_STEP = 0.05
"""Share of a step from which it tells the curvature in an atom's own parameters."""
MAX_RESTARTS = 6
TRIAL_STEPS = 30
"""Inner steps from the best state after which a trial is refused: within reach it takes few."""
MAX_STALLS = 2
"""Iterations without a gain after which the quasi-Newton Hessian is made anew."""
OLD = 5
"""As many iterations, and one for each parameter, after which it is made anew all the same."""
MAX_POLISH = 8
ROUNDING, VALUE_ERROR = 1e-12, 1e-10
"""Relative errors of V: by rounding, and with the first-order effect of the inner decrement."""
LIMIT_BALANCE = 5e-3
"""Share of a prior's part of H that the data set, below which its strength is at its limit."""
NEAR_LIMIT = 0.1
"""A larger such share, from which it is foretold whether V falls all the way."""
LEAST_CURVATURE = 1e-2
"""Least curvature with which the fall of V in a step is foretold."""


def quasi_newton(loop: Loop) -> OuterStatus:
    """Trust-region SR1 on V inside the box; returns why it ended."""
    if not loop.is_exact:
        loop.keep(loop.best_rho, loop.evaluate(loop.best_rho, gradient=True))
    value = loop.found
    refused: set[int] = set()
    if _ended(loop, refused):
        if loop.left > 0:
            loop.record("trust-region", loop.best_rho, value)
        return OuterStatus.STATIONARY
    if loop.left <= 0:
        return OuterStatus.SPENT
    chart = Chart(loop.outer, loop.best_rho)
    learnt = _first_learnt(loop, chart)
    n = len(value.gradient)
    radius, widest = FIRST_RADIUS * np.sqrt(n), MAX_RADIUS * np.sqrt(n)
    stalls = restarts = age = 0
    level = value.value
    while loop.left > 0:
        best = loop.found
        radius = min(_move(loop, chart, learnt, radius), widest)
        moved = loop.found is not best
        stalls = 0 if moved else stalls + 1
        loop.record("trust-region", loop.best_rho, loop.found)
        if _ended(loop, refused):
            return OuterStatus.STATIONARY
        age += 1
        if moved and not _at_limit(loop, refused).size and age < OLD + n:
            continue
        jumped = _jump_to_limits(loop, chart, learnt, refused)
        if not jumped and stalls < MAX_STALLS and age < OLD + n:
            continue
        if not jumped and (restarts >= MAX_RESTARTS or radius < LEAST_RADIUS):
            return crease(loop)
        if jumped:
            stalls = 0
            continue
        # where the search stops early its Hessian was wrong; a new one often ends it in a step
        chart = Chart(loop.outer, loop.best_rho)
        learnt, stalls, age = _first_learnt(loop, chart, whole=True), 0, 0
        hessian = _hessian(loop, chart) + learnt
        gain, level = level - loop.found.value, loop.found.value
        restarts += gain <= NEGLIGIBLE
        _polish(loop, chart, hessian)
        if loop.stationary(loop.best_rho, loop.found):
            return OuterStatus.STATIONARY
        if (restarts > 0 and gain <= NEGLIGIBLE
                and _predicted_fall(loop, chart, hessian) <= NEGLIGIBLE):
            return OuterStatus.FLAT
        if not loop.found.inner.converged:
            return OuterStatus.NO_MODE
    ended = loop.stationary(loop.best_rho, loop.found)  # a jump to a limit may have been the last
    return OuterStatus.STATIONARY if ended else OuterStatus.SPENT


def _ended(loop: Loop, refused: set[int]) -> bool:
    """Whether the gradient vanishes, and no limit promises a fall that counts.

    V falls to its limit as 1 / strength, that is by its slope in the logarithm.
    """
    left = -float(loop.found.gradient[_at_limit(loop, refused)].sum())
    return loop.stationary(loop.best_rho, loop.found) and left < NEGLIGIBLE


def _frame(loop: Loop) -> Array:
    """Directions with one scale at the best point, as columns; see `ArrowModel.rho_frame`."""
    return loop.model.rho_frame(loop.theta, loop.best_rho)


def _move(loop: Loop, chart: Chart, learnt: Array, radius: float) -> float:
    """Try a step, learn from it, and return the next radius."""
    best, rho, frame = loop.found, loop.best_rho, _frame(loop)
    gradient = chart.tangent(rho, frame).T @ best.gradient
    hessian = _hessian(loop, chart) + learnt
    step = boxed_step(gradient, hessian, radius, *chart.box(rho, frame))
    predicted = predicted_change(gradient, hessian, step)
    trial = chart.moved(rho, frame, step)
    try:
        found = at_mode(loop.model, loop.evaluate(trial, gradient=True, max_inner=TRIAL_STEPS))
    except (InnerConvergenceError, NotPositiveDefiniteError) as error:
        logger.debug("outer trial refused: %s", error)
        return SHORTER * radius
    _learn(loop, chart, learnt, step, trial, found)
    if loop.improves(trial, found, ROUNDING):
        loop.keep(trial, found)
    share = (found.value - best.value) / predicted if predicted < 0.0 else 0.0
    length = float(np.linalg.norm(step))
    if share < POOR:
        return SHORTER * min(radius, max(length, SHORTER * radius))
    return 2.0 * radius if share > GOOD and length > 0.9 * radius else radius


def _at_limit(loop: Loop, refused: set[int]) -> NDArray[np.intp]:
    """Strengths on a flat stretch of V inside the box, which falls towards its end.

    There V falls as 1 / strength, which a Newton step in the log strength follows for ever.
    """
    value, rho = loop.found, loop.best_rho
    flat = [j for j in np.flatnonzero(_runs_off(value, loop.outer.quadratic))
            if j not in refused and value.gradient[j] < 0.0
            and rho[j] < loop.outer.bounds[j, 1] < np.inf]
    return np.array(flat, np.intp)


def _jump_to_limits(loop: Loop, chart: Chart, learnt: Array, refused: set[int]) -> bool:
    """Move strengths that are running to infinity to the end of the box, where V does not rise."""
    index = _at_limit(loop, refused)
    if not index.size or loop.left <= 0:
        return False
    refused.update(index.tolist())
    trial = loop.best_rho.copy()
    trial[index] = loop.outer.bounds[index, 1]
    try:
        value = loop.evaluate(trial, gradient=True, max_inner=TRIAL_STEPS)
    except (InnerConvergenceError, NotPositiveDefiniteError) as error:
        logger.debug("jump to a limit refused: %s", error)
        return False
    if not value.inner.converged or value.value > loop.found.value:
        return False
    _learn(loop, chart, learnt, chart.step(loop.best_rho, trial), trial, value)
    loop.keep(trial, value)
    loop.record("trust-region", trial, value)
    return True


def _polish(loop: Loop, chart: Chart, hessian: Array) -> None:
    """Newton steps with a fixed Hessian, judged by the gradient.

    The last gain of a search is about g^2 / V'', which sinks below the rounding of V, and below its
    error by the inner decrement, while the gradient g is still far above its own.
    """
    for _ in range(min(MAX_POLISH, loop.left)):
        best, rho, frame = loop.found, loop.best_rho, _frame(loop)
        if loop.stationary(rho, best):
            return
        gradient = chart.tangent(rho, frame).T @ loop.projected(rho, best.gradient)
        free = gradient != 0.0
        step = np.zeros_like(rho)
        step[free] = -np.linalg.lstsq(hessian[np.ix_(free, free)], gradient[free], rcond=None)[0]
        if not 0.0 < np.abs(step).max(initial=0.0) <= FIRST_RADIUS:
            return
        trial = chart.moved(rho, frame, step)
        try:
            value = loop.evaluate(trial, gradient=True)
        except (InnerConvergenceError, NotPositiveDefiniteError) as error:
            logger.debug("Newton step on the gradient refused: %s", error)
            return
        if not value.inner.converged or not loop.improves(trial, value, VALUE_ERROR):
            return
        loop.keep(trial, value)
        loop.record("trust-region", trial, value)


def _predicted_fall(loop: Loop, chart: Chart, hessian: Array) -> float:
    """Fall of V in a Newton step inside the box; infinite where it curves downwards."""
    tangent = chart.tangent(loop.best_rho, _frame(loop))
    gradient = tangent.T @ loop.projected(loop.best_rho, loop.found.gradient)
    free = np.flatnonzero(gradient)
    values, vectors = np.linalg.eigh(hessian[np.ix_(free, free)])
    if not loop.found.inner.converged or values[0] < -LEAST_CURVATURE:
        return np.inf
    along = vectors.T @ gradient[free]
    return float(0.5 * (along**2 / np.maximum(values, LEAST_CURVATURE)).sum())


def _hessian(loop: Loop, chart: Chart) -> Array:
    """The Hessian of V that is foretold at the best point, before anything is learnt of it."""
    return foretold_hessian(chart, loop.best_rho, loop.found)


def _learn(loop: Loop, chart: Chart, learnt: Array, step: Array, trial: Array,
           found: CriterionValue) -> None:
    """Learn from a step what the Hessian has beside what is foretold (Dennis, Gay, Welsch 1981).

    V is a sum over atoms, but for what they share (Griewank and Toint 1982): the step tells first
    the curvature of every part in which it is not small, and then of the whole.
    """
    frame = _frame(loop)
    change = chart.tangent(trial, frame).T @ found.gradient
    change -= chart.tangent(loop.best_rho, frame).T @ loop.found.gradient
    change -= _hessian(loop, chart) @ step
    for own in loop.outer.of_atoms:
        moved = step[own]
        if np.linalg.norm(moved) > OWN_STEP * np.linalg.norm(step):
            part = learnt[np.ix_(own, own)]
            _update_sr1(part, moved, (change - learnt @ step)[own] + part @ moved)
            learnt[np.ix_(own, own)] = part
    _update_sr1(learnt, step, change)


def _update_sr1(hessian: Array, step: Array, change: Array) -> None:
    """Symmetric rank-one update in place, skipped where its denominator vanishes."""
    residual = change - hessian @ step
    denominator = float(residual @ step)
    if abs(denominator) > 1e-8 * float(np.linalg.norm(residual) * np.linalg.norm(step)):
        hessian += np.outer(residual, residual) / denominator


def _first_learnt(loop: Loop, chart: Chart, whole: bool = False) -> Array:
    """What the Hessian of V has beside what is foretold, by differences of gradients.

    Of strengths of priors that are not quadratic and of parameters of the family that are no
    dispersion; with ``whole``, of all that are not at a limit.
    """
    rho, frame, value = loop.best_rho, _frame(loop), loop.found
    gradient = chart.tangent(rho, frame).T @ value.gradient
    foretold = _hessian(loop, chart)
    energy = np.maximum(np.abs(value.explicit["objective"]), FLATTEST)
    told = has_formula(loop.outer, value)
    learnt = np.diag(np.where(told, 0.0, energy))
    differenced = rho < loop.outer.bounds[:, 1] if whole else ~told
    differenced &= loop.outer.bounds[:, 0] < loop.outer.bounds[:, 1]
    least, most = chart.box(rho, frame)
    back = np.full(len(rho), -DIFFERENCE)
    ahead = np.where(most >= DIFFERENCE, DIFFERENCE, back)
    back = np.where(least <= -DIFFERENCE, back, ahead)
    for group in _groups(loop.model.rho_apart(), differenced):
        chosen = [j for j, _ in group]
        for step in (ahead, back) if (ahead[chosen] > 0.0).any() else (back,):
            together = np.zeros_like(rho)
            together[chosen] = step[chosen]
            moved = chart.moved(rho, frame, together)
            try:
                found = loop.evaluate(moved, gradient=True).gradient
            except (InnerConvergenceError, NotPositiveDefiniteError) as error:
                logger.debug("no difference of gradients: %s", error)
                continue
            change = chart.tangent(moved, frame).T @ found - gradient
            for j, rows in group:
                learnt[j, rows] = learnt[rows, j] = change[rows] / step[j] - foretold[rows, j]
            break
    return learnt


def _groups(
    apart: Sequence[NDArray[np.intp]], differenced: NDArray[np.bool_]
) -> Iterator[list[tuple[int, NDArray[np.intp]]]]:
    """Parameters whose columns of the Hessian one difference tells, each with the rows it tells.

    One of each set apart: their columns have no row in common but those of parameters in no set,
    which have columns of their own (Curtis, Powell and Reid 1974).
    """
    own = [part[differenced[part]] for part in apart]
    for number in range(max(map(len, own), default=0)):
        yield [(int(chosen[number]), part) for chosen, part in zip(own, apart, strict=True)
               if number < len(chosen)]
    everything = np.arange(len(differenced))
    shared = differenced.copy()
    for part in apart:
        shared[part] = False
    for j in np.flatnonzero(shared):
        yield [(int(j), everything)]


def limits(loop: Loop, rho: Array, value: CriterionValue) -> tuple[tuple[str, str], ...]:
    """Strengths on a flat stretch of V: the prior alone sets their part of H, or nothing does.

    Those that are held are no limits.
    """
    found = []
    for j, name in enumerate(loop.outer.names):
        if loop.outer.bounds[j, 0] == loop.outer.bounds[j, 1]:
            continue
        if rho[j] >= loop.outer.bounds[j, 1] or _is_infinite(value, np.array([j]))[0]:
            found.append((name, "infinite"))
        elif rho[j] <= loop.outer.bounds[j, 0]:
            found.append((name, "zero"))
    return tuple(found)


def _runs_off(value: CriterionValue, quadratic: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether V falls all the way to the infinite end of the strengths.

    Where the data set a share u of a quadratic prior's part of H, and all its functions alike, the
    slope of V is -(1 - c + c u) times that part, with one c along the way: V falls to the end where
    c < 1.
    """
    every = np.arange(len(value.gradient))
    normalizer = np.abs(value.explicit["log_normalizer"])
    part = np.abs(value.explicit["log_normalizer"] + value.explicit["half_logdet"])
    falls = quadratic & (-value.gradient * normalizer > part**2)
    return _is_infinite(value, every) | (_is_infinite(value, every, NEAR_LIMIT) & falls)


def _is_infinite(
    value: CriterionValue, index: NDArray[np.intp], share: float = LIMIT_BALANCE
) -> NDArray[np.bool_]:
    """Whether the prior alone, but for a share, sets the strengths' part of H."""
    normalizer = value.explicit["log_normalizer"][index]
    balance = np.abs(normalizer + value.explicit["half_logdet"][index])
    return (np.abs(normalizer) > 0) & (balance < share * np.abs(normalizer))
