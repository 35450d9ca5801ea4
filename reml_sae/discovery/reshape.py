"""Topologies of the atoms of a joint model.

Every atom's own rows propose its topology (`choose_topology`). They are not all of its rows while
other atoms have the wrong shape, so the rivals that come close are then put in its place in the
joint model, whose V decides.

Contract. All that is random comes from ``rng``. An interrupt during `choose_topologies` is raised
as KeyboardInterrupt; `reshape` keeps the state before the change, marked so.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from reml_sae.discovery.code_starts import LEAST_ROWS, leading_scores
from reml_sae.discovery.fitting import Fitted, Settings, fit_starts
from reml_sae.discovery.moves import (
    MARGIN,
    Move,
    codes_of,
    decide,
    is_flat,
    judged,
    judging,
    local_rows,
    topology_label,
)
from reml_sae.discovery.pursuit import Candidate
from reml_sae.discovery.topology import TopologyChoice, choose_topology
from reml_sae.errors import InnerConvergenceError
from reml_sae.manifolds import Manifold
from reml_sae.relaxations.latent_grid import latent_grid_starts, nearest_coordinates
from reml_sae.typing import Array, Index, Mask

logger = logging.getLogger("reml_sae")

OUTLYING = 6.0
"""Median deviations beyond the median distance from an atom at which a row says nothing of its
shape."""
MOST_RIVALS, RIVAL_PER_ROW = 3, 0.75
"""Topologies that are tried in the joint model in the place of one, and the nats a row by which
they may be behind it on the atom's own rows."""


def choose_topologies(
    fitted: Fitted, settings: Settings, candidates: Sequence[Manifold],
    rng: np.random.Generator,
) -> tuple[list[Manifold], Candidate, list[TopologyChoice]]:
    """Choose the topology of every atom of a joint fit from its own rows.

    Parameters
    ----------
    fitted : Fitted
        Joint fit, with the same topologies or others.
    settings : Settings
    candidates : sequence of Manifold
    rng : numpy.random.Generator

    Returns
    -------
    atoms : list of K Manifold
    codes : Candidate
        From which a joint fit of these atoms can start: the support and amplitudes of ``fitted``,
        and its coordinates where an atom keeps its topology.
    choices : list of K TopologyChoice
    """
    atoms: list[Manifold] = []
    coordinates: list[Array] = []
    choices = []
    codes = codes_of(fitted)
    for k, present in enumerate(fitted.model.atoms):
        rows, X = local_rows(fitted, k)
        near = _near_rows(fitted, k, rows, X)
        choice = choose_topology(X[near], candidates, settings, rng)
        settings.deadline.check()
        logger.info("atom %d: %s, p = %.3g", k, topology_label(choice.manifold), choice.p_value)
        where = fitted.model.layout.coordinate_slices[k]
        if choice.manifold.to_config() == present.to_config():
            coordinates.append(codes.coordinates[:, where])
        else:
            everyone = np.repeat(choice.manifold.grid(1)[:1], len(codes.support), axis=0)
            everyone[rows] = place_rows(X, choice.manifold, rng)
            coordinates.append(everyone)
        atoms.append(choice.manifold)
        choices.append(choice)
    return atoms, Candidate(codes.support, codes.amplitudes, np.hstack(coordinates)), choices


def reshape(
    fitted: Fitted, choices: Sequence[TopologyChoice], candidates: Sequence[Manifold],
    settings: Settings, rng: np.random.Generator,
) -> tuple[Fitted, list[Move]]:
    """Put rival topologies in the place of each atom's, where V of the joint model falls.

    The model with a rival is fitted anew: the present codes are those that the wrong shape has led
    to.

    Parameters
    ----------
    fitted : Fitted
        Settled, with K atoms.
    choices : list of K TopologyChoice
        How its topologies were chosen.
    candidates : sequence of Manifold
    settings : Settings
    rng : numpy.random.Generator
    """
    moves: list[Move] = []
    fitted, judge = judged(fitted, settings), judging(settings)
    for k, choice in enumerate(choices):
        for rival in _rivals(choice, candidates, int(fitted.model.active[:, k].sum())):
            if fitted.result.interrupted:
                return fitted, moves
            model = fitted.model
            atoms = [rival if j == k else atom for j, atom in enumerate(model.atoms)]
            try:
                trial = fit_starts(model.Z, model.unit, atoms, judge, rng)
            except InnerConvergenceError:
                trial = None
            detail = f"{topology_label(model.atoms[k])} -> {topology_label(rival)}"
            fitted, move = decide(fitted, judge, Move("reshape", k, 0.0, 0.0, False, detail),
                                  trial, -MARGIN)
            moves.append(move)
    return fitted, moves


def _rivals(
    choice: TopologyChoice, candidates: Sequence[Manifold], n_rows: int
) -> list[Manifold]:
    """The closest curved topology of the same dimension, and the closest others.

    Rows that the atom has lost make an arc of a circle; so the first has no limit.
    """
    by_label = {topology_label(atom): atom for atom in candidates}
    own = choice.manifold
    ranked = [by_label[label] for label, _ in choice.table if by_label[label] != own]
    values = dict(choice.table)
    limit = values.get(topology_label(own), -np.inf) + RIVAL_PER_ROW * n_rows
    akin = [atom for atom in ranked
            if atom.intrinsic_dim == own.intrinsic_dim and not is_flat(atom)][:1]
    near = [atom for atom in ranked if values[topology_label(atom)] < limit and atom not in akin]
    return akin + near[: MOST_RIVALS - len(akin)]


def _near_rows(fitted: Fitted, k: int, rows: Index, X: Array) -> Mask:
    """Which rows of atom k are no farther from it than the spread of the others tells, (n,).

    Some have come from an atom that does not have its shape yet and would bend the shape of this
    one. Rows of an atom that has not its own shape are all about as far from it, and stay.
    """
    model, theta = fitted.model, fitted.result.theta
    basis = model.atoms[k].basis(theta.xi[rows][:, model.coordinate_columns(k)])
    away = np.linalg.norm(X - basis @ theta.beta[model.layout.basis_slices[k]], axis=1)
    if not len(away):
        return np.ones(0, bool)
    middle = np.median(away)
    return np.asarray(away <= middle + OUTLYING * np.median(np.abs(away - middle)))


def place_rows(X: Array, atom: Manifold, rng: np.random.Generator) -> Array:
    """Coordinates (n, d) of rows (n, p) on one atom."""
    if len(X) < LEAST_ROWS:
        return np.repeat(atom.grid(1)[:1], len(X), axis=0)
    scores = leading_scores(X, atom)[0]
    best = latent_grid_starts(scores, atom, 1, rng)[0]
    return nearest_coordinates(scores, atom, best.coefficients)[0]
