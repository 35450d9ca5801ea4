"""Changes of a fitted model's structure, judged by V.

A change edits atoms and codes, starts from the fitted strengths and is fitted roughly; where V is
then above what would be accepted, but not hopelessly, it is fitted on by REML. Each function
returns the model after the accepted changes, for the caller to fit on, and a record of all that
were tried.

    merge_duplicates  one of two atoms that lie on each other is removed where V falls by `MARGIN`
    remove_idle       so is any atom, the least used first, and every atom of at most two rows

Contract. The model given in is never changed. At least one atom stays. A change that leads to no
usable state, or that the penalties or the assignment do not allow (a penalty for a fixed number of
atoms), is recorded as not accepted. An interrupt keeps the state before the change, marked so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from reml_sae.assignments import get_assignment
from reml_sae.discovery.encode import encode
from reml_sae.discovery.fitting import (
    Fitted,
    Settings,
    fit_starts,
    model_from_codes,
    rough_fit,
    stopped,
)
from reml_sae.discovery.pursuit import Candidate, atom_grid
from reml_sae.discovery.settle import settle
from reml_sae.engine import OuterKey, Theta
from reml_sae.errors import InnerConvergenceError, InputError
from reml_sae.families import Gaussian
from reml_sae.manifolds import Euclidean, Manifold
from reml_sae.models.sae.defaults import default_terms
from reml_sae.typing import Array, Index

logger = logging.getLogger("reml_sae")

MARGIN = 3.0
"""Nats by which a curved atom must beat a flat, and a removal the present model."""
WITHIN_PER_ROW = 0.25
"""Nats a row by which a rough V may miss what is accepted and still be fitted on."""
SETTLE_OUTER, IDLE_ROWS = 60, 2
MOST_COLUMNS = 10
"""Leading scores of the rows of one atom when they are fitted on their own."""
LOCAL_TOL = 1e-4
"""Their gradient tolerance, which leaves V right to a small part of `MARGIN`."""
LEAST_AMPLITUDE = 0.5
"""Rows that use an atom less than this share of their median are left out of its local rows."""
SAME_SUBSPACE, SAME_CENTRE = 0.95, 0.3
TINY = 1e-12


@dataclass(frozen=True)
class Move:
    """One change that was tried.

    Attributes
    ----------
    kind : str
        "restart", "demote", "flat twin", "reshape", "merge" or "remove".
    atom : int
        Number of the atom in the model that was changed.
    before, after : float
        V in nats; ``after`` is nan where no usable state was reached.
    accepted : bool
    detail : str
    """

    kind: str
    atom: int
    before: float
    after: float
    accepted: bool
    detail: str


# --- one atom on its own rows ----------------------------------------------------------------


def is_flat(atom: Manifold) -> bool:
    """Whether the atom is an affine flat."""
    return isinstance(atom, Euclidean) and atom.degree == 1


def topology_label(atom: Manifold) -> str:
    """Name with parameters, such as ``circle(n_harmonics=2)``."""
    config = atom.to_config()
    name = config.pop("topology")
    return f"{name}({', '.join(f'{key}={value}' for key, value in config.items())})"


def amplitudes_of(fitted: Fitted) -> Array:
    """Amplitudes (N, K) of a fitted model."""
    model = fitted.model
    return model.assignment.amplitudes(model.logits(fitted.result.theta), model.is_open).a


def codes_of(fitted: Fitted) -> Candidate:
    """Support, amplitudes and coordinates of a fitted model."""
    model = fitted.model
    return Candidate(model.active, amplitudes_of(fitted),
                     fitted.result.theta.xi[:, model.assignment.dim:])


def local_rows(fitted: Fitted, k: int) -> tuple[Index, Array]:
    """Rows that use atom k well, and what they look like on it alone.

    Returns
    -------
    rows : (n,) int array
    X : (n, p) array
        Working data less what the other atoms explain, with the row's amplitude on atom k taken
        out; under hard gates the atom's centre is whole whatever the amplitude.
    """
    model = fitted.model
    amplitudes = amplitudes_of(fitted)[:, k]
    used = model.active[:, k]
    least = LEAST_AMPLITUDE * float(np.median(amplitudes[used])) if used.any() else 0.0
    rows = np.flatnonzero(used & (amplitudes >= max(least, TINY)))
    features = model.scaled_basis(fitted.result.theta)[1].copy()
    features[:, model.layout.basis_slices[k]] = 0.0
    beta = fitted.result.theta.beta
    centre = model.assignment.whole_constants(beta[model.layout.basis_slices[k].start])
    residual = model.working[rows] - features[rows] @ beta
    return rows, (residual - centre) / amplitudes[rows, None] + centre


def sample_rows(X: Array, most: int, rng: np.random.Generator) -> Array:
    """At most so many rows, in their order."""
    return X if len(X) <= most else X[np.sort(rng.choice(len(X), most, replace=False))]


def principal_scores(X: Array, most: int, rng: np.random.Generator) -> Array:
    """Leading scores (n', r) of a sample of rows, of unit mean square; r = 0 for equal rows."""
    X = sample_rows(X, most, rng)
    centred = X - X.mean(axis=0) if X.size else X
    if not np.abs(centred).max(initial=0.0) > TINY * np.abs(X).max(initial=0.0):
        return X[:, :0]
    u, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    kept = int((lengths[:MOST_COLUMNS] > np.sqrt(TINY) * lengths[0]).sum())
    scores = u[:, :kept] * lengths[:kept]
    return np.asarray(scores / np.sqrt(np.mean(scores**2)))


def local_settings(settings: Settings, n_columns: int) -> Settings:
    """Settings for a fit of one atom on its own: Gaussian, default penalties, one start."""
    return replace(
        settings, bind=lambda atoms: default_terms(atoms, get_assignment("softmax", len(atoms))),
        assign=lambda n_atoms: get_assignment("softmax", n_atoms), curvature="majorizer",
        n_init=1, callbacks=(), max_outer=min(settings.max_outer, SETTLE_OUTER),
        tol=max(settings.tol, LOCAL_TOL), family=Gaussian(), offset=np.zeros(n_columns))


def uninterrupted(fitted: Fitted, settings: Settings) -> Fitted:
    """Return the fit; raise the interrupt that ended it."""
    if fitted.result.interrupted:
        settings.deadline.check()
        raise KeyboardInterrupt
    return fitted


def rough_local(
    scores: Array, atom: Manifold, settings: Settings, rng: np.random.Generator
) -> Fitted | None:
    """Rough fit of one atom to rows (n, r), None where no start is usable; raises interrupts."""
    try:
        found = fit_starts(scores, 1.0, [atom], local_settings(settings, scores.shape[1]), rng)
    except InnerConvergenceError as error:
        logger.info("candidate %s was given up: %s", topology_label(atom), error)
        return None
    return uninterrupted(found, settings)


def rough_criterion(
    scores: Array, atom: Manifold, settings: Settings, rng: np.random.Generator
) -> float:
    """V of a rough fit of one atom to rows (n, r); infinite where no start is usable."""
    found = rough_local(scores, atom, settings, rng)
    return np.inf if found is None else found.result.criterion


# --- moves -----------------------------------------------------------------------------------


def merge_duplicates(fitted: Fitted, settings: Settings) -> tuple[Fitted, list[Move]]:
    """Remove one of two atoms that span the same subspace about the same centre."""
    moves: list[Move] = []
    fitted = judged(fitted, settings)
    pairs = _duplicates(fitted)
    while pairs and not fitted.result.interrupted:
        k, other = pairs.pop(0)
        fitted, move = _remove(fitted, settings, k, "merge", f"lies on atom {other}", -MARGIN)
        moves.append(move)
        if move.accepted:
            pairs = _duplicates(fitted)
    return fitted, moves


def remove_idle(fitted: Fitted, settings: Settings) -> tuple[Fitted, list[Move]]:
    """Remove atoms without which V is lower, the least used first, and those of hardly a row."""
    moves: list[Move] = []
    fitted = judged(fitted, settings)
    changed = True
    while changed and len(fitted.model.atoms) > 1 and not fitted.result.interrupted:
        changed = False
        shares = amplitudes_of(fitted)
        for k in np.argsort(shares.sum(axis=0), kind="stable"):
            n_rows = int(fitted.model.active[:, k].sum())
            limit = np.inf if n_rows <= IDLE_ROWS else -MARGIN
            fitted, move = _remove(fitted, settings, int(k), "remove", f"{n_rows} rows", limit)
            moves.append(move)
            if move.accepted or fitted.result.interrupted:
                changed = move.accepted
                break
    return fitted, moves


# --- how a move is made and judged -----------------------------------------------------------


def judged(fitted: Fitted, settings: Settings) -> Fitted:
    """The model with V as moves are judged by: of the majorizer, without callbacks."""
    if settings.curvature == "majorizer":
        return fitted
    theta, rho = fitted.result.theta, fitted.result.rho
    again = rough_fit(fitted.model.with_state(theta, rho), replace(settings, callbacks=()),
                      "present model")
    if again is None:
        return fitted
    return stopped(fitted, again.result.status) if again.result.interrupted else again


def known_of(fitted: Fitted) -> dict[OuterKey, float]:
    """Outer parameters by key."""
    return fitted.model.outer.keyed(fitted.result.rho)


def known_without(fitted: Fitted, k: int) -> dict[OuterKey, float]:
    """Outer parameters by key, without those of atom k."""
    return {key: value for key, value in known_of(fitted).items() if key.atom != k}


def try_change(
    fitted: Fitted, settings: Settings, move: Move, atoms: Sequence[Manifold], codes: Candidate,
    known: Mapping[OuterKey, float], limit: float,
) -> tuple[Fitted, Move]:
    """Fit the changed model; it is accepted where V rises by less than ``limit``."""
    judge = judging(settings)
    try:
        model = model_from_codes(fitted.model.Z, fitted.model.unit, atoms, judge, codes, known)
    except InputError as error:
        return fitted, replace(move, before=fitted.result.criterion, after=np.nan,
                               detail=f"{move.detail}: not allowed, {error}")
    trial = rough_fit(model, judge, f"{move.kind} of atom {move.atom}")
    return decide(fitted, judge, move, trial, limit)


def judging(settings: Settings) -> Settings:
    """Settings of the fits by which a change is judged: the majorizer, no callbacks, few steps."""
    return replace(settings, curvature="majorizer", callbacks=(),
                   max_outer=min(settings.max_outer, SETTLE_OUTER))


def decide(
    fitted: Fitted, judge: Settings, move: Move, trial: Fitted | None, limit: float
) -> tuple[Fitted, Move]:
    """The trial where V rises by less than ``limit``, else the model as it was."""
    before = fitted.result.criterion
    if trial is None:
        return fitted, replace(move, before=before, after=np.nan,
                               detail=f"{move.detail}: no usable state")
    excess = trial.result.criterion - before - limit
    n = len(fitted.model.active)
    if 0.0 <= excess < WITHIN_PER_ROW * n and not trial.result.interrupted:
        final = settle(trial, judge)
        if final.result.criterion < trial.result.criterion or final.result.interrupted:
            trial = final
    if trial.result.interrupted:
        return (stopped(fitted, trial.result.status),
                replace(move, before=before, after=np.nan))
    after = trial.result.criterion
    accepted = after - before < limit
    return (trial if accepted else fitted), replace(move, before=before, after=after,
                                                    accepted=accepted)


def _remove(
    fitted: Fitted, settings: Settings, k: int, kind: str, detail: str, limit: float
) -> tuple[Fitted, Move]:
    """Remove atom k; its rows get their best codes under the other decoders."""
    move = Move(kind, k, fitted.result.criterion, np.nan, False,
                f"{topology_label(fitted.model.atoms[k])}, {detail}")
    atoms = [atom for j, atom in enumerate(fitted.model.atoms) if j != k]
    known = renumbered(known_of(fitted), k)
    try:
        codes = _codes_without(fitted, settings, atoms, k, known)
    except InputError as error:
        return fitted, replace(move, detail=f"{move.detail}: not allowed, {error}")
    return try_change(fitted, settings, move, atoms, codes, known, limit)


def renumbered(known: Mapping[OuterKey, float], k: int) -> dict[OuterKey, float]:
    """Outer parameters, without those of atom k, by the keys that they have once it is gone."""
    return {replace(key, atom=key.atom - (key.atom > k)): value
            for key, value in known.items() if key.atom != k}


def _codes_without(
    fitted: Fitted, settings: Settings, atoms: Sequence[Manifold], k: int,
    known: Mapping[OuterKey, float],
) -> Candidate:
    """Codes of the model without atom k, at its present decoders."""
    model, theta = fitted.model, fitted.result.theta
    codes = codes_of(fitted)
    others = np.arange(len(model.atoms)) != k
    affected = np.flatnonzero(model.active[:, k] | (codes.amplitudes.argmax(axis=1) == k))
    amplitudes = model.assignment.normalised(codes.amplitudes[:, others])
    kept = model.layout.coordinate_atom != k
    codes = Candidate(codes.support[:, others], amplitudes, codes.coordinates[:, kept])
    if not len(affected):
        return codes
    start = model_from_codes(model.Z, model.unit, atoms, settings, codes, known)
    beta = np.delete(theta.beta, model.layout.basis_slices[k], axis=0)
    rho = start.initial_rho()
    rho[start.outer.psi] = fitted.result.rho[model.outer.psi]
    if start.couples_rows:
        affected = np.arange(len(model.Z))
    part = start.rows(affected)
    found, active, _ = encode(part, Theta(part.initial_theta().xi, beta), rho,
                              search_from_state=start.couples_rows)
    support, coordinates = codes.support.copy(), codes.coordinates.copy()
    support[affected] = active
    is_open = start.assignment.open_mask(active)
    amplitudes[affected] = start.assignment.amplitudes(start.logits(found), is_open).a
    coordinates[affected] = found.xi[:, start.assignment.dim:]
    return Candidate(support, amplitudes, coordinates)


def _duplicates(fitted: Fitted) -> list[tuple[int, int]]:
    """Pairs of atoms that lie on each other, the less used first."""
    shapes = []
    for k, atom in enumerate(fitted.model.atoms):
        points = atom.basis(atom_grid(atom)) @ fitted.result.theta.beta[
            fitted.model.layout.basis_slices[k]]
        centre = points.mean(axis=0)
        _, lengths, axes = np.linalg.svd(points - centre, full_matrices=False)
        shapes.append((centre, axes[:atom.linear_dim],
                       float(np.linalg.norm(lengths) / np.sqrt(len(points)))))
    share = amplitudes_of(fitted).sum(axis=0)
    pairs = []
    for k, (centre, axes, radius) in enumerate(shapes):
        for j, (other_centre, other_axes, other_radius) in enumerate(shapes[:k]):
            cosines = np.linalg.svd(axes @ other_axes.T, compute_uv=False)
            apart = float(np.linalg.norm(centre - other_centre))
            if (cosines[:min(len(axes), len(other_axes))].min() > SAME_SUBSPACE
                    and apart < SAME_CENTRE * max(radius, other_radius)):
                pairs.append((k, j) if share[k] < share[j] else (j, k))
    return pairs
