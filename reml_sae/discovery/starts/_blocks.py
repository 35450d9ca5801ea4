"""From frames and scores to codes: coordinates of every atom from its block of scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.place import place_everyone
from reml_sae.discovery.starts.protocol import CodeStart, StartProblem
from reml_sae.manifolds import Manifold
from reml_sae.relaxations.block_start import BlockStart, ring_amplitudes


def clipped(problem: StartProblem, dims: Sequence[int]) -> list[int]:
    """Dimensions of the atoms' blocks, no more than the data have."""
    return [min(dim, problem.Z.shape[1]) for dim in dims]


def shells(atoms: Sequence[Manifold], dims: Sequence[int]) -> list[bool]:
    """Which atoms have scores, in so many dimensions, whose length varies little."""
    return [atom.relaxation in ("ring", "shell") and dim == atom.linear_dim
            for atom, dim in zip(atoms, dims, strict=True)]


def from_blocks(
    problem: StartProblem, start: BlockStart, rng: np.random.Generator, *, ranked: bool = True
) -> CodeStart:
    """Codes at the scores: ring angles with their radius for amplitude, or coordinates and one.

    Unless ``ranked``, ``explained`` is left out: it says nothing beside that of other starts.
    """
    amplitudes, angles = ring_amplitudes(start)
    amplitudes = np.where(start.support, amplitudes, 0.0)
    coordinates = []
    for k, atom in enumerate(problem.atoms):
        rows = np.flatnonzero(start.support[:, k])
        scores = start.scores[k]
        if atom.relaxation == "ring" and scores.shape[1] == 2:
            coordinates.append(angles[k][:, None])
        elif atom.relaxation == "flat":
            scale = np.sqrt((scores[rows] ** 2).mean(0)) if len(rows) else 1.0
            t = scores / np.maximum(scale, 1e-12)
            coordinates.append(t[:, : atom.latent_dim])
            amplitudes[rows, k] = 1.0
        else:
            coordinates.append(place_everyone(scores[rows], scores, rows, atom,
                                              problem.policy, rng))
            amplitudes[rows, k] = 1.0
    codes = Candidate(start.support, amplitudes, np.concatenate(coordinates, axis=1))
    return CodeStart(codes, start.explained if ranked else None)
