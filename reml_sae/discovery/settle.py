"""REML fits that alternate with the discrete choices of a model, until those no longer change.

Between REML fits the rows search for better local minima and the active set is chosen again. Both
are discrete, so they stay frozen inside a fit, and may lead up: V of what is returned is not above
that of the fit that was given.

Where rows mix atoms, V has the mean of a curve in the place of a coordinate that a row does not
carry, and shares of such atoms cost nothing: a fit may slide to where all rows have some, as the
strength of the entropy falls. Where V has fallen by less than it then lacks, that strength is held.

`integrate_rows` ends a search whose rows were left to Laplace's method only for these choices.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from reml_sae.diagnostics.places import left_out, rows_are_gaussian
from reml_sae.discovery.fitting import (
    Fitted,
    Settings,
    decided,
    reassign,
    rough_options,
    stopped,
)
from reml_sae.engine import (
    FitResult,
    InnerSolution,
    InnerStatus,
    ModelPoint,
    OuterStatus,
    REMLTrace,
    Stopped,
    Theta,
    TraceRow,
    criterion_at,
)
from reml_sae.engine.trace import ANNEAL
from reml_sae.errors import InnerConvergenceError, NotPositiveDefiniteError
from reml_sae.families import LOG_DISPERSION
from reml_sae.models import SAEManifoldModel
from reml_sae.models.sae.model import QUADRATURE_DISPERSION
from reml_sae.rows import spread_index
from reml_sae.typing import Array

logger = logging.getLogger("reml_sae")

UNSETTLED = "the outer iteration budget ran out before all rows had settled on their atoms"
LOOSE = "the fit is loose: rows were still to move to other atoms"
LOOKED_AT, LACKING = 200, 3.0
"""Rows of which it is summed what V lacks; nats of it below which nothing has slid."""
FINEST = 0.1
"""Of the dispersion below which no quadrature is begun, below which it is not gone on with."""
UNUSABLE = "the REML fit reached no usable state from the rough one, which was kept"


def settle(fitted: Fitted, settings: Settings) -> Fitted:
    """REML fits alternating with the discrete choices, until those no longer change.

    While many rows move, a few Fellner-Schall steps stand in for a REML fit, and then a loose one,
    in turns.
    The best converged fit is returned, or the best of all where none converged; the one given in
    where no other reached a usable state. Where iterations or time ran out first, it is marked not
    converged. V is not above that of the fit given in, nor of a loose one: where choices have led
    up, the lowest is fitted on as it is.
    """
    policy = settings.policy.settle
    trace = REMLTrace(list(fitted.result.trace))
    rounds: list[Fitted] = []
    met = [fitted]
    model, theta, rho = fitted.model, fitted.result.theta, fitted.result.rho
    rough, loose, lowest = True, False, np.inf
    halt: OuterStatus | None = None
    for number in range(policy.most_rough_rounds + policy.most_rounds):
        if settings.deadline.passed:
            halt = settings.deadline.status
            break
        before = model.active
        model, moved = reassign(model, theta, rho, settings.policy.encode)
        model = decided(model, settings)
        if rounds and not loose and not moved and (model.active == before).all():
            break
        settings.stages.enter("REML fit, round", number + 1)
        left = max(settings.max_outer - trace.n_counted, 0)
        if rounds and not left:
            break
        many = moved > policy.few_moved * len(before) and not model.by_quadrature
        rough &= many and number < policy.most_rough_rounds and left > settings.max_outer // 2
        loose = many and not rough and len(rounds) < policy.most_rounds - 1
        try:
            if rough:
                result = _fit(model, settings, left, trace, rough_options(policy))
            else:
                model, result = _fit_on(model, rho, min(lowest, fitted.result.criterion), settings,
                                        trace, _final(settings, loose))
        except (InnerConvergenceError, NotPositiveDefiniteError) as error:
            logger.info("round %d was given up: %s", number, error)
            break
        theta, rho = result.theta, result.rho
        model = model.with_state(theta, rho)
        logger.info("round %d: %d rows moved, V = %.6f", number, moved, result.criterion)
        if loose:
            if result.converged:
                result = result.ended(OuterStatus.ROUGH, LOOSE)
            met.append(Fitted(model, result))
        if not rough or result.interrupted:
            rounds.append(Fitted(model, result))
        # after a loose fit too the rows move first while they can at its strengths
        rough = (rough or loose) and result.criterion < lowest - policy.rough_gain
        lowest = min(lowest, result.criterion)
        halt = result.status if result.interrupted else None
        if model.by_quadrature:  # by the fitted model too: the codes follow it, and that is all
            rounds = [_with_codes(rounds[-1], settings)]
            break
        if halt is not None or len(rounds) == policy.most_rounds:
            break
    if not rounds:
        unusable = replace(fitted, result=fitted.result.ended(OuterStatus.FAILED, UNUSABLE))
        return unusable if halt is None else stopped(fitted, halt)
    best = _not_above(_best(rounds), met, settings, trace)
    if halt is not None:
        best = stopped(best, halt)
    elif settings.max_outer <= trace.n_counted and (moved or loose):
        best = replace(best, result=best.result.ended(OuterStatus.SPENT, UNSETTLED))
    return best.observed()


def integrate_rows(fitted: Fitted, settings: Settings) -> Fitted:
    """The fit with its rows integrated out by quadrature where only their supports were in the way.

    Supports are chosen by Laplace's method, which knows the rows' modes and is many times faster;
    the last REML fit, with every support held, has the exact V. Where V at the end of Laplace's
    method is that of a quadrature there, but for nats that say nothing, that is the end.

    Raises
    ------
    InnerConvergenceError, NotPositiveDefiniteError
        Where quadrature was asked for by name and leads to no usable state.
    """
    result = fitted.result
    left = settings.max_outer - result.trace.n_counted
    if fitted.model.by_quadrature or not result.converged or left <= 0:
        return fitted
    model = fitted.model.with_integration(settings.integration).with_state(
        result.theta, result.rho).decided()
    if not model.by_quadrature:
        return fitted
    settings.stages.enter("REML fit, rows integrated out")
    try:
        if settings.integration == "auto":
            missed = _as_it_begins(model, settings) - result.criterion
            if abs(missed) < settings.policy.settle.missed:
                logger.info("Laplace's method misses %.4f nats by a quadrature", missed)
                return fitted
        result = _fit(model, settings, left, REMLTrace(list(result.trace)), _final(settings))
    except (InnerConvergenceError, NotPositiveDefiniteError) as error:
        if settings.integration == "quadrature":
            raise
        logger.info("the rows are left to Laplace's method: %s", error)
        return fitted
    if result.status is OuterStatus.TOO_FINE:
        logger.info("the rows are left to Laplace's method: %s", result.message)
        return fitted
    return _at_modes(Fitted(model, result).observed(), settings)


def _fit_on(
    model: SAEManifoldModel, rho: Array, before: float, settings: Settings, trace: REMLTrace,
    options: dict[str, Any],
) -> tuple[SAEManifoldModel, FitResult]:
    """A REML fit from a state with this V, and its model: that where shares do not slide away.

    Where the noise falls to where rows would not have been integrated out, Laplace's method goes
    on: the nodes grow as the noise falls, which of rows without any has no end.
    """
    left = max(settings.max_outer - trace.n_counted, 0)
    result = _fit(model, settings, left, trace, options)
    left = settings.max_outer - trace.n_counted
    if result.status is OuterStatus.TOO_FINE and left > 0:
        logger.info("the noise is so small that the rows are left to Laplace's method")
        model = decided(_at_modes(Fitted(model, result), settings).model, settings)
        result = _fit(model, settings, left, trace, options)
        left = settings.max_outer - trace.n_counted
    if result.interrupted or left <= 0 or not _has_slid(model, result, before):
        return model, result
    logger.info("V fell by less than it lacks: the strengths of the shares are held")
    shares = {key: value for key, value in model.outer.keyed(rho).items() if key.target == "logits"}
    model = model.with_changes(held={**model.held, **shares})
    return model, _fit(model, settings, left, trace, options)


def _has_slid(model: SAEManifoldModel, result: FitResult, before: float) -> bool:
    """Whether V has fallen by less than it lacks of coordinates that rows do not carry."""
    fall = before - result.criterion
    if (fall <= 0.0 or not model.assignment.is_mixture or not rows_are_gaussian(model)
            or model.by_quadrature):
        return False
    n = len(result.theta.xi)
    rows = spread_index(n, LOOKED_AT)
    lacks = n * float(left_out(model, result.theta, result.rho, rows).mean())
    return lacks > max(fall, LACKING)


def _fit(
    model: SAEManifoldModel, settings: Settings, left: int, trace: REMLTrace,
    options: dict[str, Any],
) -> FitResult:
    """A REML fit of one stage, within what is left of the budgets."""
    callbacks = settings.callbacks
    if settings.integration == "auto" and model.by_quadrature and model.family.has_dispersion:
        callbacks = [*callbacks, _stop_where_too_fine]
    return settings.journal.fit(model, **options, max_outer=left, max_time=settings.deadline,
                                callbacks=callbacks, trace=trace)


def _stop_where_too_fine(row: TraceRow) -> None:
    """End a fit by quadrature where the noise is far below where one would begin."""
    if row.stage != ANNEAL and row.rho[LOG_DISPERSION] < np.log(FINEST * QUADRATURE_DISPERSION):
        raise Stopped(OuterStatus.TOO_FINE)


def _final(settings: Settings, loose: bool = False) -> dict[str, Any]:
    """Options of `fit_reml` for a fit that ends at an optimum, or near it."""
    return {"curvature": settings.curvature, "valleys": False,
            "tol": max(settings.tol, settings.policy.settle.loose_tol) if loose else settings.tol}


def _not_above(
    best: Fitted, met: Sequence[Fitted], settings: Settings, trace: REMLTrace
) -> Fitted:
    """The best fit, or one from the lowest state that was met, if that is lower."""
    values = [_criterion_of(found, settings)
              if found.model.by_quadrature == best.model.by_quadrature else np.inf for found in met]
    lowest = met[int(np.argmin(values))]
    if best.result.criterion <= min(values) + settings.policy.settle.slack:
        return best
    left = settings.max_outer - trace.n_counted
    if left <= 0 or settings.deadline.passed:
        return _as_it_was(lowest, settings, OuterStatus.SPENT, UNSETTLED)
    logger.info("choices of rows led up from V = %.6f, which is fitted on as it is", min(values))
    model = lowest.model.with_state(lowest.result.theta, lowest.result.rho)
    try:
        model, result = _fit_on(model, lowest.result.rho, lowest.result.criterion, settings, trace,
                                _final(settings))
    except (InnerConvergenceError, NotPositiveDefiniteError) as error:
        logger.info("it was given up: %s", error)
        return _as_it_was(lowest, settings, OuterStatus.FAILED, UNUSABLE)
    found = Fitted(model.with_state(result.theta, result.rho), result)
    return _with_codes(found, settings) if model.by_quadrature else found


def _as_it_was(
    fitted: Fitted, settings: Settings, status: OuterStatus, detail: str
) -> Fitted:
    """A fit of loose inner solves, not converged, with every row at its mode."""
    found = _at_modes(fitted, settings)
    return replace(found, result=found.result.ended(status, detail))


def _at_modes(fitted: Fitted, settings: Settings) -> Fitted:
    """The same fit with every row at its mode."""
    theta = fitted.model.refine_rows(fitted.result.theta, fitted.result.rho,
                                     settings.policy.settle.mode_sweeps)
    return Fitted(fitted.model.with_state(theta, fitted.result.rho),
                  replace(fitted.result, theta=theta))


def _criterion_of(fitted: Fitted, settings: Settings) -> float:
    """V of a fit by the curvature of the settings; infinite where it has none."""
    if settings.curvature == "majorizer":
        return fitted.result.criterion
    try:
        return criterion_at(fitted.model, fitted.result.inner, curvature=settings.curvature,
                            gradient=False).value
    except (InnerConvergenceError, NotPositiveDefiniteError):
        return np.inf


def _as_it_begins(model: SAEManifoldModel, settings: Settings) -> float:
    """V of a model at its rho, its mode being a Newton step away from its state."""
    point: ModelPoint = model.at(model.initial_theta(), model.initial_rho())
    inner = InnerSolution(point.theta, point, InnerStatus.MAX_ITER, 0, np.inf, 0.0)
    value = criterion_at(model, inner, curvature=settings.curvature, gradient=False).value
    gradient = point.gradient()
    newton = Theta(*point.factorize().solve(gradient.xi, gradient.beta))
    return value - 0.5 * gradient.dot(newton)


def _with_codes(fitted: Fitted, settings: Settings) -> Fitted:
    """A fit whose rows were integrated out, with every row at its best mode."""
    found = _at_modes(fitted, settings)
    model, _ = reassign(found.model, found.result.theta, found.result.rho,
                        settings.policy.encode)
    return Fitted(model, replace(found.result, theta=model.initial_theta()))


def _best(rounds: Sequence[Fitted]) -> Fitted:
    return min(rounds, key=lambda found: (not found.result.converged, found.result.criterion))
