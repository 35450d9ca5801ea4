"""Rows that two atoms share out anew.

Starts give rows to atoms by rings and flats, and rows of atoms that cross each other may end on the
wrong side: each atom bends after what it has, so no row leaves alone. Where rows use one atom each,
the rows of two atoms are a problem of their own: it is searched from starts of its own, and what is
found there is put in the place of the two where V of these rows falls. Pairs are tried that have
rows which the other atom holds nearly as well; atoms that are apart have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from reml_sae.discovery.codes import Candidate, hard_shares
from reml_sae.discovery.first_fit import fit_starts
from reml_sae.discovery.fitting import Fitted, Settings, model_from_codes, rough_fit
from reml_sae.discovery.local import amplitudes_of, codes_of, local_settings
from reml_sae.discovery.metric import MetricRows
from reml_sae.discovery.moves.protocol import Context, Proposal, Proposals, refitted
from reml_sae.discovery.pursuit import atom_grid
from reml_sae.discovery.settle import settle
from reml_sae.discovery.strengths import known_of
from reml_sae.errors import InnerConvergenceError
from reml_sae.models.sae.defaults import default_terms
from reml_sae.typing import Array, Index, Mask


class Regroup:
    """The rows of two atoms find their places anew where V falls."""

    kind = "regroup"
    names_only = False

    def applies(self, fitted: Fitted, context: Context) -> bool:
        """Where rows of equal weights use one of several atoms each, nearly whole."""
        model, policy = fitted.model, context.settings.policy.encode
        if len(model.atoms) < 2 or not model.family.equal_weights or model.couples_rows:
            return False
        if model.assignment.is_mixture:
            return float(amplitudes_of(fitted).max(axis=1).mean()) >= policy.soft_share
        return model.assignment.most_active == 1

    def propose(self, fitted: Fitted, context: Context) -> Proposals:
        """Pairs of atoms, those with most rows in common first."""
        tried: set[tuple[int, int]] = set()
        most = context.settings.policy.move.most_regroups
        while len(tried) < most:
            pair = next((pair for pair in _touching(fitted, context) if pair not in tried), None)
            if pair is None:
                return
            tried.add(pair)
            proposal = _regrouped(fitted, pair, context)
            if proposal is not None:
                fitted = yield proposal


def _touching(fitted: Fitted, context: Context) -> list[tuple[int, int]]:
    """Pairs of atoms by the share of their rows that either could hold, the largest first."""
    policy = context.settings.policy.move
    labels, excess = amplitudes_of(fitted).argmax(axis=1), _excess(fitted, context)
    near = excess < policy.regroup_nats
    shares = {}
    for i, j in combinations(range(excess.shape[1]), 2):
        ours = np.isin(labels, (i, j))
        if ours.any():
            shares[i, j] = float((near[:, i] & near[:, j])[ours].mean())
    return sorted((pair for pair, share in shares.items() if share >= policy.regroup_share),
                  key=lambda pair: -shares[pair])


def _excess(fitted: Fitted, context: Context) -> Array:
    """Nats (N, K) by which a row is farther from the nearest point of an atom than from its own."""
    model, beta, rho = fitted.model, fitted.result.theta.beta, fitted.result.rho
    apart = np.empty((len(model.Z), len(model.atoms)))
    for k, atom in enumerate(model.atoms):
        points = atom.basis(atom_grid(atom, context.settings.policy.encode)) @ beta[
            model.layout.basis_slices[k]]
        if model.assignment.has_intercept:
            points = points + beta[-1]
        apart[:, k] = ((model.Z**2).sum(axis=1)[:, None] - 2.0 * model.Z @ points.T
                       + (points**2).sum(axis=1)).min(axis=1)
    phi = model.family.dispersion(rho[model.outer.psi])
    return np.asarray((apart - apart.min(axis=1, keepdims=True)) / (2.0 * phi))


def _regrouped(
    fitted: Fitted, pair: tuple[int, int], context: Context
) -> Proposal | None:
    """The model with the rows of two atoms as they are on their own; None where V is no lower."""
    model = fitted.model
    labels = amplitudes_of(fitted).argmax(axis=1)
    rows = np.flatnonzero(np.isin(labels, pair))
    found = _alone(fitted, pair, rows, context)
    if found is None:
        return None
    whose = codes_of(found)
    codes = codes_of(fitted)
    support, coordinates = codes.support.copy(), codes.coordinates.copy()
    amplitudes = codes.amplitudes.copy()
    own = np.array(pair)[whose.amplitudes.argmax(axis=1)]
    support[rows] = own[:, None] == np.arange(len(model.atoms))
    amplitudes[rows] = (hard_shares(own, len(model.atoms), context.settings.policy.encode.hard_share)
                        if model.assignment.is_mixture else support[rows])
    for k, part in zip(pair, found.model.layout.coordinate_slices, strict=True):
        coordinates[rows, model.layout.coordinate_slices[k]] = whose.coordinates[:, part]
    again = Candidate(support, amplitudes, coordinates)
    known = {key: value for key, value in known_of(fitted).items() if key.atom not in pair}

    def fit(settings: Settings) -> Fitted | None:
        return refitted(fitted, model.atoms, again, known, settings)

    named = " and ".join(model.atoms[k].label for k in pair)
    return Proposal(pair[0], f"{named} share out {len(rows)} rows anew",
                    -context.settings.policy.move.restart_gain, fit)


def _alone(
    fitted: Fitted, pair: tuple[int, int], rows: Index, context: Context
) -> Fitted | None:
    """Both atoms on their rows alone, from starts; None where V is not below that of their codes."""
    model = fitted.model
    settings = _settings(model.shape[1], context)
    part = MetricRows(model.Z[rows], model.unit, fitted.rows.noise)
    atoms = [model.atoms[k] for k in pair]
    columns = [model.layout.coordinate_slices[k] for k in pair]
    codes = codes_of(fitted)
    own = codes.amplitudes[rows][:, pair].argmax(axis=1)
    support = own[:, None] == np.arange(2)
    shares = hard_shares(own, 2, settings.policy.encode.hard_share) if (
        model.assignment.is_mixture) else support.astype(float)
    coordinates = np.concatenate([codes.coordinates[rows][:, where] for where in columns], axis=1)
    present = rough_fit(
        model_from_codes(part, atoms, settings, Candidate(support, shares, coordinates)),
        settings, "two atoms as they are")
    try:
        found = fit_starts(part, atoms, settings, context.rng)
    except InnerConvergenceError:
        return None
    if present is None or found.result.interrupted or _alike(present, found):
        return None
    present, found = settle(present, settings), settle(found, settings)
    import logging
    logging.getLogger("reml_sae").info("REGROUP %s: alone %.2f present %.2f", pair, found.result.criterion, present.result.criterion)
    gain = context.settings.policy.move.restart_gain
    return found if found.result.criterion < present.result.criterion - gain else None


def _alike(one: Fitted, other: Fitted) -> bool:
    a, b = (amplitudes_of(found).argmax(axis=1) for found in (one, other))
    same = float((a == b).mean())
    if one.model.atoms[0] == one.model.atoms[1]:
        same = max(same, 1.0 - same)
    return same > 0.97


def _settings(n_columns: int, context: Context) -> Settings:
    settings = context.settings
    return replace(local_settings(settings.plain(), n_columns), assign=settings.assign,
                   bind=lambda atoms: default_terms(atoms, settings.assign(len(atoms))),
                   n_init=settings.n_init)
