"""Block K-SVD: rows coded by a few blocks each, and frames refitted to what the others leave.

The support of a row grows by one atom at a time, the one that explains most of what is left once
its frame is made orthogonal to those in use; a beam of the best sets survives. Where the number of
atoms is free, an atom costs what its scores cost to write at the present noise, so that few are
used while the frames are poor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb

import numpy as np

from reml_sae.relaxations.policy import BlockPolicy
from reml_sae.typing import Array, Index, Mask

SETTLED = 1e-4
"""Relative decrease of the residual at which the sweeps stop."""
TINY = 1e-12


@dataclass(frozen=True)
class BlockFit:
    """Frames (K, q, p), zero below each block's own q_k rows, and the coding of the rows."""

    frames: Array
    support: Mask
    scores: Array
    residual: Array
    value: float
    variance: float
    dims: Index


@dataclass(frozen=True)
class BlockProblem:
    """What all steps of a search share."""

    dims: Index
    n_active: int
    exact: bool
    rng: np.random.Generator
    policy: BlockPolicy


def leading_sets(X: Array, F: Array, sizes: int, beam: int) -> Iterator[tuple[Index, Array]]:
    """Sets of 1 to so many atoms that explain most of each row, by a beam search.

    Yields
    ------
    (sets (N, B, m), explained (N, B))
        For m = 1, 2, ...; at most ``beam`` sets, the best first.
    """
    (K, q, p), n = F.shape, len(X)
    stacked = F.reshape(K * q, p)
    c, gram = X @ stacked.T, stacked @ stacked.T
    sets, values = np.zeros((n, 1, 0), np.intp), np.zeros((n, 1))
    for _ in range(sizes):
        sets, values = _extend(c, gram, sets, values, (K, q), beam)
        yield sets, values


def _extend(
    c: Array, gram: Array, sets: Index, values: Array, shape: tuple[int, int], beam: int
) -> tuple[Index, Array]:
    """Best sets (N, B, m + 1) of one more atom than sets (N, B', m), and what they explain."""
    K, q = shape
    n, beams, m = sets.shape
    unique, inverse = np.unique(sets.reshape(n * beams, m), axis=0, return_inverse=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    ends = np.searchsorted(inverse.ravel()[order], np.arange(len(unique) + 1))
    gains = np.empty((n * beams, K))
    for u, atoms in enumerate(unique):
        rows = order[ends[u] : ends[u + 1]]
        used = (atoms[:, None] * q + np.arange(q)).ravel()
        inner = np.linalg.solve(gram[np.ix_(used, used)] + 1e-9 * np.eye(m * q), gram[used])
        rest = (gram - gram[:, used] @ inner).reshape(K, q, K, q)[np.arange(K), :, np.arange(K)]
        length, v = np.linalg.eigh(rest)
        root = np.where(length > 1e-3, 1.0 / np.sqrt(np.maximum(length, 1e-3)), 0.0)
        own = c[rows // beams]
        left = (own - own[:, used] @ inner).reshape(-1, K, q).transpose(1, 0, 2)
        gain = ((left @ (v * root[:, None, :])) ** 2).sum(2).T
        gain[:, atoms] = -np.inf
        gains[rows] = values.reshape(-1)[rows, None] + gain
    gains = gains.reshape(n, beams * K)
    width = min(beam, comb(K, m + 1))
    take = min(width * (m + 1), beams * K)
    top = np.argpartition(-gains, take - 1, axis=1)[:, :take]
    best = np.take_along_axis(gains, top, 1)
    new = np.concatenate([sets[np.arange(n)[:, None], top // K], (top % K)[:, :, None]], 2)
    by_gain = np.argsort(-best, axis=1, kind="stable")
    new = np.sort(np.take_along_axis(new, by_gain[:, :, None], 1), 2)
    best = np.take_along_axis(best, by_gain, 1)
    same = (new[:, :, None] == new[:, None]).all(3) & np.tril(np.ones((take, take), bool), -1)
    best = np.where(same.any(2), -np.inf, best)
    keep = np.argsort(-best, axis=1, kind="stable")[:, :width]
    return np.take_along_axis(new, keep[:, :, None], 1), np.take_along_axis(best, keep, 1)


def code_rows(
    X: Array, F: Array, n_active: int, exact: bool, variance: float, opening: Array, beam: int
) -> tuple[Mask, Array, Array, float]:
    """Support, scores (N, K, q), residual and cost in nats at an opening cost (K,) of each atom."""
    n, K = len(X), len(F)
    square = (X**2).sum(1)[:, None]
    chosen, best = np.full((n, n_active), -1, dtype=np.intp), np.full(n, np.inf)
    for m, (sets, values) in enumerate(leading_sets(X, F, n_active, beam), start=1):
        if exact and m < n_active:
            continue
        cost = (square - values) / (2.0 * variance) + opening[sets].sum(2)
        first = cost.argmin(1)
        least = cost[np.arange(n), first]
        better = least < best
        if not better.any():  # nor would any row by more atoms
            break
        best[better] = least[better]
        chosen[better, :m] = sets[better, first[better]]
    support = np.zeros((n, K + 1), bool)
    support[np.arange(n)[:, None], chosen] = True  # slots that are not used are the last column
    support = support[:, :K]
    scores, residual = scores_on(X, F, support)
    return support, scores, residual, float(best.sum())


def scores_on(X: Array, F: Array, support: Mask) -> tuple[Array, Array]:
    """Least-squares scores (N, K, q) on the frames that each row uses, and the residual."""
    (K, q, p), n = F.shape, len(X)
    stacked = F.reshape(K * q, p)
    c, gram = X @ stacked.T, stacked @ stacked.T
    scores = np.zeros((n, K, q))
    for m in np.unique(support.sum(1)):
        rows = np.flatnonzero(support.sum(1) == m)
        atoms = np.nonzero(support[rows])[1].reshape(len(rows), m)
        used = (atoms[:, :, None] * q + np.arange(q)).reshape(len(rows), m * q)
        inner = gram[used[:, :, None], used[:, None]] + 1e-9 * np.eye(m * q)
        y = np.linalg.solve(inner, c[rows[:, None], used][:, :, None])
        scores[rows[:, None], atoms] = y.reshape(len(rows), m, q)
    return scores, X - scores.reshape(n, K * q) @ stacked


def _update(X: Array, F: Array, coding: tuple[Mask, Array, Array], dims: Index) -> Array:
    """Frames from one sweep over the blocks, each the main axes of what the others leave."""
    support, scores, residual = coding[0], coding[1], coding[2].copy()
    F = F.copy()
    for k, d in enumerate(dims):
        rows = np.flatnonzero(support[:, k])
        if len(rows) < d:  # an atom without rows moves to the rows that are explained worst
            rows = np.argsort(-(residual**2).sum(1), kind="stable")[: d + 1]
        own = residual[rows] + scores[rows, k] @ F[k]
        F[k, :d] = np.linalg.eigh(own.T @ own)[1][:, ::-1][:, :d].T
        residual[rows] = own - (own @ F[k].T) @ F[k]
    return F


def block_ksvd(
    X: Array, F: Array, problem: BlockProblem, sweeps: int, variance: float | None = None,
    dims: Index | None = None,
) -> BlockFit:
    """Block K-SVD; atoms cost what their scores cost to write, at the present noise."""
    n, p = X.shape
    dims = problem.dims if dims is None else dims
    floor = max(1e-6 * float((X**2).mean()), TINY)
    noise = max(0.3 * float((X**2).mean()), floor) if variance is None else variance
    scale = np.full(len(F), float((X**2).sum()) / (n * problem.n_active * dims.max()))
    last = np.inf
    for sweep in range(sweeps):
        opening = np.log(len(F)) + 0.5 * dims * np.log1p(scale / noise)
        support, scores, residual, cost = code_rows(
            X, F, problem.n_active, problem.exact, noise, opening, problem.policy.beam)
        value = cost + 0.5 * n * p * np.log(noise)
        lost = float((residual**2).sum())
        freedom = max(n * p - (support * dims).sum() - p * dims.sum(), 0.1 * n * p)
        noise = max(lost / freedom, floor)
        scale = (scores**2).sum((0, 2)) / (np.maximum(support.sum(0), 1) * dims)
        if sweep == sweeps - 1 or (sweep > 2 and lost > last * (1.0 - SETTLED)):
            break
        last = lost
        F = _update(X, F, (support, scores, residual), dims)
    return BlockFit(F, support, scores, residual, value, noise, dims)
