"""Superposed atoms of which most rows use most: maximum likelihood of square unmixing.

Where the atoms span no more dimensions than the data have, a matrix W (p, p) gives back the scores
y_k = W_k x of every atom at once: independent subspace analysis (Hyvärinen and Hoyer 2000), here
with the density that the scores of an atom have. They lie near zero in rows that do not use it;
elsewhere near the unit shell, for circles and spheres, or anywhere, for flats:

    log L = N log|det W| + sum_ik log( s p_on(y_ik) + (1 - s) p_off(y_ik) )

with s the share of the rows that use an atom. Sparse coding has little to go by here: where a row
uses three atoms of four, nearly any frames explain it well. The likelihood is climbed from a random
rotation of whitened rows, first with a wide shell; then the blocks that fit worst are mixed anew
within their joint span, while that raises it. So it goes from several rotations, until two agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import minimize
from scipy.special import gammaln

from reml_sae.errors import InputError
from reml_sae.linalg import single_threaded
from reml_sae.relaxations.axes import leading_axes, sample_rows
from reml_sae.relaxations.block_frames import orthonormal, whitening
from reml_sae.relaxations.block_ksvd import BlockFit, scores_on
from reml_sae.relaxations.block_start import (
    BlockStart,
    block_start,
    checked_blocks,
    same_frames,
)
from reml_sae.relaxations.policy import UnmixingPolicy
from reml_sae.typing import Array, Index, Mask

WIDTHS = (0.3, 0.12)
"""Widths of shells and of the scores of unused atoms, relative to a shell's radius."""
MOST_SHARE = 0.99
"""Share of the rows that use an atom, where all do: the likelihood needs a little less than one."""
LOG_2PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True)
class Blocks:
    """The blocks of scores: their dimensions (K,), which are shells, and the share that is used.

    One share for all of them, or one each.
    """

    dims: Index
    shell: Mask
    share: float | Array

    @cached_property
    def first(self) -> Index:
        """First dimension of each."""
        return np.concatenate([[0], np.cumsum(self.dims)[:-1]])

    @cached_property
    def log_areas(self) -> Array:
        """Log areas (K,) of unit spheres."""
        d = self.dims
        return np.asarray(np.log(2.0) + 0.5 * d * np.log(np.pi) - gammaln(0.5 * d))

    def log_parts(self, r: Array, width: float) -> tuple[Array, Array]:
        """Log densities (N, K) of radii r in rows that use the atoms, and in the others."""
        d = self.dims
        log_shell = (-((r - 1.0) ** 2) / (2.0 * width**2) - self.log_areas - 0.5 * LOG_2PI
                     - np.log(width))
        log_flat = -0.5 * r**2 - 0.5 * d * LOG_2PI
        log_on = np.log(self.share) + np.where(self.shell, log_shell, log_flat)
        log_off = (np.log1p(-self.share) - r**2 / (2.0 * width**2)
                   - 0.5 * d * (LOG_2PI + 2.0 * np.log(width)))
        return log_on, log_off

    def log_density(self, r: Array, width: float) -> tuple[Array, Array]:
        """Log density (N, K) of radii r, and its derivative by the radius over the radius."""
        log_on, log_off = self.log_parts(r, width)
        log_p = np.logaddexp(log_on, log_off)
        on = np.exp(log_on - log_p)
        slope = on * np.where(self.shell, (1.0 - 1.0 / r) / width**2, 1.0) + (1.0 - on) / width**2
        return log_p, -slope


@single_threaded
def unmixed_blocks(
    Z: Array, dims: Sequence[int], n_active: int, n_init: int, rng: np.random.Generator,
    policy: UnmixingPolicy, *, exact: bool, shell: Sequence[bool] | None = None,
) -> list[BlockStart]:
    """Find frames of K atoms and the atoms of each row, of which most use most atoms.

    Parameters and returns are those of `block_dictionary`.

    Raises
    ------
    InputError
        Where the atoms span more dimensions than the data have columns.
    """
    Z, q, shells = checked_blocks(Z, dims, n_active, shell)
    if q.sum() > Z.shape[1]:
        raise InputError(f"the atoms span {q.sum()} dimensions, more than the {Z.shape[1]} columns")
    axes = leading_axes(Z, int(q.sum()), rng)
    X = Z @ axes.T
    used = n_active if exact else 0.5 * (1 + n_active)
    blocks = Blocks(q, shells, min(used / len(q), MOST_SHARE))
    few = sample_rows(X, policy.most_rows, rng)
    found: list[BlockFit] = []
    for W, cost in climbs(few, blocks, rng, policy):
        fit = _coded(X, W, blocks, n_active, exact, cost)
        if not any(same_frames(fit, other) for other in found):
            found.append(fit)
    return [block_start(fit, axes, float((Z**2).sum())) for fit in found[:max(n_init, 1)]]


@single_threaded
def unmixed_amid_noise(
    Z: Array, dims: Sequence[int], n_active: int, n_noise: int, rng: np.random.Generator,
    policy: UnmixingPolicy,
) -> list[BlockStart]:
    """Shells among directions of Gaussian noise that may be longer than they are.

    A block more, of which all rows have normal scores, stands for the noise; the scores of the
    atoms are those of the unmixing, without it.

    Parameters
    ----------
    Z : (N, p) array
    dims : sequence of K int
        Dimensions of the atoms.
    n_active : int
        Atoms of a row: those that it looks most to use.
    n_noise : int
        Dimensions of the noise, which with those of the atoms are the main axes of the rows.

    Returns
    -------
    list of BlockStart
        The best first, without frames, which the noise has no part in, and ``explained``.
    """
    Z, q, _ = checked_blocks(Z, dims, n_active, None)
    axes = leading_axes(Z, int(q.sum()) + n_noise, rng)
    X, k = Z @ axes.T, len(q)
    share = np.full(k, min(n_active / k, MOST_SHARE))
    blocks = Blocks(q, np.ones(k, bool), share) if not n_noise else Blocks(
        np.append(q, n_noise), np.append(np.ones(k, bool), False), np.append(share, MOST_SHARE))
    few = sample_rows(X, policy.most_rows, rng)
    starts = []
    for W, _ in climbs(few, blocks, rng, policy):
        y = X @ W.T
        log_on, log_off = blocks.log_parts(_radii(y, blocks), WIDTHS[-1])
        support = _most_likely((log_on - log_off)[:, :k], n_active)
        scores = np.split(y, blocks.first[1:], axis=1)[:k]
        starts.append(BlockStart(support, scores, [], np.nan))
    return starts


def _most_likely(odds: Array, n_active: int) -> Mask:
    """The atoms (N, K) of a row with the highest odds."""
    order = np.argsort(-odds, axis=1, kind="stable")[:, :n_active]
    support = np.zeros(odds.shape, bool)
    np.put_along_axis(support, order, True, axis=1)
    return support


def climbs(
    Y: Array, blocks: Blocks, rng: np.random.Generator, policy: UnmixingPolicy
) -> list[tuple[Array, float]]:
    """Unmixings of rows Y (N, p) and their costs in nats a row, the best first.

    One from each random start, until two have come to the best that was met: about one in fifteen
    ends elsewhere.
    """
    found: list[tuple[Array, float]] = []
    for _ in range(policy.restarts):
        found.append(unmix(Y, blocks, rng, policy))
        found.sort(key=lambda climb: climb[1])
        if len(found) > 1 and found[1][1] < found[0][1] + policy.agree:
            break
    return found


def _coded(
    X: Array, W: Array, blocks: Blocks, n_active: int, exact: bool, cost: float
) -> BlockFit:
    """Rows (N, p) with the atoms of which their scores look used, and least squares on these."""
    dims, first, q = blocks.dims, blocks.first, int(blocks.dims.max())
    rows = np.split(np.linalg.inv(W).T, first[1:])
    F = orthonormal(np.stack([np.pad(part, ((0, q - len(part)), (0, 0))) for part in rows]))
    log_on, log_off = blocks.log_parts(_radii(X @ W.T, blocks), WIDTHS[-1])
    odds = log_on - log_off
    support = _most_likely(odds, n_active)
    if not exact:
        support &= odds > 0.0
        support[np.arange(len(X)), odds.argmax(axis=1)] = True
    scores, residual = scores_on(X, F, support)
    freedom = max(X.size - (support * dims).sum() - X.shape[1] * dims.sum(), 0.1 * X.size)
    return BlockFit(F, support, scores, residual, cost, float((residual**2).sum() / freedom), dims)


def unmix(
    Y: Array, blocks: Blocks, rng: np.random.Generator, policy: UnmixingPolicy
) -> tuple[Array, float]:
    """Unmixing W (p, p) of rows Y (N, p) with p = sum(dims), and its cost in nats a row."""
    white, _ = whitening(Y, 0.0)
    X, p = Y @ white, Y.shape[1]
    W, value = _climb(X, np.linalg.qr(rng.standard_normal((p, p)))[0], blocks)
    failed = 0
    for _ in range(policy.tries):
        trial, cost = _climb(X, _mixed(X, W, blocks, rng, policy), blocks)
        failed += 1
        if cost < value - policy.gain:
            W, value, failed = trial, cost, 0
        if failed == policy.patience:
            break
    return np.asarray(W @ white), value


def _climb(X: Array, W: Array, blocks: Blocks) -> tuple[Array, float]:
    for width in WIDTHS:
        found = minimize(_cost, W.ravel(), args=(X, blocks, width), jac=True, method="L-BFGS-B",
                         options={"maxiter": 200})
        W = found.x.reshape(W.shape)
    return W, float(found.fun)


def _cost(w: Array, X: Array, blocks: Blocks, width: float) -> tuple[float, Array]:
    """Negative log-likelihood a row and its gradient."""
    n, p = X.shape
    W = w.reshape(p, p)
    y = X @ W.T
    log_p, slope = blocks.log_density(_radii(y, blocks), width)
    gradient = -(np.repeat(slope, blocks.dims, axis=1) * y).T @ X / n - np.linalg.inv(W).T
    return float(-log_p.sum() / n - np.linalg.slogdet(W)[1]), gradient.ravel()


def _radii(y: Array, blocks: Blocks) -> Array:
    return np.sqrt(np.add.reduceat(y**2, blocks.first, axis=1) + 1e-12)


def _mixed(
    X: Array, W: Array, blocks: Blocks, rng: np.random.Generator, policy: UnmixingPolicy
) -> Array:
    """W with the scores of a few blocks rotated at random among themselves."""
    K = len(blocks.dims)
    log_p, _ = blocks.log_density(_radii(X @ W.T, blocks), WIDTHS[-1])
    volume = [np.linalg.slogdet(rows @ rows.T)[1]
              for rows in np.split(W, blocks.first[1:])]
    cost = (-log_p.mean(0) - 0.5 * np.array(volume)) / blocks.dims
    count = int(rng.integers(2, min(K, policy.most_mixed) + 1))
    worst = np.argsort(-(cost + policy.disorder * rng.standard_normal(K)))[:count]
    rows = np.flatnonzero(np.isin(np.repeat(np.arange(K), blocks.dims), worst))
    rotation = np.linalg.qr(rng.standard_normal((len(rows), len(rows))))[0]
    mixed = W.copy()
    mixed[rows] = rotation @ W[rows]
    return mixed
