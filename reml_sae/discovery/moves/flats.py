"""Curved atoms that are no better than a flat.

A fit of the atom's own rows tells whether it is worth a try in the whole model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.fitting import Fitted, Settings
from reml_sae.discovery.local import (
    beyond_doubt,
    criterion_from,
    least_flat,
    least_gaussian,
    local_rows,
    rough_criterion,
)
from reml_sae.discovery.metric import MetricRows, without_atoms
from reml_sae.discovery.moves.protocol import (
    Context,
    Proposal,
    Proposals,
    refitted,
    refitted_on_one,
)
from reml_sae.discovery.strengths import known_of_one, known_without
from reml_sae.engine import OuterKey
from reml_sae.families import Gaussian
from reml_sae.manifolds import Euclidean, Manifold
from reml_sae.models.sae.quadrature.lattice import MOST_LINEAR
from reml_sae.relaxations.axes import principal_scores, sample_index
from reml_sae.typing import Array, Index


class Demote:
    """A flat takes the place of a curved atom where V rises by less than the margin."""

    kind = "demote"
    names_only = False

    def applies(self, fitted: Fitted, context: Context) -> bool:
        """Where shapes are free, or that was asked for."""
        return context.structure.demote or context.structure.topology is None

    def propose(self, fitted: Fitted, context: Context) -> Proposals:
        """Flats in the place of curved atoms, one by one."""
        for k in range(len(fitted.model.atoms)):
            proposal = _flattened(fitted, k, context)
            if proposal is not None:
                fitted = yield proposal


class NameOneFlat:
    """Where V is not lower by the margin than that of one flat for all rows, that is named.

    Curves can share out the rows of a plane so that none of them is worse than a flat of its own.
    Noise of a shape would hold the flat, and is then what atoms are compared with.
    """

    kind = "one flat"
    names_only = True

    def applies(self, fitted: Fitted, context: Context) -> bool:
        """Of several atoms in noise without directions, not all of them flat."""
        model = fitted.model
        return (len(model.atoms) > 1 and context.settings.noise == "isotropic"
                and isinstance(model.family, Gaussian)
                and not all(atom.is_flat for atom in model.atoms))

    def propose(self, fitted: Fitted, context: Context) -> Proposals:
        """The best flat, where one can have a V that would be accepted."""
        settings, X = context.settings, fitted.model.coloured
        X = X - X.mean(axis=0)
        n, p = X.shape
        policy, present = settings.policy.move, fitted.result.criterion
        most = min(policy.most_flat, p - 1)
        if settings.integration == "quadrature":
            most = min(most, MOST_LINEAR)
        flats = [Euclidean(d, 1) for d in range(1, most + 1)
                 if not beyond_doubt(least_flat(fitted, d, settings) - present, policy.margin,
                                     fitted, settings)]
        if not flats:
            return
        chosen = sample_index(n, policy.flat_rows, context.rng)
        scores = principal_scores(X[chosen], settings.policy.topology.most_columns)
        flat = min(flats, key=lambda flat: rough_criterion(scores, flat, settings, context.rng))

        def fit(settings: Settings) -> Fitted | None:
            return refitted_on_one(fitted, flat, _scores(X, flat.latent_dim), settings)

        yield Proposal(0, f"one flat of dimension {flat.latent_dim} for all {n} rows",
                       policy.margin, fit)


class NameFlatTwin(Demote):
    """Such an atom is named where its shape was asked for."""

    kind = "flat twin"
    names_only = True

    def applies(self, fitted: Fitted, context: Context) -> bool:
        """Where no atom may become flat."""
        return not super().applies(fitted, context)


def _flattened(fitted: Fitted, k: int, context: Context) -> Proposal | None:
    """The model with a flat for atom k; None where it is one, needed, or has hardly any rows."""
    atom, settings = fitted.model.atoms[k], context.settings
    if atom.is_flat or _is_hopeless(fitted, atom, settings):
        return None
    rows, X = local_rows(fitted, k, settings.policy)
    if not len(rows):
        return None
    chosen = sample_index(len(rows), settings.policy.move.flat_rows, context.rng)
    scores = principal_scores(X[chosen], settings.policy.topology.most_columns)
    t = fitted.result.theta.xi[:, fitted.model.coordinate_columns(k)][rows[chosen]]
    flat = _linear_twin(scores, t, atom, known_of_one(fitted, k), settings, context.rng)
    if flat is None:
        return None
    atoms = [flat if j == k else other for j, other in enumerate(fitted.model.atoms)]

    def fit(settings: Settings) -> Fitted | None:
        codes = _codes_on_flat(fitted, k, rows, X, flat)
        return refitted(fitted, atoms, codes, known_without(fitted, k), settings)

    return Proposal(k, f"{atom.label} -> {flat.label}",
                    settings.policy.move.margin, fit)


def _is_hopeless(fitted: Fitted, atom: Manifold, settings: Settings) -> bool:
    """Whether no flat in the place of the only atom can have a V that would be accepted."""
    policy = settings.policy.move
    if len(fitted.model.atoms) > 1:
        return False
    rise = (least_flat(fitted, min(atom.linear_dim, policy.most_flat), settings)
            - fitted.result.criterion)
    return beyond_doubt(rise, policy.margin, fitted, settings)


def _linear_twin(
    scores: Array, t: Array, atom: Manifold, known: Mapping[OuterKey, float], settings: Settings,
    rng: np.random.Generator,
) -> Manifold | None:
    """The best flat where, on these rows alone, the atom is not better by the margin.

    Parameters
    ----------
    scores : (n, r) array
    t : (n, d) array
        Coordinates of the rows on the atom.
    known : mapping
        Outer parameters of the atom by key.
    """
    policy = settings.policy
    if len(scores) < policy.start.least_rows or scores.shape[1] == 0:
        return Euclidean(1, 1)
    as_it_is = criterion_from(scores, t, atom, settings, known)
    alone = np.inf
    if settings.noise != "isotropic":  # in which the curve may hold nothing
        alone = without_atoms(MetricRows.isotropic(scores), settings.of_scores().noise)
    if as_it_is + policy.move.margin < min(alone, least_gaussian(scores)):
        return None
    values = {Euclidean(d, 1): rough_criterion(scores, Euclidean(d, 1), settings, rng)
              for d in range(1, min(atom.linear_dim, policy.move.most_flat, scores.shape[1]) + 1)}
    best = min(values, key=lambda flat: values[flat])
    return None if as_it_is + policy.move.margin <= min(values[best], alone) else best


def _codes_on_flat(
    fitted: Fitted, k: int, rows: Index, X: Array, flat: Manifold
) -> Candidate:
    """The codes with standardised scores on the axes of X for atom k; zero for its other rows."""
    codes, where = fitted.codes, fitted.model.layout.coordinate_slices[k]
    t = np.zeros((len(codes.support), flat.latent_dim))
    if len(rows):
        t[rows] = _scores(X - X.mean(axis=0), flat.latent_dim)
    parts = [codes.coordinates[:, :where.start], t, codes.coordinates[:, where.stop:]]
    return replace(codes, coordinates=np.concatenate(parts, axis=1))


def _scores(X: Array, d: int) -> Array:
    """Standardised scores (n, d) of centred rows on their principal axes; zero beyond these."""
    u, lengths, _ = np.linalg.svd(X, full_matrices=False)
    kept, t = min(d, len(lengths)), np.zeros((len(X), d))
    t[:, :kept] = u[:, :kept] * np.sqrt(len(X))
    return t
