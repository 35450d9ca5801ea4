"""Frames of atoms that rows use a few at a time: independent directions, grouped by the rows.

Where the data have a dimension for every one of the atoms', the scores of a row on directions in
different atoms are nearly independent, and sparse: independent component analysis (FastICA,
Hyvärinen 1999) finds the directions all at once, whatever the atoms' dimensions, which proposals of
one frame at a time cannot tell. Within an atom it is free to turn, and there directions are told
together by the rows: those of one atom are large in the same rows, those of two are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reml_sae.linalg import single_threaded
from reml_sae.relaxations.block_frames import orthonormal, whitening
from reml_sae.typing import Array, Index

SHRINK = 1e-3
"""Share of the mean variance that whitening adds: rounding does not become a direction."""
STEPS, STILL = 100, 1e-4
"""Most steps, and what one less the cosines of a step's directions is where they have settled."""
FAINT = 0.05
"""Square, of scores with unit variance, below which one is as good as zero."""


@single_threaded
def independent_frames(X: Array, dims: Index, rng: np.random.Generator) -> Array:
    """Orthonormal frames (K, q, p) of atoms with ``dims`` (K,) dimensions, zero below their own.

    Rows X (N, p) are those on their main axes, of which there are enough for all the atoms.
    """
    m = int(dims.sum())
    white, back = whitening(X[:, :m], SHRINK)
    Y = X[:, :m] @ white
    W = _components(Y, rng)
    used = np.log((Y @ W.T) ** 2 + FAINT)
    used -= used.mean(axis=0)
    used /= np.maximum(np.sqrt((used**2).sum(axis=0)), np.finfo(float).tiny)
    directions = np.pad(W @ back, ((0, 0), (0, X.shape[1] - m)))
    frames = np.zeros((len(dims), int(dims.max()), X.shape[1]))
    for frame, group in zip(frames, grouped(used.T @ used, dims), strict=True):
        frame[: len(group)] = directions[group]
    return orthonormal(frames)


def _components(Y: Array, rng: np.random.Generator) -> Array:
    """Orthonormal directions (m, m) along which white rows (N, m) are farthest from normal."""
    W = np.linalg.qr(rng.standard_normal((Y.shape[1], Y.shape[1])))[0]
    for _ in range(STEPS):
        slope = np.tanh(Y @ W.T)
        u, _, v = np.linalg.svd(slope.T @ Y / len(Y) - (1.0 - slope**2).mean(0)[:, None] * W)
        W, last = u @ v, W
        if 1.0 - np.abs((W * last).sum(axis=1)).min() < STILL:
            break
    return np.asarray(W)


def grouped(alike: Array, dims: Index) -> list[list[int]]:
    """The m = sum(dims) indices of ``alike`` (m, m) in groups of these sizes, by mean linkage.

    Those two are joined that are most alike, as long as all still fit into the sizes.
    """
    groups = [[j] for j in range(len(alike))]
    alike = np.where(np.eye(len(alike), dtype=bool), -np.inf, alike)
    while True:
        one, other = (int(i) for i in np.unravel_index(alike.argmax(), alike.shape))
        if alike[one, other] == -np.inf:
            break
        alike[one, other] = alike[other, one] = -np.inf
        joined = [*groups]
        joined[one], joined[other] = groups[one] + groups[other], []
        if packed(joined, dims) is None:
            continue
        share = len(groups[one]) / len(joined[one])
        alike[one] = alike[:, one] = share * alike[one] + (1.0 - share) * alike[other]
        alike[other] = alike[:, other] = -np.inf
        groups = joined
    found = packed(groups, dims)
    assert found is not None
    return found


def packed(groups: Sequence[list[int]], dims: Index) -> list[list[int]] | None:
    """Groups joined to ones of the given sizes, the largest first into where least room is left.

    None where one does not fit so.
    """
    out: list[list[int]] = [[] for _ in dims]
    room = np.array(dims)
    for group in sorted(groups, key=len, reverse=True):
        left = np.where(room >= len(group), room, np.iinfo(room.dtype).max)
        best = int(left.argmin())
        if room[best] < len(group):
            return None
        out[best] += group
        room[best] -= len(group)
    return out
