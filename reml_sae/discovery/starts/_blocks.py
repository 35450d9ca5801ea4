"""From frames and scores to codes: coordinates of every atom from its block of scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.place import place_everyone
from reml_sae.discovery.starts.protocol import CodeStart, StartProblem
from reml_sae.manifolds import Manifold
from reml_sae.relaxations.axes import sample_rows
from reml_sae.relaxations.block_start import BlockStart, ring_amplitudes
from reml_sae.relaxations.latent_grid import latent_grid_starts
from reml_sae.typing import Array

SHORT = 0.2
"""Share of the mean length of scores below which a row may not use the block."""
OTHER_DIMENSION = 1e3
"""Nats a row and dimension by which an atom of quite another dimension than a block is behind."""


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
    start = _given_out(problem, start, rng)
    amplitudes, angles = ring_amplitudes(start)
    amplitudes = np.where(start.support, amplitudes, 0.0)
    coordinates = []
    for k, atom in enumerate(problem.atoms):
        rows = np.flatnonzero(start.support[:, k])
        scores = start.scores[k]
        if atom.relaxation == "ring" and scores.shape[1] == 2:
            coordinates.append(angles[k][:, None])
        elif atom.is_flat and scores.shape[1] >= atom.latent_dim:
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


def _given_out(
    problem: StartProblem, start: BlockStart, rng: np.random.Generator
) -> BlockStart:
    """The start with its blocks given to the atoms whose shapes they have.

    Where rows use several: clusters of rows on one each are carried on among the atoms. It is the
    evidence of a block's scores on a latent grid of the atom that tells, among atoms of
    about the block's dimensions.
    """
    kinds = [repr(atom.to_config()) for atom in problem.atoms]
    if problem.is_partition or len(set(kinds)) == 1:
        return start
    cost = np.empty((len(kinds), len(kinds)))
    for block, (used, scores) in enumerate(zip(start.support.T, start.scores, strict=True)):
        cost[:, block] = _misfits(problem, kinds, scores[used], rng)
    order = linear_sum_assignment(cost)[1]
    frames = [start.frames[j] for j in order] if start.frames else []
    return replace(start, support=start.support[:, order], frames=frames,
                   scores=[start.scores[j] for j in order])


def _misfits(
    problem: StartProblem, kinds: Sequence[str], scores: Array, rng: np.random.Generator
) -> Array:
    """Nats (K,) by which the atoms are behind for scores (n, q) of one block."""
    n, q = scores.shape
    dims = np.array(problem.dims)
    off = np.abs(dims - q)
    near = [int(k) for k in np.flatnonzero((off <= 1) & ((dims > 1) == (q > 1)))]
    out = OTHER_DIMENSION * (1.0 + n) * off
    if n < problem.policy.start.least_rows or len({kinds[k] for k in near}) <= 1:
        return out
    grid = problem.policy.relaxation.grid
    grid = replace(grid, fine_rows=grid.coarse_rows, more_frames=1, more_polished=1)
    length = np.linalg.norm(scores, axis=1)  # of a row that should not use the block it is short
    rows = sample_rows(scores[length > SHORT * length.mean()], grid.coarse_rows, rng)
    if len(rows) < problem.policy.start.least_rows:
        return out
    told = {kind: latent_grid_starts(rows, problem.atoms[k], 1, rng, grid)[0].objective
            for kind, k in {kinds[k]: k for k in near}.items()}
    out[near] = [told[kinds[k]] * n / len(rows) for k in near]
    return np.asarray(out)
