"""Rows on one of K flats each, amid noise that all of them share: a mixture of factor analysers.

    z_i | k ~ N(m_k, N + L_k L_k^T),    L_k (p, q_k)

The linear relaxation of atoms that rows use one at a time, where the noise N has any covariance:
directions in which all rows vary alike are in N, and those in which only some do tell atoms apart.
EM: at a given N and shares of rows, L_k are the leading axes of their second moment in the metric
of N (probabilistic principal components); N is then the posterior second moment of what is left.
Atoms whose centres are those of all rows are told apart better without centres of their own, and
curves that wind through many dimensions only by flats that hold all of them: what a flat leaves out
is taken for noise of all rows. Schwarz's criterion chooses both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh, solve_triangular

from reml_sae.relaxations.axes import leading_axes, sample_index
from reml_sae.relaxations.block_start import BlockStart
from reml_sae.relaxations.policy import NoiseMixturePolicy
from reml_sae.typing import Array, Index

TINY = 1e-12


def flats_amid_noise(
    Z: Array, dims: Sequence[int], n_init: int, rng: np.random.Generator,
    policy: NoiseMixturePolicy,
) -> list[BlockStart]:
    """Starts of rows that use one atom each, the likeliest first.

    Parameters
    ----------
    Z : (N, p) array
        Centred rows.
    dims : sequence of K int
        Dimensions of which scores are asked for. The flats have as many, or twice as many, and so
        on while that makes them likelier and moves rows.
    n_init : int
        How many starts there are at most.
    rng : Generator
    policy : NoiseMixturePolicy

    Returns
    -------
    list of BlockStart
        Scores on the leading axes of each flat are posterior means in standard deviations;
        ``explained`` is the share of the squares in the metric of the noise. Empty where there are
        too few rows for so many flats.
    """
    width = min(Z.shape[1], policy.most_axes, len(Z) // policy.rows_per_axis)
    if width < 2 or len(Z) < policy.rows_per_axis * len(dims):
        return []
    axes = leading_axes(Z, width, rng)
    Y = Z @ axes.T
    X = Y[sample_index(len(Y), policy.most_rows, rng)]
    ranks = np.minimum(np.asarray(dims, np.intp), width - 1)
    best = _of_rank(X, ranks, [], n_init, rng, policy)
    while ranks.min() < width - 1:
        ranks = np.minimum(2 * ranks, width - 1)
        wider = _of_rank(X, ranks, best, n_init, rng, policy)
        if wider[0].nats(len(X)) >= best[0].nats(len(X)):
            break
        settled = wider[0].is_like(best[0], X, policy.same)
        best = wider
        if settled:
            break
    return [mixture.start(Y, axes, dims) for mixture in best]


def _of_rank(
    X: Array, ranks: Index, narrow: Sequence[_Mixture], n_init: int, rng: np.random.Generator,
    policy: NoiseMixturePolicy,
) -> list[_Mixture]:
    """The likeliest mixtures of flats of these dimensions, with centres of their own or without."""
    found = [mixture for own_centres in (True, False)
             for mixture in _likeliest(X, ranks, narrow, n_init, own_centres, rng, policy)]
    return sorted(found, key=lambda mixture: mixture.nats(len(X)))[:n_init]


def _likeliest(
    X: Array, ranks: Index, narrow: Sequence[_Mixture], n_init: int, own_centres: bool,
    rng: np.random.Generator, policy: NoiseMixturePolicy,
) -> list[_Mixture]:
    """The likeliest mixtures that give rows to other atoms than each other.

    From random shares of the rows, and from those of mixtures of narrower flats.
    """
    seeds = [mixture.shares(X) for mixture in narrow]
    seeds += [_seeded(X, ranks, rng) for _ in range(policy.more_starts * n_init)]
    tried = [_em(X, shares, ranks, own_centres, policy.short_sweeps, policy) for shares in seeds]
    tried.sort(key=lambda mixture: -mixture.log_likelihood)
    found = [_em(X, start.shares(X), ranks, own_centres, policy.sweeps, policy)
             for start in tried[:policy.more_polished + n_init]]
    kept: list[_Mixture] = []
    for mixture in sorted(found, key=lambda mixture: -mixture.log_likelihood):
        if not any(mixture.is_like(other, X, policy.same) for other in kept):
            kept.append(mixture)
    return kept[:n_init]


@dataclass(frozen=True)
class _Mixture:
    """Parameters in coordinates of q axes.

    Attributes
    ----------
    weights : (K,) shares of the rows
    means : (K, q)
    frames : list of K arrays (q, q_k)
        Loadings L_k.
    noise : (q, q) covariance N
    log_likelihood : float
        Mean over rows.
    """

    weights: Array
    means: Array
    frames: list[Array]
    noise: Array
    log_likelihood: float

    def nats(self, n: int) -> float:
        """Schwarz's criterion of n rows: what the flats and their centres need, the noise apart."""
        q = len(self.noise)
        ranks = np.array([frame.shape[1] for frame in self.frames])
        free = float((ranks * (q - 0.5 * (ranks - 1))).sum()) + np.count_nonzero(self.means)
        return 0.5 * free * float(np.log(n)) - n * self.log_likelihood

    def log_joint(self, X: Array) -> Array:
        """Log density of rows (n, q) and atoms, (n, K)."""
        # in the metric of N, where the covariance of an atom is I + L L^T
        root = np.linalg.cholesky(self.noise)
        white = solve_triangular(root, np.hstack([X.T, self.means.T, *self.frames]), lower=True)
        n, K = len(X), len(self.weights)
        ends = n + K + np.cumsum([0, *(frame.shape[1] for frame in self.frames)])
        out = np.empty((n, K))
        for k in range(K):
            apart, loads = white[:, :n] - white[:, [n + k]], white[:, ends[k]:ends[k + 1]]
            along, precision = loads.T @ apart, np.eye(loads.shape[1]) + loads.T @ loads
            explained = (along * np.linalg.solve(precision, along)).sum(axis=0)
            squares = np.einsum("qn,qn->n", apart, apart)
            out[:, k] = 0.5 * (explained - squares - np.linalg.slogdet(precision)[1])
        return out + np.log(np.maximum(self.weights, TINY)) - np.log(np.diag(root)).sum()

    def shares(self, X: Array) -> Array:
        """Posterior shares (n, K) of rows."""
        joint = self.log_joint(X)
        joint -= joint.max(axis=1, keepdims=True)
        mass = np.exp(joint)
        return np.asarray(mass / mass.sum(axis=1, keepdims=True))

    def is_like(self, other: _Mixture, X: Array, same: float) -> bool:
        """Whether both give so large a share of rows to the same atoms, whatever their order."""
        mine, theirs = self.log_joint(X).argmax(axis=1), other.log_joint(X).argmax(axis=1)
        table = np.zeros((len(self.weights),) * 2)
        np.add.at(table, (mine, theirs), 1.0)
        return bool(table.max(axis=1).sum() > same * len(X))

    def start(self, Y: Array, axes: Array, dims: Sequence[int]) -> BlockStart:
        """The start that rows (N, q) on axes (q, p) have, with scores of so many dimensions."""
        labels = self.log_joint(Y).argmax(axis=1)
        support = labels[:, None] == np.arange(len(self.weights))
        root = np.linalg.cholesky(self.noise)
        scores, frames, left = [], [], 0.0
        for k, (frame, d) in enumerate(zip(self.frames, dims, strict=True)):
            white = solve_triangular(root, (Y - self.means[k]).T, lower=True).T
            loads = solve_triangular(root, frame, lower=True)
            precision = np.eye(frame.shape[1]) + loads.T @ loads
            f = np.linalg.solve(precision, loads.T @ white.T).T
            left += float(((white - f @ loads.T)[support[:, k]] ** 2).sum())
            scores.append(np.where(support[:, [k]], f[:, :d], 0.0))
            frames.append(np.linalg.qr(frame[:, :d])[0].T @ axes)
        total = float((solve_triangular(root, Y.T, lower=True) ** 2).sum())
        return BlockStart(support, scores, frames, 1.0 - left / max(total, TINY))


def _seeded(X: Array, ranks: Index, rng: np.random.Generator) -> Array:
    """Shares (n, K) of rows: random, or larger on the nearest of random flats."""
    n, K = len(X), len(ranks)
    if rng.random() < 0.5:
        return np.asarray(rng.dirichlet(np.ones(K), n))
    white = X / np.maximum(X.std(axis=0), TINY)
    explained = []
    for rank in ranks:
        chosen = white[rng.choice(n, int(rank) + 1, replace=False)]
        explained.append(((white @ np.linalg.qr(chosen.T)[0]) ** 2).sum(axis=1))
    shares = np.full((n, K), 0.5 / K)
    shares[np.arange(n), np.argmax(explained, axis=0)] += 0.5
    return shares


def _em(
    X: Array, shares: Array, ranks: Index, own_centres: bool, sweeps: int,
    policy: NoiseMixturePolicy,
) -> _Mixture:
    """EM from shares (n, K) of the rows."""
    noise = X.T @ X / len(X)
    mixture, before = None, -np.inf
    for _ in range(sweeps):
        mixture, noise = _sweep(X, shares, ranks, own_centres, noise)
        joint = mixture.log_joint(X)
        top = joint.max(axis=1, keepdims=True)
        mass = np.exp(joint - top)
        total = mass.sum(axis=1, keepdims=True)
        shares = mass / total
        value = float((top + np.log(total)).mean())
        mixture = _Mixture(mixture.weights, mixture.means, mixture.frames, mixture.noise, value)
        if value - before < policy.nearly:
            break
        before = value
    assert mixture is not None
    return mixture


def _sweep(
    X: Array, shares: Array, ranks: Index, own_centres: bool, noise: Array
) -> tuple[_Mixture, Array]:
    """Atoms from shares in the metric of the noise, and the noise that they leave, (q, q)."""
    n, q = X.shape
    weights = shares.mean(axis=0)
    means, frames, left = [], [], np.zeros((q, q))
    for k, rank in enumerate(ranks):
        mass = max(float(shares[:, k].sum()), TINY)
        mean = shares[:, k] @ X / mass if own_centres else np.zeros(q)
        apart = X - mean
        second = (apart * shares[:, [k]]).T @ apart / mass
        values, vectors = eigh(second, noise, subset_by_index=(q - rank, q - 1))
        lift = np.maximum(values[::-1] - 1.0, 0.0)
        frame = noise @ (vectors[:, ::-1] * np.sqrt(lift))
        means.append(mean)
        frames.append(frame)
        # along a frame the posterior moment of the noise is its prior one
        left += weights[k] * (second - frame @ frame.T)
    # a Wishart prior at equal variances, with as many degrees of freedom as there are axes
    left = (n * left + np.trace(left) * np.eye(q)) / (n + q)
    return _Mixture(weights, np.array(means), frames, left, -np.inf), left
