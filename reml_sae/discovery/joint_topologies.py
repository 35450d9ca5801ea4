"""Topologies of the atoms of a joint model, each from the atom's own rows.

Contract. All that is random comes from ``rng``. An interrupt is raised as KeyboardInterrupt.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.fitting import Fitted, Settings
from reml_sae.discovery.local import local_rows
from reml_sae.discovery.place import place_rows
from reml_sae.discovery.topology import TopologyChoice, choose_topology
from reml_sae.manifolds import Manifold
from reml_sae.typing import Array, Index, Mask

logger = logging.getLogger("reml_sae")


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
    codes = fitted.codes
    for k, present in enumerate(fitted.model.atoms):
        rows, X = local_rows(fitted, k, settings.policy)
        near = near_rows(fitted, k, rows, X, settings.policy.move.outlying)
        choice = choose_topology(X[near], candidates, settings, rng)
        settings.deadline.check()
        logger.info("atom %d: %s, p = %.3g", k, choice.manifold.label, choice.p_value)
        where = fitted.model.layout.coordinate_slices[k]
        if choice.manifold.to_config() == present.to_config():
            coordinates.append(codes.coordinates[:, where])
        else:
            everyone = np.repeat(choice.manifold.grid(1)[:1], len(codes.support), axis=0)
            everyone[rows] = place_rows(X, choice.manifold, settings.policy, rng)
            coordinates.append(everyone)
        atoms.append(choice.manifold)
        choices.append(choice)
    return atoms, Candidate(codes.support, codes.amplitudes, np.hstack(coordinates)), choices


def near_rows(fitted: Fitted, k: int, rows: Index, X: Array, outlying: float) -> Mask:
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
    return np.asarray(away <= middle + outlying * np.median(np.abs(away - middle)))
