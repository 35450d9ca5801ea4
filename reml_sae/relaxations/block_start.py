"""Starts by frames and scores: what searches for superposed blocks return, and what it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from reml_sae.errors import InputError
from reml_sae.relaxations.axes import TINY
from reml_sae.relaxations.block_frames import similarity
from reml_sae.relaxations.block_ksvd import BlockFit
from reml_sae.typing import Array, Index, Mask

SAME = 0.98


@dataclass(frozen=True)
class BlockStart:
    """One start.

    Attributes
    ----------
    support : (N, K) bool array
        The atoms of each row.
    scores : list of K arrays (N, q_k)
        Least-squares scores of the rows on the frames of their atoms, zero outside the support.
    frames : list of K arrays (q_k, p)
        Orthonormal rows.
    explained : float
        Fraction of the variance that the blocks explain.
    """

    support: Mask
    scores: list[Array]
    frames: list[Array]
    explained: float


def checked_blocks(
    Z: Array, dims: Sequence[int], n_active: int, shell: Sequence[bool] | None
) -> tuple[Array, Index, Mask]:
    """Data (N, p), dimensions (K,) and which blocks of more than one dimension are shells (K,)."""
    Z, q = np.asarray(Z, dtype=float), np.asarray(dims, dtype=np.intp)
    K = len(q)
    if Z.ndim != 2 or not np.isfinite(Z).all():
        raise InputError(f"Z must be a finite (N, p) array, got shape {Z.shape}")
    if K == 0 or q.min() < 1 or q.max() > Z.shape[1]:
        raise InputError(f"dims must be between 1 and the {Z.shape[1]} columns of Z, one an atom; "
                         f"got {q.tolist()}")
    if not 1 <= n_active <= K:
        raise InputError(f"n_active must be between 1 and the {K} atoms, got {n_active}")
    if len(Z) < K:
        raise InputError(f"Z has {len(Z)} rows, fewer than its {K} atoms; use fewer atoms")
    if shell is not None and len(shell) != K:
        raise InputError(f"shell must have one entry for each of the {K} atoms, got {len(shell)}")
    return Z, q, (np.zeros(K, bool) if shell is None else np.asarray(shell, bool)) & (q > 1)


def block_start(fit: BlockFit, axes: Array, total: float) -> BlockStart:
    """The start that a fit in coordinates on ``axes`` is, of data with ``total`` squares."""
    lost = total - float(((fit.scores.reshape(len(fit.scores), -1)
                           @ fit.frames.reshape(-1, fit.frames.shape[2])) ** 2).sum())
    return BlockStart(
        fit.support, [fit.scores[:, k, :d] for k, d in enumerate(fit.dims)],
        [fit.frames[k, :d] @ axes for k, d in enumerate(fit.dims)],
        1.0 - lost / total if total > TINY else 0.0)


def same_frames(one: BlockFit, other: BlockFit) -> bool:
    """Whether two sets of frames are the same but for their order."""
    near = np.where(one.dims[:, None] == other.dims, similarity(one.frames, other.frames), -1.0)
    rows, columns = linear_sum_assignment(-near)
    return bool((near[rows, columns] > SAME).all())


def whitened(scores: Array) -> Array:
    """Scores (n, q) about zero with unit second moments."""
    values, vectors = np.linalg.eigh(scores.T @ scores / len(scores))
    floor = max(1e-6 * float(values[-1]), TINY)
    return np.asarray(scores @ (vectors / np.sqrt(np.maximum(values, floor))) @ vectors.T)


def ring_amplitudes(start: BlockStart) -> tuple[Array, list[Array]]:
    """Amplitude and angle of each row on each atom.

    The scores of a block are whitened over the rows that use it, so that an ellipse becomes a
    circle.

    Returns
    -------
    amplitudes : (N, K) array
        Radius of the whitened scores relative to its mean; zero outside the support.
    angles : list of K arrays (N,)
        Angle in [-pi, pi) of the first two whitened scores; zero outside the support.
    """
    amplitudes = np.zeros(start.support.shape)
    angles = [np.zeros(len(start.support)) for _ in start.scores]
    for k, scores in enumerate(start.scores):
        rows = np.flatnonzero(start.support[:, k])
        if len(rows) == 0:
            continue
        y = whitened(scores[rows])
        radius = np.sqrt((y**2).sum(1))
        mean = radius.mean()
        amplitudes[rows, k] = radius / mean if mean > TINY else 1.0
        if y.shape[1] > 1:
            angle = np.arctan2(y[:, 1], y[:, 0])
            angles[k][rows] = np.where(angle >= np.pi, -np.pi, angle)
    return amplitudes, angles
