"""Rows on their leading axes, and samples of them: what every relaxation begins with."""

from __future__ import annotations

import numpy as np
from sklearn.utils.extmath import randomized_svd

from reml_sae.typing import Array, Index

TINY = 1e-12


def sample_index(n: int, most: int, rng: np.random.Generator) -> Index:
    """At most so many of n rows, in their order."""
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


def sample_rows(X: Array, most: int, rng: np.random.Generator) -> Array:
    """At most so many rows, in their order."""
    return X[sample_index(len(X), most, rng)]


def main_axes(Z: Array, rank: int, rng: np.random.Generator) -> Array:
    """Axes (rank, p) of the largest part of the squares of rows (N, p), by a randomised SVD."""
    seed = int(rng.integers(2**31))
    return np.asarray(randomized_svd(Z, rank, n_iter=7, random_state=seed)[2])


def leading_axes(Z: Array, rank: int, rng: np.random.Generator) -> Array:
    """Orthonormal axes (rank, p), the main ones of rows (N, p) among them.

    Any others fill them up where there are fewer rows; all of p are those of the data.
    """
    p = Z.shape[1]
    if rank == p:
        return np.eye(p)
    leading = main_axes(Z, min(rank, len(Z)), rng)
    filled = np.concatenate([leading.T, rng.standard_normal((p, rank - len(leading)))], axis=1)
    return np.asarray(np.linalg.qr(filled)[0].T)


def leading_scores(X: Array, rank: int) -> tuple[Array, Array, Array]:
    """Scores (n, r) of rows (n, p) on their principal axes (r, p), and their centre (p,).

    There are at most ``rank`` axes, and no more than rows or columns.
    """
    centre = X.mean(axis=0) if len(X) else np.zeros(X.shape[1])
    axes = np.linalg.svd(X - centre, full_matrices=False)[2][:rank]
    return (X - centre) @ axes.T, axes, centre


def principal_scores(X: Array, rank: int) -> Array:
    """Scores (n, r) of unit mean square on the principal axes that hold more than rounding.

    There are at most ``rank`` of them; r = 0 for equal rows.
    """
    centred = X - X.mean(axis=0) if X.size else X
    if not np.abs(centred).max(initial=0.0) > TINY * np.abs(X).max(initial=0.0):
        return X[:, :0]
    u, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    kept = int((lengths[:rank] > np.sqrt(TINY) * lengths[0]).sum())
    scores = u[:, :kept] * lengths[:kept]
    return np.asarray(scores / np.sqrt(np.mean(scores**2)))
