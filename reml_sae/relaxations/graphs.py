"""Graphs of neighbouring rows, and the maps that their eigenvectors are."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.linalg import eigh
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from reml_sae.relaxations.axes import TINY
from reml_sae.typing import Array, Index


def squared_distances(X: Array) -> Array:
    """Between rows (n, r): (n, n)."""
    squares = (X**2).sum(axis=1)
    return np.maximum(squares[:, None] + squares - 2.0 * X @ X.T, 0.0)


def normalised(graph: Array) -> tuple[Array, Array]:
    """D^-1/2 W D^-1/2 of weights W (n, n), and the roots (n,) of the degrees D."""
    root = np.sqrt(np.maximum(graph.sum(axis=1), TINY))
    return graph / np.outer(root, root), root


def walk_modes(X: Array, near: int, m: int) -> tuple[Array, Array]:
    """The m slowest modes of a random walk between neighbouring rows X (n, r), slowest last.

    Two rows are neighbours where one is among the ``near`` nearest of the other, with twice the
    weight where each is. Returned are the eigenvalues (m,) of D^-1 W, all but the first 1, and its
    eigenvectors (n, m): the Laplacian eigenmap of Belkin and Niyogi (2003).
    """
    distance = _to_others(X)
    close = distance <= np.partition(distance, near - 1, axis=1)[:, near - 1, None]
    graph, root = normalised(close.astype(float) + close.T)
    values, vectors = eigh(graph, subset_by_index=[len(X) - m - 1, len(X) - 2])
    return values, vectors / root[:, None]


def eigenmap(X: Array, share: float, m: int) -> Array:
    """Map (n, m) of rows by the time that a walk between neighbours takes, of unit mean square.

    Principal directions are shrunk by their share of noise before distances are taken: noise in
    many directions would join the turns of a curve. Modes are scaled by the Laplacian's eigenvalue
    to the power -1/2: the commute-time map.
    """
    spread, axes = eigh(X.T @ X / len(X))
    gap = float(np.median(_to_others(X).min(axis=1)))
    noise = float(np.clip(gap / X.shape[1], 0.0, max(spread[0], 0.0)))
    shrunk = X @ (axes * np.sqrt(1.0 - noise / np.maximum(spread, max(noise, TINY))))
    values, modes = walk_modes(shrunk, int(np.clip(share * len(X), 5, len(X) - 1)), m)
    Y = modes / np.sqrt(np.maximum(1.0 - values, 1e-3))
    Y -= Y.mean(axis=0)
    return np.asarray(Y / max(np.sqrt((Y**2).sum(axis=1).mean()), TINY), float)


def normalised_cut(X: Array, K: int, angular: bool, rng: np.random.Generator) -> Index:
    """Normalised cut of a neighbour graph in which each row has n / 4K neighbours: labels (n,)."""
    n = len(X)
    if angular:
        unit = X / np.maximum(np.sqrt((X**2).sum(1, keepdims=True)), TINY)
        near = (unit @ unit.T) ** 2
    else:
        near = squared_distances(X)
        reach = np.sort(near, axis=1)[:, min(n - 1, 1 + n // (16 * K))]
        near = np.exp(-near / np.maximum(np.sqrt(np.outer(reach, reach)), TINY))
    np.fill_diagonal(near, 0.0)
    m = int(np.clip(n // (4 * K), min(5, n - 1), n - 1))
    cut = np.partition(near, n - m, axis=1)[:, n - m]
    graph = np.where(near >= cut[:, None], near**2, 0.0)
    graph, root = normalised(graph + graph.T)
    basis = rng.standard_normal((n, min(n, K + 4)))
    basis[:, 0] = root
    for _ in range(40):  # subspace iteration: eigenvalue 1 is nearly K-fold, which it does not mind
        basis = np.linalg.qr(graph @ (graph @ basis) + 0.1 * basis)[0]
    embedding = basis @ eigh(basis.T @ (graph @ basis))[1][:, ::-1][:, :K]
    return k_means(embedding / np.maximum(np.linalg.norm(embedding, axis=1)[:, None], TINY), K, rng)


def k_means(X: Array, K: int, rng: np.random.Generator) -> Index:
    """Labels (n,) by k-means."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(K, n_init=4, random_state=int(rng.integers(2**31)))
        return model.fit_predict(X).astype(np.intp)


def _to_others(X: Array) -> Array:
    """Squared distances (n, n), infinite from a row to itself."""
    distance = squared_distances(X)
    np.fill_diagonal(distance, np.inf)
    return distance
