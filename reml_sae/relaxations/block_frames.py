"""Proposals of single frames for a block-sparse dictionary, many candidates (R, q, p) at a time.

In whitened data the energy |V x|^2 of a row x on the true frame V of an atom is either small or
large. Candidates are fixed points of the fourth moment of the scores (as in independent subspace
analysis, Hyvärinen and Hoyer 2000), or axes that best separate rows of high and of low energy; what
ranks them is the share of the energies' variance that lies between the two classes (Otsu 1979).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reml_sae.relaxations.axes import TINY
from reml_sae.typing import Array


def similarity(A: Array, B: Array) -> Array:
    """Mean squared cosines (R, S) between frames (R, q, p) and (S, q, p)."""
    inner = np.tensordot(A, B, (2, 2))
    rank = np.maximum((A**2).sum((1, 2)), TINY)
    return np.asarray((inner**2).sum((1, 3)) / rank[:, None])


def orthonormal(V: Array) -> Array:
    """Nearest orthonormal rows; rows of zeros stay zero."""
    values, u = np.linalg.eigh(V @ V.transpose(0, 2, 1))
    keep = values > 1e-9 * np.maximum(values[:, -1:], TINY)
    root = np.where(keep, 1.0 / np.sqrt(np.where(keep, values, 1.0)), 0.0)
    return np.asarray((u * root[:, None, :]) @ (u.transpose(0, 2, 1) @ V))


def whitening(X: Array, shrink: float) -> tuple[Array, Array]:
    """Symmetric W (p, p) that whitens rows but lifts no small variance far; and its inverse."""
    values, u = np.linalg.eigh(X.T @ X / len(X))
    sd = np.sqrt(np.maximum(values, 0.0) + shrink * values.mean() + TINY)
    return (u / sd) @ u.T, (u * sd) @ u.T


def seed_frames(X: Array, q: int, count: int, near: int, rng: np.random.Generator) -> Array:
    """Main axes of rows that point the same way as a random row."""
    n, p = X.shape
    chosen = rng.choice(n, count, replace=count > n)
    unit = X / np.maximum(np.sqrt((X**2).sum(1, keepdims=True)), TINY)
    near = min(near, n)
    rows = np.argpartition(-np.abs(unit[chosen] @ unit.T), near - 1, axis=1)[:, :near]
    spare = 1e-6 * (np.abs(X).max() + TINY) * rng.standard_normal((count, q, p))
    axes = np.linalg.svd(np.concatenate([X[rows], spare], 1), full_matrices=False)[2]
    return np.asarray(axes[:, :q])


def energies(X: Array, V: Array) -> tuple[Array, Array]:
    """Scores (n, R, q) and their squared norms (n, R)."""
    scores = np.tensordot(X, V, (1, 2))
    return scores, (scores**2).sum(2)


def iterate(X: Array, V: Array, weight: Callable[[Array], Array], steps: int) -> Array:
    """Fixed-point iteration V <- orthonormal sum of w(e) V x x' over the rows."""
    for _ in range(steps):
        scores, energy = energies(X, V)
        V = orthonormal(np.tensordot(scores * weight(energy)[:, :, None], X, (0, 0)))
    return V


def _otsu(energy: Array, transform: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Threshold (R,) that best splits the rows in two, and its share (R,) of the variance."""
    n = len(energy)
    ordered = np.sort(energy, 0)
    if n < 4:
        return ordered[n // 2], np.zeros(energy.shape[1])
    y = transform(ordered)
    below = np.arange(1, n)[:, None]
    total = np.cumsum(y, 0)
    gap = total[:-1] / below - (total[-1] - total[:-1]) / (n - below)
    between = below * (n - below) / n**2 * gap**2
    edge = int(0.03 * n)
    between[:edge] = 0.0
    between[n - 1 - edge:] = 0.0
    best = between.argmax(0)
    return ordered[best, np.arange(len(best))], between.max(0) / np.maximum(y.var(0), TINY)


def _separate(X: Array, V: Array, transform: Callable[[Array], Array], steps: int) -> Array:
    """Axes whose energy differs most between rows of high and of low energy, iterated."""
    q = V.shape[1]
    for _ in range(steps):
        energy = energies(X, V)[1]
        high = energy > _otsu(energy, transform)[0]
        w = high / np.maximum(high.sum(0), 1) - ~high / np.maximum((~high).sum(0), 1)
        moments = np.stack([(X * column[:, None]).T @ X for column in w.T])
        V = np.linalg.eigh(moments)[1][:, :, ::-1][:, :, :q].transpose(0, 2, 1)
    return V


def candidate_frames(
    X: Array, q: int, count: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Candidate frames of whitened rows, and how well their energies separate."""
    power = iterate(X, seed_frames(X, q, count, 8, rng), np.asarray, 20)
    V = np.concatenate([_separate(X, power, np.asarray, 6),
                        _separate(X, seed_frames(X, q, count, 8, rng), np.sqrt, 12)])
    return V, _otsu(energies(X, V)[1], np.asarray)[1]


def distinct(V: Array, rank: Array, limit: float, most: int) -> list[int]:
    """Frames in the order of their rank, those too like a frame before them left out."""
    chosen: list[int] = []
    for i in np.argsort(-rank, kind="stable"):
        if not chosen or similarity(V[i : i + 1], V[chosen]).max() < limit:
            chosen.append(int(i))
            if len(chosen) == most:
                break
    return chosen
