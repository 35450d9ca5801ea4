"""Rows that two atoms share out anew.

Starts give rows to atoms by rings and flats, and rows of atoms that cross each other may end on the
wrong side: both atoms bend after what they have, so that no row leaves alone. Where rows use one
atom each, the rows of two atoms are a problem of their own. It is searched from starts of its own,
and what is found there takes the place of the two where V of these rows falls. Pairs are tried that
come near each other; atoms that are apart have no rows to share. Two that are all there is have no
problem of their own: the starts of the search were theirs, unless other atoms were started with or
the noise has since got a shape.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import combinations

import numpy as np

from reml_sae.assignments import Assignment
from reml_sae.discovery.codes import Candidate, hard_shares
from reml_sae.discovery.first_fit import fit_starts
from reml_sae.discovery.fitting import Fitted, Settings, model_from_codes, rough_fit
from reml_sae.discovery.local import local_settings
from reml_sae.discovery.moves.protocol import Context, Proposal, Proposals, refitted
from reml_sae.discovery.policy import EncodePolicy
from reml_sae.discovery.pursuit import atom_grid
from reml_sae.discovery.settle import settle
from reml_sae.discovery.strengths import known_of
from reml_sae.errors import InnerConvergenceError
from reml_sae.typing import Array, Index, Mask

logger = logging.getLogger("reml_sae")

TINY = 1e-300

Pair = tuple[int, int]


class Regroup:
    """The rows of two atoms find their places anew where V falls."""

    kind = "regroup"
    names_only = False

    def applies(self, fitted: Fitted, context: Context) -> bool:
        """Where rows of one scale use one of several atoms each, nearly whole."""
        model, structure = fitted.model, context.structure
        if len(model.atoms) < 2 or not model.family.equal_weights or model.couples_rows:
            return False
        started = structure.n_atoms == 2 and structure.topology is not None
        if started and fitted.rows.noise.simpler() is None:
            return False
        if model.assignment.is_mixture:
            whole = float(fitted.amplitudes.max(axis=1).mean())
            return whole >= context.settings.policy.encode.soft_share
        return model.assignment.most_active == 1

    def propose(self, fitted: Fitted, context: Context) -> Proposals:
        """Pairs of atoms, each once, those that touch most rows of each other first."""
        tried: set[Pair] = set()
        while len(tried) < context.settings.policy.move.most_regroups:
            pair = next((pair for pair in _touching(fitted, context) if pair not in tried), None)
            if pair is None:
                return
            tried.add(pair)
            proposal = _regrouped(fitted, pair, context)
            if proposal is not None:
                fitted = yield proposal


def _touching(fitted: Fitted, context: Context) -> list[Pair]:
    """Pairs of atoms by the share of their rows that are near the other, the largest first."""
    policy, labels = context.settings.policy, _labels(fitted)
    near = _distances(fitted, policy.encode) < policy.move.regroup_near
    shares = {}
    for i, j in combinations(range(near.shape[1]), 2):
        ours = (labels == i) | (labels == j)
        shares[i, j] = float((near[ours, i] & near[ours, j]).mean()) if ours.any() else 0.0
    return sorted((pair for pair, share in shares.items() if share >= policy.move.regroup_share),
                  key=lambda pair: -shares[pair])


def _distances(fitted: Fitted, policy: EncodePolicy) -> Array:
    """Distance (N, K) of the place of a row on its atom from every atom, in radii of this one.

    What is on the atoms is without noise, which in many columns is longer than they are.
    """
    model, theta, labels = fitted.model, fitted.result.theta, _labels(fitted)
    places, curves = np.zeros_like(model.Z), []
    for k, (atom, where) in enumerate(zip(model.atoms, model.layout.basis_slices, strict=True)):
        rows = np.flatnonzero(labels == k)
        t = theta.xi[rows][:, model.coordinate_columns(k)]
        places[rows] = atom.basis(t) @ theta.beta[where]
        curves.append(atom.basis(atom_grid(atom, policy)) @ theta.beta[where])
    apart = [((places**2).sum(axis=1)[:, None] - 2.0 * places @ curve.T
              + (curve**2).sum(axis=1)).min(axis=1) for curve in curves]
    sizes = [float(curve.var(axis=0).sum()) for curve in curves]
    return np.sqrt(np.maximum(np.stack(apart, axis=1), 0.0) / np.maximum(sizes, TINY))


def _regrouped(fitted: Fitted, pair: Pair, context: Context) -> Proposal | None:
    """The model with two atoms as they are on their rows alone; None where V is no lower there."""
    model, settings = fitted.model, context.settings
    rows = np.flatnonzero(np.isin(_labels(fitted), pair))
    found = _alone(fitted, pair, rows, context)
    if found is None:
        return None
    codes, own = fitted.codes, found.codes
    labels, coordinates = _labels(fitted), codes.coordinates.copy()
    labels[rows] = np.array(pair)[_labels(found)]
    for k, where in zip(pair, found.model.layout.coordinate_slices, strict=True):
        coordinates[rows, model.layout.coordinate_slices[k]] = own.coordinates[:, where]
    support, amplitudes = codes.support.copy(), codes.amplitudes.copy()
    support[rows], amplitudes[rows] = _whole(labels[rows], model.assignment, settings)
    known = {key: value for key, value in known_of(fitted).items() if key.atom not in pair}

    def fit(settings: Settings) -> Fitted | None:
        return refitted(fitted, model.atoms, Candidate(support, amplitudes, coordinates), known,
                        settings)

    named = " and ".join(model.atoms[k].label for k in pair)
    return Proposal(pair[0], f"{named}, atoms {pair[0]} and {pair[1]}, share out {len(rows)} rows",
                    -settings.policy.move.restart_gain, fit)


def _alone(fitted: Fitted, pair: Pair, rows: Index, context: Context) -> Fitted | None:
    """Two atoms on their rows alone, from starts; None where V is not below that of their codes."""
    model, policy = fitted.model, context.settings.policy.move
    settings = _settings(context.settings, model.shape[1])
    part = replace(fitted.rows, Z=model.Z[rows], weights=None)
    atoms = [model.atoms[k] for k in pair]
    coordinates = np.concatenate([fitted.result.theta.xi[rows][:, model.coordinate_columns(k)]
                                  for k in pair], axis=1)
    codes = Candidate(*_whole((_labels(fitted)[rows] == pair[1]).astype(np.intp),
                              settings.assign(2), settings), coordinates)
    known = {replace(key, atom=pair.index(key.atom)): value
             for key, value in known_of(fitted).items() if key.atom in pair}
    present = rough_fit(model_from_codes(part, atoms, settings, codes, known), settings,
                        "two atoms alone, as they are")
    try:
        found = fit_starts(part, atoms, settings, context.rng)
    except InnerConvergenceError as error:
        logger.info("atoms %d and %d alone were given up: %s", *pair, error)
        return None
    if present is None or found.result.interrupted or _alike(present, found) > policy.regrouped:
        return None
    present, found = settle(present, settings), settle(found, settings)
    fall = present.result.criterion - found.result.criterion
    logger.info("atoms %d and %d alone, anew: V falls by %.4f", *pair, fall)
    return found if fall > policy.restart_gain else None


def _settings(settings: Settings, n_columns: int) -> Settings:
    """Settings of a fit of two atoms in the metric of the present noise."""
    own = local_settings(settings.plain(), n_columns).assigned(settings.assign)
    return replace(own, n_init=settings.n_init)


def _labels(fitted: Fitted) -> Index:
    """The atom (N,) that a row uses most."""
    return fitted.amplitudes.argmax(axis=1)


def _whole(labels: Index, assignment: Assignment, settings: Settings) -> tuple[Mask, Array]:
    """Support and amplitudes (n, K) of rows that use one atom each."""
    support = labels[:, None] == np.arange(assignment.n_atoms)
    if not assignment.is_mixture:
        return support, support.astype(float)
    share = settings.policy.encode.hard_share
    return support, hard_shares(labels, assignment.n_atoms, share)


def _alike(one: Fitted, other: Fitted) -> float:
    """Share of the rows that two fits give to the same of two atoms, whichever they call which."""
    same = float((_labels(one) == _labels(other)).mean())
    return max(same, 1.0 - same) if one.model.atoms[0] == one.model.atoms[1] else same
