"""Rows clustered by rings and flats: one atom a row.

A ring gives the angle of its atom and a flat the scores; the coordinates of every other topology
are found on the atom's own rows by `latent_grid_starts`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reml_sae.discovery.codes import Candidate, hard_shares
from reml_sae.discovery.place import place_everyone
from reml_sae.discovery.policy import SearchPolicy
from reml_sae.discovery.starts.protocol import CodeStart, StartProblem, on_one_atom
from reml_sae.manifolds import Manifold
from reml_sae.relaxations.axes import leading_scores
from reml_sae.relaxations.latent_grid import latent_grid_starts
from reml_sae.relaxations.pieces import Partition, find_partitions
from reml_sae.typing import Array


class PartitionStart:
    """Clusters of rows; for one atom that is no flat, coordinates on a latent grid.

    A single ring is that of `RingStart`.
    """

    def propose(self, problem: StartProblem, rng: np.random.Generator) -> list[CodeStart]:
        """Starts, the best explained first."""
        if not problem.is_partition or problem.is_one_ring:
            return []
        Z, atoms, policy = problem.Z, problem.atoms, problem.policy
        found = find_partitions(
            Z, [atom.latent_dim for atom in atoms], problem.dims,
            [atom.relaxation == "ring" for atom in atoms], problem.n_init, rng,
            policy.relaxation.partition)
        if len(atoms) == 1 and not _gives_coordinates(atoms[0]):
            rank = atoms[0].linear_dim + policy.start.extra_axes
            grids = latent_grid_starts(leading_scores(Z, rank)[0], atoms[0], problem.n_init, rng,
                                       policy.relaxation.grid)
            return [on_one_atom(grid.coordinates) for grid in grids]
        return [_placed(Z, atoms, partition, policy, rng) for partition in found]


def _gives_coordinates(atom: Manifold) -> bool:
    """Whether its ring or flat gives the coordinates themselves.

    Main axes of a flat that bends are not its own.
    """
    return atom.relaxation == "ring" or (atom.relaxation == "flat" and atom.is_flat)


def _placed(
    Z: Array, atoms: Sequence[Manifold], partition: Partition, policy: SearchPolicy,
    rng: np.random.Generator,
) -> CodeStart:
    support = partition.labels[:, None] == np.arange(len(atoms))
    coordinates = []
    for k, atom in enumerate(atoms):
        if _gives_coordinates(atom):
            coordinates.append(partition.coordinates[k])
        else:
            rows = np.flatnonzero(support[:, k])
            scores, axes, centre = leading_scores(
                Z[rows], atom.linear_dim + policy.start.extra_axes)
            coordinates.append(place_everyone(scores, (Z - centre) @ axes.T, rows, atom,
                                              policy, rng))
    shares = hard_shares(partition.labels, len(atoms), policy.encode.hard_share)
    return CodeStart(Candidate(support, shares, np.concatenate(coordinates, axis=1)),
                     partition.explained)
