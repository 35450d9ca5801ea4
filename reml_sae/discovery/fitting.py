"""From standardised data to a rough fit: starts and their ranking.

1. Starts: subspace clustering gives labels and coordinates (DESIGN A7, the linear relaxation).
2. Each start is fitted roughly at Fellner-Schall strengths and ranked by V; where rows seem to mix
   several atoms, a start of mixed assignments competes too.
3. The best is fitted on (`_settle`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from reml_sae.assignments import Assignment
from reml_sae.discovery.code_starts import CodeStart, find_code_starts
from reml_sae.discovery.encode import active_set, encode, hard_shares, squared_speeds
from reml_sae.discovery.pursuit import Candidate
from reml_sae.engine import Deadline, FitResult, OuterKey, OuterStatus, Theta, TraceRow, fit_reml
from reml_sae.errors import InnerConvergenceError, NotPositiveDefiniteError
from reml_sae.families import Family
from reml_sae.manifolds import Manifold
from reml_sae.models import PenaltyTerm, SAEManifoldModel
from reml_sae.models.sae.model import Integration
from reml_sae.models.sae.start import solve_beta, start_psi
from reml_sae.models.sae.structure import with_own_priors
from reml_sae.typing import Array, Curvature

logger = logging.getLogger("reml_sae")

MODE_SWEEPS = 60
START_SHARE_OF_VARIANCE = 0.5
START_LOG_STRENGTHS = {"logits": 4.0, "amplitudes": 2.0}
"""Starts are hard partitions, the mode of a strong entropy penalty; from a weak one the assignments
of all rows melt together before REML can set its strength. Amplitudes start near one."""
START_LOG_PRECISION = 0.0
"""Of pre-activations: a higher one would pull them below the threshold, and the decoders up."""
ROUGH: dict[str, Any] = {"curvature": "majorizer", "rough": True, "max_fellner_schall": 4}
"""Options of `fit_reml` for a rough fit."""
LEAST_LEFT = 0.25
"""Share of the noise that residuals are taken to have where rows have hardly more columns than
codes."""
STIFF = {"decoder": 3.0, "amplitudes": 4.0}
"""What the log strengths of a stiff start are above those of others."""
STIFF_TURNS, STIFF_SWEEPS = 3, 3
MIXED_LOG_SPARSITY, MIXED_SHARE, MIXED_TURNS, MIXED_ROWS = 0.0, 0.6, 15, 0.02
OVERDISPERSED = 1.3
"""Variance of the rows' squared residuals, relative to white noise, where rows may mix atoms."""
UNEXPLAINED = 1.25
"""Starts that leave this much more of the variance unexplained than the best are not fitted."""


@dataclass(frozen=True)
class Fitted:
    """A model with its structure settled, and the fit at it."""

    model: SAEManifoldModel
    result: FitResult


@dataclass(frozen=True)
class Settings:
    """What the fit needs to know beside the data and the atoms."""

    bind: Callable[[Sequence[Manifold]], Sequence[PenaltyTerm]]
    """Penalties of a model with these atoms."""
    assign: Callable[[int], Assignment]
    """Assignment of a model with this many atoms."""
    curvature: Curvature
    max_outer: int
    """Bound on the rows of the trace of the model that is returned, annealing apart."""
    tol: float
    n_init: int
    callbacks: Sequence[Callable[[TraceRow], object]]
    family: Family
    offset: Array
    integration: Integration = "auto"
    deadline: Deadline = field(default_factory=Deadline)


def working_scale(Z: Array, settings: Settings) -> Array:
    """Data on the scale of the predictor, centred, in units of its root mean square: (N, p)."""
    if settings.family.equal_weights:
        return Z
    working = settings.family.initial_eta(Z) - settings.offset
    working = working - working.mean(axis=0)
    return working / max(float(np.sqrt(np.mean(working**2))), np.finfo(float).tiny)


def fit_starts(
    Z: Array, unit: float, atoms: Sequence[Manifold], settings: Settings,
    rng: np.random.Generator,
) -> Fitted:
    """The best of several starts, fitted roughly and ranked by V.

    Raises
    ------
    InnerConvergenceError
        Where no start leads to a usable state.
    """
    assignment = settings.assign(len(atoms))
    starts = find_code_starts(working_scale(Z, settings), atoms, assignment, settings.n_init, rng)
    rough: list[tuple[Fitted, CodeStart]] = []
    halt: OuterStatus | None = None
    most = max((start.explained for start in starts if start.explained is not None), default=0.0)
    for number, start in enumerate(starts):
        if start.explained is not None and 1.0 - start.explained > UNEXPLAINED * (1.0 - most):
            logger.info("start %d was skipped: it explains %.4f of the variance, another %.4f",
                        number, start.explained, most)
            continue
        model = model_from_codes(Z, unit, atoms, settings, start.codes)
        if assignment.chooses_support and len(atoms) > 1 and assignment.most_active > 1:
            model = _annealed(model)
        fitted = rough_fit(model, settings, f"start {number}")
        if fitted is not None:
            rough.append((fitted, start))
            halt = _halt(fitted, settings)
            if halt is not None:
                break
    if not rough:
        raise InnerConvergenceError(
            f"none of the {len(starts)} starts reached a usable state; try other atoms, fewer "
            "atoms or a larger n_init"
        )
    best, start = min(rough, key=lambda pair: pair[0].result.criterion)
    mixed = None if halt is not None else _mixed_start(best, start)
    if mixed is not None:
        soft = rough_fit(mixed, settings, "mixed start")
        if soft is not None:
            halt = _halt(soft, settings)
            best = min(best, soft, key=lambda found: found.result.criterion)
    return best if halt is None else stopped(best, halt)


def _halt(fitted: Fitted, settings: Settings) -> OuterStatus | None:
    """Why nothing more is to be tried after this fit; None where it may be."""
    if fitted.result.interrupted:
        return fitted.result.status
    return OuterStatus.OUT_OF_TIME if settings.deadline.passed else None


def stopped(fitted: Fitted, status: OuterStatus) -> Fitted:
    """The fit, marked as one after which the search was stopped."""
    return replace(fitted, result=fitted.result.ended(status))


def _annealed(model: SAEManifoldModel) -> SAEManifoldModel:
    """The model after a few turns of rows and decoders at stiff priors.

    The decoders of a start whose rows use some wrong atoms would bend, and the amplitudes spread,
    to explain these rows; stiff ones let the rows find their atoms.
    """
    theta, rho = model.initial_theta(), model.initial_rho()
    for term in model.terms:
        if term.target in STIFF and term.penalty.is_quadratic:
            rho[term.where] += STIFF[term.target]
    for _ in range(STIFF_TURNS):
        theta = solve_beta(model, model.refine_rows(theta, rho, STIFF_SWEEPS), rho)
        rho[model.outer.psi] = start_psi(model, theta)
        model, _ = reassign(model, theta, rho)
        theta = model.initial_theta()
    return model.with_state(theta, rho)


def rough_fit(model: SAEManifoldModel, settings: Settings, name: str) -> Fitted | None:
    """A few Fellner-Schall steps; None where the start leads to no usable state."""
    model = decided(model, settings)
    try:
        result = fit_reml(model, **ROUGH, max_outer=settings.max_outer,
                          max_time=settings.deadline.left, callbacks=settings.callbacks)
    except (InnerConvergenceError, NotPositiveDefiniteError) as error:
        logger.info("%s was given up: %s", name, error)
        return None
    logger.info("%s: V = %.4f", name, result.criterion)
    return Fitted(model.settled(), result)


def _mixed_start(fitted: Fitted, start: CodeStart) -> SAEManifoldModel | None:
    """Start for rows that mix several atoms, from a hard fit; None where hardly a row does.

    A row of a hard partition carries one coordinate, so its fit leaves what the other atoms would
    explain in the noise, and that noise hides that they could be resolved. Here every row begins
    with all coordinates; rows and decoders take turns at a weak entropy penalty, after which each
    row keeps the coordinates that it resolves.
    """
    assignment = fitted.model.assignment
    if len(fitted.model.atoms) == 1 or not assignment.is_mixture or not _is_overdispersed(fitted):
        return None
    rho = fitted.result.rho.copy()
    for term in fitted.model.terms:
        if term.target == "logits":
            rho[term.where] = term.penalty.rho_at(MIXED_LOG_SPARSITY)
    shares = hard_shares(start.labels, len(fitted.model.atoms), MIXED_SHARE)
    zeta = assignment.start(start.codes.support, shares)
    theta = Theta(np.concatenate([zeta, start.codes.coordinates], axis=1),
                  fitted.model.initial_theta().beta)
    model = fitted.model.with_state(theta, rho, np.ones_like(fitted.model.active))
    for _ in range(MIXED_TURNS):
        theta = solve_beta(model, model.refine_rows(theta, rho, 3), rho)
        rho[model.outer.psi] = start_psi(model, theta)
    active = active_set(model, theta, rho)
    if (active.sum(axis=1) > 1).mean() < MIXED_ROWS:
        return None
    return model.with_state(theta, rho, active)


def _is_overdispersed(fitted: Fitted) -> bool:
    """Whether some rows are explained much worse than others, as those that mix atoms would be."""
    model, theta = fitted.model, fitted.result.theta
    residual = model.working - model.scaled_basis(theta)[1] @ theta.beta
    squares = (residual**2).sum(axis=1)
    white = 2.0 / residual.shape[1] * squares.mean() ** 2
    return bool(squares.var() > OVERDISPERSED * white)


def model_from_codes(
    Z: Array, unit: float, atoms: Sequence[Manifold], settings: Settings, codes: Candidate,
    known: Mapping[OuterKey, float] | None = None,
) -> SAEManifoldModel:
    """Arrow model at given codes, with the best decoders for them.

    Parameters
    ----------
    Z : (N, p) standardised data
    unit : float
    atoms : sequence of Manifold
    settings : Settings
    codes : Candidate
    known : mapping, optional
        Outer parameters by key; the others start where searches start.
    """
    family, assignment = settings.family, settings.assign(len(atoms))
    terms = with_own_priors(assignment, settings.bind(atoms))
    own = (np.array([np.log(START_SHARE_OF_VARIANCE)]) if family.has_dispersion
           else family.initial_psi(Z))
    rho = np.concatenate([*(term.penalty.initial_rho() for term in terms), own])
    size = sum(atom.basis_size for atom in atoms) + assignment.has_intercept
    zeta = assignment.start(codes.support, codes.amplitudes)
    theta = Theta(np.concatenate([zeta, codes.coordinates], axis=1), np.zeros((size, Z.shape[1])))
    model = SAEManifoldModel(
        Z, atoms, terms, codes.support, theta, rho, assignment=assignment, unit=unit,
        family=family, offset=settings.offset,
        integration=_integration(assignment, settings),
    )
    for term in model.terms:
        if term.target == "amplitudes" and not assignment.is_log_normal:
            rho[term.where] = term.penalty.rho_at(START_LOG_PRECISION)
        elif term.target in START_LOG_STRENGTHS:
            rho[term.where] = term.penalty.rho_at(START_LOG_STRENGTHS[term.target])
    rho = model.outer.filled(rho, {} if known is None else known)
    theta = solve_beta(model, theta, rho)
    rho[model.outer.psi] = start_psi(model, theta)
    if (phi := model.outer.dispersion) is not None:
        rho[phi] -= np.log(_left_to_noise(model))
    # an atom that is a point has no coordinate to carry
    speeds = squared_speeds(model, theta.beta, np.ones(Z.shape[1]))
    return model.with_state(theta, rho, codes.support & (speeds > 0.0))


def _left_to_noise(model: SAEManifoldModel) -> float:
    """Share of the noise that rows placed on their atoms leave in the residuals.

    Each takes the noise along its atoms into its codes. Started below what it is, the noise holds
    the rows to codes that are all noise, and decoders bend after them.
    """
    taken = model.active @ [atom.intrinsic_dim for atom in model.atoms]
    return max(1.0 - float(taken.mean()) / model.shape[1], LEAST_LEFT)


def decided(model: SAEManifoldModel, settings: Settings) -> SAEManifoldModel:
    """The model with its integration decided anew, at its present state, for the next fit."""
    return model.with_integration(_integration(model.assignment, settings)).decided()


def _integration(assignment: Assignment, settings: Settings) -> Integration:
    """That of the settings; under hard gates it waits for the supports (`integrate_rows`)."""
    return "laplace" if assignment.chooses_support else settings.integration


def reassign(
    model: SAEManifoldModel, theta: Theta, rho: Array
) -> tuple[SAEManifoldModel, int]:
    """The model with every row at its best local minimum, and how many rows moved."""
    found, active, moved = encode(model, theta, rho, search_from_state=True)
    active[~moved] = active_set(model, theta, rho)[~moved]
    return model.with_state(found, rho, active), int(moved.sum())
