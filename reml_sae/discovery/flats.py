"""Curved atoms that are no better than a flat, judged by V.

    demote        such an atom becomes flat: V rises by less than `MARGIN`
    flat_twins    such atoms are named, and nothing is changed

Contract. That of `_moves`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reml_sae.discovery.code_starts import LEAST_ROWS
from reml_sae.discovery.fitting import Fitted, Settings, stopped
from reml_sae.discovery.moves import (
    MARGIN,
    Move,
    codes_of,
    is_flat,
    judged,
    known_without,
    local_rows,
    principal_scores,
    rough_criterion,
    topology_label,
    try_change,
)
from reml_sae.discovery.pursuit import Candidate
from reml_sae.engine import reason
from reml_sae.manifolds import Euclidean, Manifold
from reml_sae.typing import Array, Index

MOST_FLAT, MOST_ROWS = 4, 600
"""Dimensions of a flat that is tried, and rows of one atom when they are fitted on their own."""


def demote(
    fitted: Fitted, settings: Settings, rng: np.random.Generator
) -> tuple[Fitted, list[Move]]:
    """Put a flat in the place of every curved atom that is no better than one."""
    moves: list[Move] = []
    fitted = judged(fitted, settings)
    for k in range(len(fitted.model.atoms)):
        if fitted.result.interrupted:
            break
        fitted, move = _flattened(fitted, settings, k, "demote", rng)
        moves += [] if move is None else [move]
    return fitted, moves


def flat_twins(
    fitted: Fitted, settings: Settings, rng: np.random.Generator
) -> tuple[Fitted, list[Move]]:
    """Name every curved atom that is no better than a flat; the model stays as it is."""
    moves: list[Move] = []
    present = judged(fitted, settings)
    for k in range(len(present.model.atoms)):
        trial, move = _flattened(present, settings, k, "flat twin", rng)
        if trial.result.interrupted:
            return stopped(fitted, trial.result.status), moves
        if move is not None and move.accepted:
            moves.append(replace(move, accepted=False))
    return fitted, moves


def _flattened(
    fitted: Fitted, settings: Settings, k: int, kind: str, rng: np.random.Generator
) -> tuple[Fitted, Move | None]:
    """The model with a flat for atom k where that is no worse; no move where none was tried.

    A fit of the atom's own rows tells whether it is worth a try in the whole model.
    """
    atom = fitted.model.atoms[k]
    if is_flat(atom):
        return fitted, None
    rows, X = local_rows(fitted, k)
    try:
        flat = _linear_twin(principal_scores(X, MOST_ROWS, rng), atom, settings, rng)
    except KeyboardInterrupt as stop:
        return stopped(fitted, reason(stop)), None
    if flat is None:
        return fitted, None
    atoms = [flat if j == k else other for j, other in enumerate(fitted.model.atoms)]
    codes = _codes_on_flat(fitted, k, rows, X, flat)
    detail = f"{topology_label(atom)} -> {topology_label(flat)}"
    return try_change(fitted, settings, Move(kind, k, 0.0, 0.0, False, detail),
                      atoms, codes, known_without(fitted, k), MARGIN)


def _linear_twin(
    scores: Array, atom: Manifold, settings: Settings, rng: np.random.Generator
) -> Manifold | None:
    """The best flat where, on these rows alone, the atom is not better than it by the margin."""
    if len(scores) < LEAST_ROWS or scores.shape[1] == 0:
        return Euclidean(1, 1)
    values = {Euclidean(d, 1): rough_criterion(scores, Euclidean(d, 1), settings, rng)
              for d in range(1, min(atom.linear_dim, MOST_FLAT, scores.shape[1]) + 1)}
    best = min(values, key=lambda flat: values[flat])
    curved = rough_criterion(scores, atom, settings, rng)
    return best if values[best] < curved + MARGIN else None


def _codes_on_flat(
    fitted: Fitted, k: int, rows: Index, X: Array, flat: Manifold
) -> Candidate:
    """The codes with standardised scores on the axes of X for atom k; zero for its other rows."""
    codes, where = codes_of(fitted), fitted.model.layout.coordinate_slices[k]
    t = np.zeros((len(codes.support), flat.latent_dim))
    if len(rows):
        u, lengths, _ = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
        kept = min(flat.latent_dim, len(lengths))
        t[rows, :kept] = u[:, :kept] * np.sqrt(len(rows))
    parts = [codes.coordinates[:, :where.start], t, codes.coordinates[:, where.stop:]]
    return replace(codes, coordinates=np.concatenate(parts, axis=1))
