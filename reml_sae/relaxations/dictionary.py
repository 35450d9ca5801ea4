"""Block-sparse dictionaries: the linear relaxation of rows that several atoms explain together.

The model of a row is z_i = sum_{k in S_i} y_ik F_k + noise, with scores y_ik (q_k) on a frame F_k
(q_k, p) of orthonormal rows; a circle has a frame of two rows. Block K-SVD alternates the supports
S_i (matching pursuit with a beam) and the frames (leading axes of what the other blocks leave). It
converges from far, but from random frames it ends in mixtures of atoms. So:

- Where the columns are enough for all atoms and rows use few, independent directions grouped by the
  rows come first: into atoms of as many dimensions as they tell, which is the answer if only noise
  is left; then into those of the given dimensions. From two rotations these agree where they are
  right, but for what a few repairs show.
- In whitened data the energy |F z|^2 of a row on a true frame is either small or large. Fixed
  points of the fourth moment, and the axes that best separate rows of high and low energy, propose
  frames; the share of the energies' variance between the two classes (Otsu) ranks them.
- The best are kept, their span is projected out (with more dimensions than columns: their part of
  each row), and the search goes on in what is left.
- With one atom a row, too many frames compete for the rows and the least used leave.
- Then the blocks whose rows are explained worst are proposed anew, while that lowers the cost.
- Nothing is repaired, and with enough columns no other search is made, where what rows have left is
  far below an atom and varies among them as little as noise does: a frame that is missing, or that
  is a mixture of two, leaves some rows much more than others.

Contract: at least one start and at most n_init, distinct, the best first; frames are orthonormal,
scores are zero outside the support, and every row uses 1 to n_active atoms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from reml_sae.linalg import single_threaded
from reml_sae.relaxations.axes import TINY, leading_axes, sample_rows
from reml_sae.relaxations.block_frames import (
    candidate_frames,
    distinct,
    energies,
    iterate,
    orthonormal,
    seed_frames,
    similarity,
    whitening,
)
from reml_sae.relaxations.block_ksvd import (
    SETTLED,
    BlockFit,
    BlockProblem,
    block_ksvd,
    code_rows,
)
from reml_sae.relaxations.block_start import (
    BlockStart,
    block_start,
    checked_blocks,
    same_frames,
    whitened,
)
from reml_sae.relaxations.independent import packed_frames, told_frames
from reml_sae.relaxations.policy import BlockPolicy
from reml_sae.typing import Array, Index, Mask

MAX_ELEMENTS = 1_000_000_000
"""Rows times squared columns times candidates, where there are many columns."""
LITTLE = 0.01
"""Share of what an atom explains in a row below which dimensions are told rightly."""
MOST_USED = 1 / 3
"""Share of the atoms up to which what a row uses is few: scores that most rows have look normal."""
FAINT, EVEN = 0.1, 1.2
"""Share of what an atom explains in a row below which what rows have left may be noise alone, and
the most that its variance among them then is over that of white noise."""


@single_threaded
def block_dictionary(
    Z: Array, dims: Sequence[int], n_active: int, n_init: int, rng: np.random.Generator,
    policy: BlockPolicy, *, exact: bool, shell: Sequence[bool] | None = None, tell: bool = False,
) -> list[BlockStart]:
    """Find frames of K atoms and the atoms of each row.

    Parameters
    ----------
    Z : (N, p) array
        Data, centred and scaled.
    dims : sequence of K ints
        Rows q_k <= p of each atom's frame: 2 for a circle.
    n_active : int
        Most atoms of a row.
    n_init : int
        How many searches to make at most, beside those from independent directions; they end when
        two agree.
    rng : numpy.random.Generator
        Source of all randomness.
    exact : bool
        Whether each row uses exactly n_active atoms.
    shell : sequence of K bool, optional
        Atoms whose scores lie near an ellipse or ellipsoid: starts that meet this rank higher.
    tell : bool
        Whether a frame may have as many rows as independent directions tell, in the place of q_k.

    Returns
    -------
    list of BlockStart
        The best first.
    """
    Z, q, shells = checked_blocks(Z, dims, n_active, shell)
    axes = leading_axes(Z, min(int(q.sum()) + len(q), Z.shape[1]), rng)
    X = Z @ axes.T
    problem = BlockProblem(q, n_active, exact, rng, policy)
    few = sample_rows(X, policy.most_rows, rng)
    complete = int(q.sum()) <= X.shape[1]
    few_used = 1 < n_active <= MOST_USED * len(q)
    told = [_told, _told] if tell else []
    independent = [*told, _packed, _packed] if complete and few_used else []
    found: list[BlockFit] = []
    for search in [*independent, *[_search] * max(n_init, 1)]:
        fit = search(few, problem)
        if fit is None:
            continue
        agreed = any(same_frames(fit, other) for other in found)
        if search is _told:
            agreed &= _share_left(fit) < LITTLE
        if agreed and search is not _search:
            fit = _repair(few, fit, replace(problem, dims=fit.dims), _regrow, 4)
        found.append(fit)
        if complete and _leaves_noise(fit):
            found = [fit]
            break
        if agreed and fit.value <= min(f.value for f in found) + SETTLED * few.size:
            break
    found = [block_ksvd(X, fit.frames, replace(problem, dims=fit.dims), 4, fit.variance)
             for fit in found]
    found.sort(key=lambda fit: fit.value + _shell_cost(fit, shells & (fit.dims == q)))
    best: list[BlockFit] = []
    for fit in found:
        if not any(same_frames(fit, other) for other in best):
            best.append(fit)
    total = float((Z**2).sum())
    return [block_start(fit, axes, total) for fit in best[:max(n_init, 1)]]


def _share_left(fit: BlockFit) -> float:
    """What a row has left, as a share of what an atom explains in one."""
    atom = float((fit.scores**2).sum()) / max(int(fit.support.sum()), 1)
    return float((fit.residual**2).sum(1).mean()) / max(atom, TINY)


def _leaves_noise(fit: BlockFit) -> bool:
    """Whether what the rows have left is nothing, or white noise far below their atoms."""
    free, lost = fit.frames.shape[2] - float((fit.support @ fit.dims).mean()), fit.residual**2
    share, lost = _share_left(fit), lost.sum(1)
    return share <= TINY or (free > 0.0 and share < FAINT
                             and float(lost.var()) < EVEN * 2.0 / free * float(lost.mean()) ** 2)


def _shell_cost(fit: BlockFit, shells: Mask) -> float:
    """Nats by which radii that vary little lower the cost of shells, against flat blocks."""
    cost = 0.0
    for k in np.flatnonzero(shells):
        scores = fit.scores[fit.support[:, k], k]
        if len(scores) > 2:
            radius = np.sqrt((whitened(scores) ** 2).sum(1))
            noise = fit.variance / max(float((scores**2).mean()), TINY)
            cost += 0.5 * len(radius) * float(np.log(min(radius.var() + noise, 1.0)))
    return cost


_Grow = Callable[[Array, Array, Index, float, BlockProblem], Array]


def _told(X: Array, problem: BlockProblem) -> BlockFit | None:
    """From independent directions, with as many dimensions as they tell; None with fewer atoms."""
    K = len(problem.dims)
    frames = told_frames(X, K, problem.rng)
    if len(frames) < K:
        return None
    size = np.array([len(frame) for frame in frames])
    order = linear_sum_assignment(np.abs(problem.dims[:, None] - size))[1]
    return _carried_on(X, [frames[k] for k in order], replace(problem, dims=size[order]))


def _packed(X: Array, problem: BlockProblem) -> BlockFit:
    """From independent directions, grouped to the dimensions of the atoms."""
    return _carried_on(X, packed_frames(X, problem.dims, problem.rng), problem)


def _carried_on(X: Array, frames: list[Array], problem: BlockProblem) -> BlockFit:
    q = int(problem.dims.max())
    return block_ksvd(X, np.concatenate([_padded(frame[None], q) for frame in frames]), problem, 20)


def _search(X: Array, problem: BlockProblem) -> BlockFit:
    """One start: proposals in whitened data, K-SVD there and in the data, repairs in both."""
    W, back = whitening(X, problem.policy.shrink)
    Y = X @ W
    if problem.n_active == 1:
        F = _compete(Y, problem)
    else:
        empty = np.zeros((0, problem.dims.max(), X.shape[1]))
        F = _grow(Y, empty, np.arange(0), 0.5, problem)
        F = _repair(Y, block_ksvd(Y, F, problem, 12), problem, _grow, 5).frames
    F = orthonormal(F @ back)
    return _repair(X, block_ksvd(X, F, problem, 20), problem, _regrow, 12)


def _padded(V: Array, q: int) -> Array:
    return np.pad(V, ((0, 0), (0, q - V.shape[1]), (0, 0)))


def _compete(Y: Array, problem: BlockProblem) -> Array:
    """Frames for rows of one atom each: too many compete, and the least used leave."""
    dims, q = problem.dims, int(problem.dims.max())
    frames, sizes = [], []
    for d in np.unique(dims):
        need = int((dims == d).sum())
        V = iterate(Y, seed_frames(Y, int(d), 8 * need + 8, 8, problem.rng), np.square, 20)
        strength = (energies(Y, V)[1] ** 2).mean(0)
        V = V[distinct(V, strength, 0.8, 4 * need)]
        short = (max(need - len(V), 0), int(d), Y.shape[1])
        spare = orthonormal(problem.rng.standard_normal(short))
        frames.append(_padded(np.concatenate([V, spare]), q))
        sizes.append(np.full(len(frames[-1]), d))
    F, size = np.concatenate(frames), np.concatenate(sizes)
    while len(F) > len(dims):
        fit = block_ksvd(Y, F, problem, 3, dims=size)
        used = (fit.scores**2).sum((0, 2))
        keep = []
        for d in np.unique(dims):
            mine = np.flatnonzero(size == d)
            order = mine[np.argsort(-used[mine], kind="stable")]
            alone = [order[i] for i in distinct(fit.frames[order], used[order], 0.9, len(order))]
            order = np.array(alone + [k for k in order if k not in alone])
            keep += list(order[: max(int((dims == d).sum()), int(0.7 * len(order)))])
        F, size = fit.frames[keep], size[keep]
    return _in_order(F, size, dims)


def _in_order(F: Array, size: Index, dims: Index) -> Array:
    """Frames sorted so that their sizes are those of the atoms."""
    order = np.empty(len(dims), np.intp)
    order[np.argsort(dims, kind="stable")] = np.argsort(size, kind="stable")
    return F[order]


def _missing(kept: Index, dims: Index) -> list[int]:
    """Sizes of the atoms that are not kept, large first: a small frame fits into a large one."""
    return sorted((int(d) for d in np.delete(dims, kept)), reverse=True)


def _grow(Y: Array, F: Array, kept: Index, noise: float, problem: BlockProblem) -> Array:
    """All K frames of whitened rows, from those (m, q, p) of the atoms ``kept``."""
    dims, p = problem.dims, Y.shape[1]
    complete = p >= dims.sum()
    size = dims[kept]
    count = int(np.clip(MAX_ELEMENTS / (len(Y) * p**2), 6, problem.policy.seeds))
    missing = _missing(kept, dims)
    while missing:
        d = missing[0]
        X, axes = Y, np.eye(p)
        if len(F) and complete:
            rows = F.reshape(-1, p)[(np.arange(F.shape[1]) < size[:, None]).ravel()]
            axes = np.linalg.qr(np.concatenate([rows.T, np.eye(p)], 1))[0][:, len(rows) : p].T
            X = Y @ axes.T
        elif len(F):
            X = code_rows(Y, F, min(problem.n_active, len(F)), False, 0.5,
                          np.full(len(F), 2.0), problem.policy.beam)[2]
        if X.shape[1] <= d:
            new = np.eye(d, X.shape[1])[None]
        else:
            W, back = whitening(X, 0.02) if complete else (np.eye(p), np.eye(p))
            V, separation = candidate_frames(X @ W, d, count, problem.rng)
            if not complete:  # energies never fall to zero: frames that many seeds reach are safer
                separation = separation * (similarity(V, V) > 0.9).sum(1) ** problem.policy.hits
            V = orthonormal(V @ back)
            most = min(max(1, len(missing) // 4), missing.count(d))
            new = V[distinct(V, separation, 0.3 if complete else 0.5, most)]
        F = np.concatenate([F, _padded(orthonormal(new @ axes), F.shape[1])])
        size = np.concatenate([size, np.full(len(new), d)])
        missing = missing[len(new):]
    return _in_order(F, size, dims)


def _regrow(X: Array, F: Array, kept: Index, noise: float, problem: BlockProblem) -> Array:
    """All K frames, each new one from the rows that those before it explain worst."""
    rng, size = problem.rng, problem.dims[kept]
    for d in _missing(kept, problem.dims):
        left, most = X, min(problem.n_active, len(F))
        if most:
            left = code_rows(X, F, most, False, noise, np.full(len(F), 6.0),
                             problem.policy.beam)[2]
        worst = np.argsort(-(left**2).sum(1), kind="stable")[: max(len(X) // 4, 4 * d)]
        rows, power = left[worst], int(rng.integers(1, 3))
        weight = np.square if power == 2 else np.asarray
        V = iterate(rows, seed_frames(rows, d, problem.policy.seeds, 6, rng), weight, 15)
        best = (energies(rows, V)[1] ** 2).mean(0).argmax()
        F = np.concatenate([F, _padded(V[[best]], F.shape[1])])
        size = np.append(size, d)
    return _in_order(F, size, problem.dims)


def _repair(X: Array, fit: BlockFit, problem: BlockProblem, grow: _Grow, tries: int) -> BlockFit:
    """Replace the atoms whose rows are explained worst, while that lowers the cost."""
    K = len(problem.dims)
    drops = sorted({min(K, d) for d in (1, 2, 3, max(1, K // 4), max(1, K // 2))})
    failed = 0
    for _ in range(tries):
        if _leaves_noise(fit):
            break
        lost = (fit.residual**2).sum(1)
        bad = np.array([lost[mine].mean() if mine.any() else np.inf for mine in fit.support.T])
        noisy = np.log(bad + TINY)
        if failed >= len(drops):  # the plain order has been tried
            noisy = noisy + 0.1 * problem.rng.standard_normal(K)
        kept = np.sort(np.argsort(noisy, kind="stable")[: K - drops[failed % len(drops)]])
        trial = block_ksvd(X, grow(X, fit.frames[kept], kept, fit.variance, problem), problem, 12,
                      fit.variance)
        if trial.value < fit.value - SETTLED * X.size:
            fit, failed = trial, 0
        else:
            failed += 1
        if failed == len(drops) + 2:
            break
    return fit
