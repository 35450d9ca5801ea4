"""Where a fit starts: which atom explains each row, and where on that atom the row lies.

The linear relaxation: a circle is a ring c + u(t) diag(s) F, an ellipse in the plane F; a Euclidean
atom is an affine flat; each row belongs to one of them. Spectral clustering (of rows near in angle,
for atoms with a common centre, or near in distance) and k-means propose partitions of the leading
principal scores. EM refines each by the distance to the ring itself, as planes with a common centre
intersect there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import linear_sum_assignment

from reml_sae.errors import InputError
from reml_sae.linalg import single_threaded
from reml_sae.relaxations.axes import TINY, main_axes, sample_rows
from reml_sae.relaxations.graphs import k_means, normalised_cut
from reml_sae.relaxations.policy import PartitionPolicy
from reml_sae.typing import Array

Labels = NDArray[np.intp]
Spec = tuple[bool, int]
"""Whether an atom is a ring, and its number q of axes."""

SWEEPS = 25
SAME = 0.98


@dataclass(frozen=True)
class Partition:
    """One start.

    Attributes
    ----------
    labels : (N,) int array
        The atom of each row, in [0, K).
    coordinates : list of K arrays (N, d_k)
        Each row's coordinate on every atom: an angle in [-pi, pi), or standardised scores.
    explained : float
        Fraction of the variance that the rings and flats explain.
    """

    labels: Labels
    coordinates: list[Array]
    explained: float


@dataclass(frozen=True)
class _Piece:
    """A ring or flat: centre (r,), orthonormal frame (q, r) and the scale (q,) of its axes."""

    spec: Spec
    centre: Array
    frame: Array
    scale: Array

    def project(self, X: Array) -> tuple[Array, Array]:
        """Standardised scores (N, q) and squared distances (N,) of rows X (N, r)."""
        scores, distances = _project(X, [self])
        return scores[0], distances[:, 0]

    def cost(self, y: Array, distance: Array, variance: float) -> Array:
        """-log density (N,) of rows at noise of this variance, up to a shared constant."""
        sd = np.sqrt(variance)
        if self.spec[0]:
            length = np.sqrt(2.0 * np.pi * np.mean(self.scale**2))
            return 0.5 * distance / variance + np.log(max(length / sd, 1.0))
        volume = np.log(np.maximum(self.scale / sd, 1.0)).sum()
        return 0.5 * distance / variance + 0.5 * (y**2).sum(1) + volume


def _project(X: Array, pieces: Sequence[_Piece]) -> tuple[list[Array], Array]:
    """Standardised scores (N, q) on every piece, and squared distances (N, K), of rows X (N, r).

    Pieces of one kind together: products of matrices do nearly all of it.
    """
    n, squares = len(X), np.einsum("nr,nr->n", X, X)
    scores: list[Array] = [X[:, :0]] * len(pieces)
    distances = np.empty((n, len(pieces)))
    for spec in {piece.spec for piece in pieces}:
        own = [k for k, piece in enumerate(pieces) if piece.spec == spec]
        centres, frames, scales = (
            np.stack([getattr(pieces[k], name) for k in own])
            for name in ("centre", "frame", "scale"))
        K, q, r = frames.shape
        along = (X @ frames.reshape(K * q, r).T).reshape(n, K, q)
        along -= np.einsum("kqr,kr->kq", frames, centres)
        apart = squares[:, None] - 2.0 * X @ centres.T + np.einsum("kr,kr->k", centres, centres)
        apart -= np.einsum("nkq,nkq->nk", along, along)
        np.maximum(apart, 0.0, out=apart)
        y = along / scales
        if spec[0]:
            off = (y - _on_ring(y)) * scales
            apart += np.einsum("nkq,nkq->nk", off, off)
        distances[:, own] = apart
        for place, k in enumerate(own):
            scores[k] = y[:, place]
    return scores, distances


@single_threaded
def find_partitions(
    Z: Array, latent_dims: Sequence[int], subspace_dims: Sequence[int], rings: Sequence[bool],
    n_init: int, rng: np.random.Generator, policy: PartitionPolicy,
) -> list[Partition]:
    """Find starts for rows that one of K curved atoms explains, each.

    Parameters
    ----------
    Z : (N, p) array
        Data, centred and scaled.
    latent_dims : sequence of K ints
        Dimension d_k of each atom's coordinate.
    subspace_dims : sequence of K ints
        Dimension of the affine subspace that holds most of the atom: 2 for a circle.
    rings : sequence of K bool
        Which atoms are rings; the others are flats.
    n_init : int
        How many starts to return at most.
    rng : numpy.random.Generator
        Source of all randomness.
    policy : PartitionPolicy

    Returns
    -------
    list of Partition
        At least one and at most n_init, distinct, the best explained first.
    """
    if len(Z) < len(rings):
        raise InputError(f"Z has {len(Z)} rows, fewer than its {len(rings)} atoms; use fewer atoms")
    Z = Z - Z.mean(0)
    rank = min(max(4, sum(subspace_dims) + len(rings)), *Z.shape)
    X = Z @ main_axes(Z, rank, rng).T
    specs = [(ring, min(q, 2 if ring else q, rank))
             for ring, q in zip(rings, subspace_dims, strict=True)]
    found = _search(X, specs, n_init, rng, policy)
    total = (Z**2).sum()
    starts = []
    for pieces in found:
        labels, residual = _assign(X, pieces)
        lost = residual + max(total - (X**2).sum(), 0.0)
        starts.append(Partition(
            labels, [_coordinates(X, piece, labels == k, d)
                     for k, (piece, d) in enumerate(zip(pieces, latent_dims, strict=True))],
            float(1.0 - lost / total) if total > TINY else 0.0,
        ))
    best: list[int] = []
    for i in sorted(range(len(starts)), key=lambda i: -starts[i].explained):
        same = ((((found[i][0].frame @ found[j][0].frame.T) ** 2).sum() >= SAME * specs[0][1])
                if len(specs) == 1 else
                same_partition(starts[i].labels, starts[j].labels, len(specs)) for j in best)
        if not any(same):
            best.append(i)
    return [starts[i] for i in best[: max(n_init, 1)]]


def _on_ring(y: Array) -> Array:
    """Point of the unit circle nearest to whitened scores y; of [-1, 1], its shadow, if q = 1."""
    if y.shape[-1] == 1:
        return np.clip(y, -1.0, 1.0)
    radius = np.sqrt(np.einsum("...q,...q->...", y, y))[..., None]
    return np.where(radius > TINY, y / np.maximum(radius, TINY), np.eye(1, 2))


def _initial(X: Array, spec: Spec, weights: Array | None = None) -> _Piece:
    """Principal axes of rows X (n, r) about their weighted mean."""
    w = np.full(len(X), 1.0 / len(X)) if weights is None else weights / weights.sum()
    centre = w @ X
    values, vectors = eigh(((X - centre) * w[:, None]).T @ (X - centre))
    scale = np.sqrt(np.maximum(values[::-1][: spec[1]], 0.0) * (2.0 if spec[0] else 1.0))
    return _piece(spec, centre, vectors[:, ::-1][:, : spec[1]].T, scale)


def _piece(spec: Spec, centre: Array, frame: Array, scale: Array) -> _Piece:
    floor = 1e-3 * scale.max(initial=0.0)
    return _Piece(spec, centre, frame, np.maximum(scale, floor) if floor > TINY else scale + 1.0)


def _update(X: Array, piece: _Piece, y: Array, weights: Array) -> _Piece:
    """One weighted regression of rows X (n, r) on the piece's own coordinates y (n, q)."""
    q = len(piece.frame)
    if not piece.spec[0] or len(X) <= q + 1:
        return _initial(X, piece.spec, weights)
    basis = np.column_stack([np.ones(len(y)), _on_ring(y)])
    gram = (basis * weights[:, None]).T @ basis
    gram[np.diag_indices(q + 1)] += 1e-9 * np.trace(gram) + TINY
    slope = np.linalg.solve(gram, (basis * weights[:, None]).T @ X)
    _, scale, frame = np.linalg.svd(slope[1:], full_matrices=False)
    return _piece(piece.spec, slope[0], frame, scale)


def _costs(X: Array, pieces: list[_Piece]) -> tuple[list[Array], Array, Array, float]:
    """Scores, squared distances (N, K), costs (N, K) and the noise variance of their least."""
    scores, distances = _project(X, pieces)
    freedom = [max(X.shape[1] - (1 if p.spec[0] else len(p.frame)), 1) for p in pieces]
    nearest = distances.argmin(1)
    variance = float(distances.min(1).sum() / np.take(freedom, nearest).sum())
    variance = max(variance, 1e-6 * float((X**2).mean()), TINY)
    costs = [piece.cost(y, distances[:, k], variance)
             for k, (piece, y) in enumerate(zip(pieces, scores, strict=True))]
    return scores, distances, np.column_stack(costs), variance


def _refine(X: Array, pieces: list[_Piece], sweeps: int = SWEEPS) -> list[_Piece]:
    """EM from the given pieces; stops when the mean cost settles."""
    last = np.inf
    for _ in range(sweeps):
        scores, distances, costs, variance = _costs(X, pieces)
        value = costs.min(1).mean() + 0.5 * X.shape[1] * np.log(variance)
        if abs(last - value) < 1e-5:
            break
        last = value
        w = np.exp(costs.min(1, keepdims=True) - costs)
        w /= w.sum(1, keepdims=True)
        worst = np.argsort(-distances.min(1), kind="stable")
        new = []
        for k, piece in enumerate(pieces):
            rows = np.flatnonzero(w[:, k] > 1e-4)
            if w[:, k].sum() < len(piece.frame) + 1:
                new.append(_initial(X[worst[: len(piece.frame) + 1]], piece.spec))
            else:
                new.append(_update(X[rows], piece, scores[k][rows], w[rows, k]))
        pieces = new
    return pieces


def _assign(X: Array, pieces: list[_Piece]) -> tuple[Labels, float]:
    """Labels (N,), every atom with a row, and the residual sum of squares."""
    _, distances, costs, _ = _costs(X, pieces)
    labels = costs.argmin(1)
    order = np.argsort(-distances[np.arange(len(X)), labels], kind="stable")
    for k in np.flatnonzero(np.bincount(labels, minlength=len(pieces)) == 0):
        spare = np.bincount(labels, minlength=len(pieces))[labels[order]] > 1
        labels[order[np.argmax(spare)]] = k
    return labels, float(distances[np.arange(len(X)), labels].sum())


def _search(
    X: Array, specs: list[Spec], n_init: int, rng: np.random.Generator,
    policy: PartitionPolicy,
) -> list[list[_Piece]]:
    """Refined pieces from every proposal."""
    rows, few = (sample_rows(X, most, rng) for most in (policy.em_rows, policy.graph_rows))
    K = len(specs)
    if K == 1:
        return list(_single(rows, specs[0], rng))
    proposals = [normalised_cut(few, K, angular, rng) for angular in (True, False)]
    proposals += [k_means(few, K, rng) for _ in range(max(1, n_init - 2))]
    found = [_refine(rows, _pieces(few, labels, specs)) for labels in proposals]
    return found if len(rows) == len(X) else [_refine(X, pieces, 3) for pieces in found]


def _single(X: Array, spec: Spec, rng: np.random.Generator) -> Iterator[list[_Piece]]:
    """Pieces for K = 1: planes of principal axes, random planes, and where EM turns them."""
    r, q = X.shape[1], spec[1]
    top = max(min(4, r), q)
    frames = [np.eye(r)[list(axes)] for axes in combinations(range(top), q)]
    turns = [np.linalg.qr(rng.standard_normal((top, q)))[0].T for _ in range(2)]
    for frame in frames + [np.pad(turn, ((0, 0), (0, r - top))) for turn in turns]:
        flat = _initial(X @ frame.T, spec)
        piece = _Piece(spec, flat.centre @ frame, flat.frame @ frame, flat.scale)
        yield from ([piece], _refine(X, [piece]))


def _pieces(X: Array, labels: Labels, specs: list[Spec]) -> list[_Piece]:
    """Fit clusters of X (n, r) by pieces, matched to the kinds that suit them best."""
    members = [X[labels == k] if (labels == k).sum() > 1 else X for k in range(len(specs))]
    table = [{spec: _initial(rows, spec) for spec in set(specs)} for rows in members]
    fits = [{spec: piece.project(rows) for spec, piece in row.items()}
            for rows, row in zip(members, table, strict=True)]
    least = np.mean([min(d.mean() for _, d in fit.values()) for fit in fits])
    noise = max(float(least) / X.shape[1], TINY)
    cost = np.array([[table[j][spec].cost(*fit[spec], noise).sum() for spec in specs]
                     for j, fit in enumerate(fits)])
    return [table[j][specs[k]] for k, j in enumerate(linear_sum_assignment(cost.T)[1])]


def _coordinates(X: Array, piece: _Piece, mine: NDArray[np.bool_], d: int) -> Array:
    """Coordinates (N, d) of all rows on one piece."""
    y = piece.project(X)[0]
    if piece.spec[0]:
        angle = np.arctan2(y[:, 1], y[:, 0]) if y.shape[1] > 1 else np.arccos(_on_ring(y)[:, 0])
        angle = np.where(angle >= np.pi, -np.pi, angle)
        return np.pad(angle[:, None], ((0, 0), (0, d - 1)))
    y = y[:, :d] - y[mine, :d].mean(0)
    sd = np.sqrt((y[mine] ** 2).mean(0))
    return np.pad(y / np.where(sd > TINY, sd, 1.0), ((0, 0), (0, d - y.shape[1])))


def same_partition(a: Labels, b: Labels, K: int) -> bool:
    """Whether two labellings of rows with K atoms are nearly one, whatever the atoms' order."""
    table = np.bincount(a * K + b, minlength=K * K).reshape(K, K)
    return bool(table[linear_sum_assignment(-table)].sum() > SAME * len(a))
