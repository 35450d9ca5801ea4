"""Shapes that were asked for, on the rows of each other's atoms.

Starts tell rings from flats and what they span, no more: an arc may take the rows of a circle, and
a sphere those of a torus, with every row in the right company. So each of the shapes is fitted to
the rows of each atom alone, and the pairs of shapes and rows whose V in sum is least, or not far
above that of the present ones, are started anew in the joint model.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
from scipy.optimize import linear_sum_assignment

from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.fitting import Fitted, Settings, model_from_codes, rough_fit
from reml_sae.discovery.local import local_rows, local_settings, rough_local
from reml_sae.discovery.metric import MetricRows
from reml_sae.discovery.moves.protocol import Context, Proposal, Proposals, refitted
from reml_sae.discovery.place import place_rows
from reml_sae.discovery.strengths import known_of, known_of_one
from reml_sae.manifolds import Manifold
from reml_sae.relaxations.axes import principal_scores, sample_index
from reml_sae.typing import Array, Index

UNUSABLE = 1e12
FAMILY = "family"
"""Kind of the outer parameters of the noise."""


class Exchange:
    """Atoms take over each other's rows where V falls."""

    kind = "exchange"
    names_only = False

    def applies(self, fitted: Fitted, context: Context) -> bool:
        """Where several shapes were asked for: those that evidence chose are on their own rows."""
        return (context.structure.topology is not None
                and len({atom.label for atom in fitted.model.atoms}) > 1)

    def propose(self, fitted: Fitted, context: Context) -> Proposals:
        """Other pairs of shapes and rows, the most hopeful first, until one is accepted."""
        local = [local_rows(fitted, k, context.settings.policy)
                 for k in range(len(fitted.model.atoms))]
        if not all(len(rows) for rows, _ in local):
            return
        for whose in _pairings(fitted, local, context):
            if (yield _exchanged(fitted, whose, local, context)) is not fitted:
                return


def _pairings(
    fitted: Fitted, local: list[tuple[Index, Array]], context: Context
) -> list[Index]:
    """The atom (K,) whose rows each shape may take: the least V of all, or of two exchanged."""
    atoms, policy = fitted.model.atoms, context.settings.policy.move
    values, every = _values_alone(fitted, local, context), np.arange(len(atoms))
    found = {tuple(linear_sum_assignment(values)[1].tolist())}
    for pair in combinations(every.tolist(), 2):
        swapped = every.copy()
        swapped[list(pair)] = pair[::-1]
        found.add(tuple(swapped.tolist()))
    labels = [atom.label for atom in atoms]
    limit = np.trace(values) + policy.exchange_per_row * len(fitted.model.Z)
    rises = {whose: values[every, list(whose)].sum() for whose in found
             if any(labels[k] != labels[j] for k, j in enumerate(whose))}
    ranked = sorted((value, whose) for whose, value in rises.items() if value < limit)
    return [np.array(whose) for _, whose in ranked[: policy.most_exchanges]]


def _values_alone(fitted: Fitted, local: list[tuple[Index, Array]], context: Context) -> Array:
    """V (K, K) of each shape fitted roughly to the rows of each atom; large where that fails.

    The atom itself is fitted from its own coordinates and strengths.
    """
    atoms, policy, rng = fitted.model.atoms, context.settings.policy, context.rng
    values = np.empty((len(atoms), len(atoms)))
    for k, (rows, X) in enumerate(local):
        chosen = sample_index(len(X), policy.move.exchange_rows, rng)
        scores = principal_scores(X[chosen], policy.topology.most_columns)
        t = fitted.result.theta.xi[rows[chosen], fitted.model.coordinate_columns(k)]
        by_shape = {atom.label: _value_amid(fitted, scores, atom, context)
                    for atom in {atom.label: atom for atom in atoms}.values()
                    if atom.label != atoms[k].label}
        by_shape[atoms[k].label] = _value_amid(fitted, scores, atoms[k], context, k, t)
        values[:, k] = [by_shape[atom.label] * len(X) / len(chosen) for atom in atoms]
    return np.asarray(np.minimum(values, UNUSABLE))


def _value_amid(
    fitted: Fitted, scores: Array, atom: Manifold, context: Context, k: int = -1,
    t: Array | None = None,
) -> float:
    """V of a rough fit of one shape to rows of one atom, in the noise that all atoms share.

    From starts, or from coordinates on atom k. In noise of its own, a curve that winds through the
    rows of a flat would pass for a good one. Rows are left to Laplace's method, as in the joint
    model.
    """
    settings = replace(context.settings.plain(), integration="laplace")
    outer, own = fitted.model.outer, local_settings(settings, scores.shape[1])
    if t is None:
        found = rough_local(scores, atom, settings, context.rng)
        model = None if found is None else found.model
    else:
        model = model_from_codes(MetricRows.isotropic(scores), [atom], own,
                                 Candidate.on_one_atom(t), known_of_one(fitted, k))
    if model is None:
        return np.inf
    shared = {key: value for key, value in outer.keyed(fitted.result.rho).items()
              if key.kind == FAMILY}
    again = rough_fit(model.with_changes(held=shared), own, f"{atom.label} amid the noise")
    return np.inf if again is None else again.result.criterion


def _exchanged(
    fitted: Fitted, whose: Index, local: list[tuple[Index, Array]], context: Context
) -> Proposal:
    """The model whose atom k has the rows of the present atom ``whose[k]``."""
    atoms = fitted.model.atoms
    moved = np.flatnonzero(whose != np.arange(len(atoms))).tolist()

    def fit(settings: Settings) -> Fitted | None:
        codes = fitted.codes
        coordinates = codes.coordinates.copy()
        for k in moved:
            rows, X = local[whose[k]]
            where = fitted.model.layout.coordinate_slices[k]
            coordinates[:, where] = atoms[k].grid(1)[:1]
            coordinates[rows, where] = place_rows(X, atoms[k], settings.policy, context.rng)
        codes = Candidate(codes.support[:, whose], codes.amplitudes[:, whose], coordinates)
        known = {key: value for key, value in known_of(fitted).items() if key.atom not in moved}
        return refitted(fitted, atoms, codes, known, settings)

    named = ", ".join(f"{atoms[k].label} on the rows of atom {whose[k]}" for k in moved)
    return Proposal(moved[0], named, -context.settings.policy.move.restart_gain, fit)
