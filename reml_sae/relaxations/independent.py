"""Frames of atoms that rows use a few at a time: independent directions, grouped by the rows.

Where the data have a dimension for every one of the atoms', the scores of a row on directions in
different atoms are nearly independent, and sparse: independent component analysis (FastICA,
Hyvärinen 1999) finds the directions all at once, whatever the atoms' dimensions, which proposals of
one frame at a time cannot tell. Within an atom it is free to turn, and there directions are told
together by the rows: those of one atom are large in the same rows, those of two are not.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.decomposition import fastica
from sklearn.exceptions import ConvergenceWarning

from reml_sae.linalg import single_threaded
from reml_sae.relaxations.axes import TINY
from reml_sae.relaxations.block_frames import orthonormal, whitening
from reml_sae.typing import Array, Index

SHRINK = 1e-3
"""Share of the mean variance that whitening adds: rounding does not become a direction."""
STEPS, STILL = 100, 1e-4
"""Most steps, and what one less the cosines of a step's directions is where they have settled."""
FAINT = 0.05
"""Square, of scores with unit variance, below which one is as good as zero."""
SURE = 5.0
"""Standard errors by which the kurtosis of a direction must differ from that of noise, and those
by which two must be large in the same rows."""


@single_threaded
def told_frames(X: Array, n_atoms: int, rng: np.random.Generator) -> list[Array]:
    """Orthonormal frames (q_k, p) of as many atoms, those with most of the variance first.

    Rows X (N, p) are those on their main axes. An atom has as many dimensions as they tell, and
    there are fewer atoms where no more are told.
    """
    lengths = (X**2).sum(axis=0)
    told = lengths > SHRINK**2 * lengths.max(initial=0.0)
    if not told.any():
        return []
    directions, y = _independent(X[:, told], rng)
    away = (y**4).mean(axis=0) / np.maximum((y**2).mean(axis=0), TINY) ** 2 - 3.0
    some = np.abs(away) > SURE * np.sqrt(24.0 / len(X))
    groups = grouped(_used_together(y[:, some]), SURE / np.sqrt(len(X)))
    whole = np.zeros((int(some.sum()), X.shape[1]))
    whole[:, told] = directions[some]
    groups.sort(key=lambda group: -float((whole[group] ** 2).sum()))
    return [orthonormal(whole[None, group])[0] for group in groups[:n_atoms]]


@single_threaded
def packed_frames(X: Array, dims: Index, rng: np.random.Generator) -> list[Array]:
    """Orthonormal frames (q_k, p) of atoms with these dimensions, which X (N, p) has and more."""
    m = int(dims.sum())
    directions, y = _independent(X[:, :m], rng)
    whole = np.pad(directions, ((0, 0), (0, X.shape[1] - m)))
    return [orthonormal(whole[None, group])[0]
            for group in grouped(_used_together(y), dims=dims)]


def _independent(X: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Independent directions (m, m) of rows (N, m), and the scores (N, m) on them."""
    white, back = whitening(X, SHRINK)
    Y = X @ white
    W = _components(Y, rng)
    return W @ back, Y @ W.T


def _used_together(y: Array) -> Array:
    """Correlations (m, m) between the rows in which scores (N, m) are large."""
    used = np.log(y**2 + FAINT)
    used -= used.mean(axis=0)
    used /= np.maximum(np.sqrt((used**2).sum(axis=0)), TINY)
    return np.asarray(used.T @ used)


def _components(Y: Array, rng: np.random.Generator) -> Array:
    """Orthonormal directions (m, m) along which white rows (N, m) are farthest from normal."""
    begun = np.linalg.qr(rng.standard_normal((Y.shape[1], Y.shape[1])))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        _, W, _ = fastica(Y, whiten=False, w_init=begun, max_iter=STEPS, tol=STILL)
    return np.asarray(W)


def grouped(
    alike: Array, least: float = -np.inf, dims: Index | None = None
) -> list[list[int]]:
    """The indices of ``alike`` (m, m) in groups by mean linkage.

    The two most alike are joined, while they are by more than ``least``, and where dimensions are
    given as long as all groups still fit into these: then there is one for each, of its size.
    """
    groups = [[j] for j in range(len(alike))]
    alike = np.where(np.eye(len(alike), dtype=bool), -np.inf, alike)
    while alike.max(initial=-np.inf) > least:
        one, other = (int(i) for i in np.unravel_index(alike.argmax(), alike.shape))
        alike[one, other] = alike[other, one] = -np.inf
        joined = [*groups]
        joined[one], joined[other] = groups[one] + groups[other], []
        if dims is not None and packed(joined, dims) is None:
            continue
        share = len(groups[one]) / len(joined[one])
        alike[one] = alike[:, one] = share * alike[one] + (1.0 - share) * alike[other]
        alike[other] = alike[:, other] = -np.inf
        groups = joined
    groups = [group for group in groups if group]
    return groups if dims is None else packed(groups, dims) or groups


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
