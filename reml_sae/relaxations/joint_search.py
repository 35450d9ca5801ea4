"""A search for the codes of rows on one atom each, by the evidence of the joint mixture.

EM from partitions and random codes ends at many local optima. Moves lead from the best one on: two
atoms divide their rows anew or exchange them, an atom leaves its rows for half of another's, or its
coordinates begin again. Most fail, and EM on the rows of the atoms concerned tells that at a small
part of the work; so a search of a second does what fits would take minutes for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from reml_sae.linalg import single_threaded
from reml_sae.manifolds import Manifold
from reml_sae.relaxations.axes import TINY, leading_axes, sample_index
from reml_sae.relaxations.graphs import k_means, normalised_cut
from reml_sae.relaxations.joint_mixture import AtomCodes, JointGrid, JointMixture, Place
from reml_sae.relaxations.policy import JointPolicy
from reml_sae.typing import Array, Index


@dataclass(frozen=True)
class JointEnds:
    """Where the search ends.

    Attributes
    ----------
    codes : sequence of AtomCodes
        On grids, the best by evidence first and no two alike.
    noises : sequence of (p, p) arrays
        Second moments of the noise there.
    agreed : bool
        Whether several seeds have come to the best end.
    """

    codes: Sequence[AtomCodes]
    noises: Sequence[Array]
    agreed: bool


@single_threaded
def search_codes(
    Z: Array, atoms: Sequence[Manifold], seeds: Sequence[AtomCodes], white: bool,
    rng: np.random.Generator, policy: JointPolicy, stop: Callable[[], bool] = lambda: False,
) -> JointEnds:
    """Carry seeds on, and the best of their ends.

    Parameters
    ----------
    Z : (N, p) array
        Centred rows.
    atoms : sequence of K Manifold
        All of them with coordinates.
    seeds : sequence of AtomCodes
        All of which are tried; then random ones in turn, and moves.
    white : bool
        Whether the noise has one variance in all directions; else any covariance.
    rng : Generator
    policy : JointPolicy
    stop : callable
        Whether no more is to be tried.

    Returns
    -------
    JointEnds
        Without codes where rows are too few to tell the noise, or all equal.
    """
    most = len(Z) - 1 if white else len(Z) // policy.rows_per_axis
    q = min(Z.shape[1], policy.most_axes, most)
    size = float(np.sqrt((Z**2).mean())) if Z.size else 0.0
    if q < 2 or not size > TINY:
        return JointEnds([], [], False)
    axes = leading_axes(Z, q, rng)
    Y, rest = Z @ axes.T / size, (Z - Z @ axes.T @ axes) / size
    outside = rest.T @ rest / len(Z)
    rows = sample_index(len(Y), policy.most_rows, rng)
    mixture = JointMixture(Y[rows], JointGrid.of(atoms, policy), white, policy)
    ends = [mixture.carried(seed.of(rows)) for seed in seeds if not stop()]
    most_random = len(ends) + (policy.few_random if white else policy.most_random)
    spread = _white(mixture.X)
    while not (agreed := _agree(ends, policy)) and len(ends) < most_random and not stop():
        ends.append(mixture.carried(_random_codes(mixture.joint, spread, rng)))
    if not agreed:
        agreed = _move_on(mixture, ends, rng, stop)
    best = _kept(mixture, ends)
    return JointEnds([mixture.codes(Y, place) for place in best],
                     [axes.T @ place.noise @ axes + outside for place in best], agreed)


def _agree(ends: Sequence[Place], policy: JointPolicy) -> bool:
    """Whether several have come to the best."""
    least = min((end.value for end in ends), default=np.inf)
    return sum(end.value < least + policy.alike for end in ends) >= policy.agree


def _white(X: Array) -> Array:
    """Rows (n, q) on their main axes, the longest first, each of unit variance or none."""
    values, axes = np.linalg.eigh(X.T @ X / max(len(X), 1))
    values, axes = values[::-1], axes[:, ::-1]
    return X @ axes / np.sqrt(np.maximum(values, TINY * max(float(values[0]), TINY)))


def _random_codes(joint: JointGrid, white: Array, rng: np.random.Generator) -> AtomCodes:
    """Codes of white rows (n, q), the leading axes first, by random scores for every atom.

    All axes, or few of the leading ones: an atom is below much noise or among the first. A row is
    on the atom on which its scores are longest.
    """
    q, everywhere = white.shape[1], rng.random() < 0.5
    points, lengths = [], []
    for k, smooth in enumerate(joint.smooth):
        d = min(smooth.shape[1], q)
        axes = q if everywhere else int(np.exp(rng.uniform(np.log(d), np.log(q + 1))))
        scores = _turned(white[:, :axes], d, rng)
        points.append(_nearest(joint, k, scores))
        lengths.append((scores**2).mean(axis=1))
    return AtomCodes(np.argmax(lengths, axis=0), np.concatenate(points, axis=1))


def _turned(white: Array, d: int, rng: np.random.Generator) -> Array:
    """Scores (n, d) of white rows on random axes."""
    return white @ np.linalg.qr(rng.standard_normal((white.shape[1], d)))[0]


def _nearest(joint: JointGrid, k: int, scores: Array) -> Array:
    """The points (n, d) of an atom whose smooth functions are nearest to scores."""
    curve = joint.smooth[k][:, :scores.shape[1]]
    return joint.points_of(
        k, (0.5 * (curve**2).sum(axis=1) - scores @ curve.T).argmin(axis=1))


def _move_on(
    mixture: JointMixture, ends: list[Place], rng: np.random.Generator, stop: Callable[[], bool]
) -> bool:
    """Add the ends of moves from the best one, until many in turn were no better.

    Returns whether some of them came back to it.
    """
    policy, K = mixture.policy, len(mixture.joint.atoms)
    best = min(ends, key=lambda end: end.value)
    codes, failed, back = mixture.codes(mixture.X, best), 0, 1
    while failed < policy.patience * K and not stop():
        move = _propose(mixture, best, codes, rng)
        failed += 1
        if move is None or not _looks_better(mixture, codes, move):
            continue
        end = mixture.carried(move.codes, best.value)
        if end.value < best.value - policy.better:
            best, failed, back = end, 0, 1
            codes = mixture.codes(mixture.X, best)
            ends.append(end)
        elif end.value < best.value + policy.alike:
            back += 1
    return back >= policy.agree


@dataclass(frozen=True)
class _Move:
    """Codes to try, and the atoms whose rows they concern; none where they concern more."""

    codes: AtomCodes
    atoms: Sequence[int]


def _looks_better(mixture: JointMixture, codes: AtomCodes, move: _Move) -> bool:
    """Whether the mixture of the atoms concerned is better by other codes of their rows."""
    which = sorted(move.atoms)
    if not which or len(which) == len(mixture.joint.atoms):
        return True
    rows = np.flatnonzero(np.isin(codes.labels, which))
    own = mixture.only(rows, which)
    columns = np.concatenate([np.arange(mixture.joint.grid.points.shape[1])[
        mixture.joint.columns[k]] for k in which])

    def among(other: AtomCodes) -> AtomCodes:
        return AtomCodes(np.searchsorted(which, other.labels[rows]),
                         other.coordinates[np.ix_(rows, columns)])

    before = own.carried(among(codes))
    return own.carried(among(move.codes), before.value).value < before.value - mixture.policy.better


def _propose(
    mixture: JointMixture, place: Place, codes: AtomCodes, rng: np.random.Generator
) -> _Move | None:
    """A random move; None where there are too few rows for it."""
    K = len(mixture.joint.atoms)
    kinds = (_begin_again, _divide, _exchange, _leave) if K > 1 else (_begin_again,)
    return kinds[rng.integers(len(kinds))](mixture, place, codes, rng)


def _begin_again(
    mixture: JointMixture, place: Place, codes: AtomCodes, rng: np.random.Generator
) -> _Move | None:
    """Coordinates of one atom."""
    k = int(rng.integers(len(mixture.joint.atoms)))
    return _placed(mixture, place, codes, codes.labels, [k], [k], rng)


def _divide(
    mixture: JointMixture, place: Place, codes: AtomCodes, rng: np.random.Generator
) -> _Move | None:
    """Two atoms divide their rows anew."""
    one, two = _pair(mixture, rng)
    rows = np.flatnonzero(np.isin(codes.labels, (one, two)))
    return _halved(mixture, place, codes, codes.labels, rows, (one, two), [one, two], rng)


def _exchange(
    mixture: JointMixture, place: Place, codes: AtomCodes, rng: np.random.Generator
) -> _Move | None:
    """Two atoms of different kinds exchange their rows."""
    one, two = _pair(mixture, rng)
    if mixture.joint.atoms[one] == mixture.joint.atoms[two]:
        return None
    labels = codes.labels.copy()
    labels[codes.labels == one], labels[codes.labels == two] = two, one
    return _placed(mixture, place, codes, labels, [one, two], [one, two], rng)


def _leave(
    mixture: JointMixture, place: Place, codes: AtomCodes, rng: np.random.Generator
) -> _Move | None:
    """An atom leaves its rows to the others, for half of another's."""
    one, two = _pair(mixture, rng)
    mixing, owner = mixture.mixing(mixture.X, place)[0], mixture.joint.owner
    share = np.stack([np.zeros(len(mixing)) - 1.0 if k == one else mixing[:, owner == k].sum(axis=1)
                      for k in range(len(mixture.joint.atoms))], axis=1)
    labels = np.where(codes.labels == one, share.argmax(axis=1), codes.labels)
    return _halved(mixture, place, codes, labels, np.flatnonzero(labels == two), (one, two), [], rng)


def _pair(mixture: JointMixture, rng: np.random.Generator) -> tuple[int, int]:
    one, two = rng.choice(len(mixture.joint.atoms), 2, replace=False)
    return int(one), int(two)


def _halved(
    mixture: JointMixture, place: Place, codes: AtomCodes, labels: Index, rows: Index,
    pair: tuple[int, int], concerned: Sequence[int], rng: np.random.Generator,
) -> _Move | None:
    """Rows divided between two atoms at random: along a direction, or by what is near what."""
    if len(rows) < 2 * mixture.policy.least_rows:
        return None
    spread = _local(mixture, place, rows)
    kind = rng.integers(4)
    if kind == 0:
        half = _turned(spread[:, :3], 1, rng)[:, 0] > 0.0
    elif kind == 1:
        half = k_means(mixture.X[rows], 2, rng) == 1
    else:
        half = normalised_cut(mixture.X[rows], 2, bool(kind == 2), rng) == 1
    divided = labels.copy()
    divided[rows] = np.where(half, pair[0], pair[1])
    return _placed(mixture, place, codes, divided, pair, concerned, rng)


def _placed(
    mixture: JointMixture, place: Place, codes: AtomCodes, labels: Index, anew: Sequence[int],
    concerned: Sequence[int], rng: np.random.Generator,
) -> _Move | None:
    """Codes of rows with these labels, whose coordinates on some atoms begin anew."""
    coordinates = codes.coordinates.copy()
    for k in anew:
        rows = np.flatnonzero(labels == k)
        if len(rows) < mixture.policy.least_rows:
            return None
        spread = _local(mixture, place, rows)
        d = min(mixture.joint.smooth[k].shape[1], spread.shape[1])
        scores = _turned(spread[:, :d + int(rng.integers(3))], d, rng)
        coordinates[rows, mixture.joint.columns[k]] = _nearest(mixture.joint, k, scores)
    return _Move(AtomCodes(labels, coordinates), concerned)


def _local(mixture: JointMixture, place: Place, rows: Index) -> Array:
    """White rows about their mean, those axes first along which they differ most beside the noise."""
    lengths, axes, _ = mixture.metric(place.noise)
    X = mixture.X[rows] @ (axes / lengths)
    return _white(X - X.mean(axis=0))


def _kept(mixture: JointMixture, ends: Sequence[Place]) -> list[Place]:
    """The ends that come close to the best, in their order, without those that are a better one."""
    policy, size = mixture.policy, mixture.X.size
    kept: list[tuple[Place, Array]] = []
    ranked = sorted(ends, key=lambda end: end.value)
    for end in ranked:
        if (len(kept) == policy.most_kept
                or end.value > ranked[0].value + policy.close_per_row * len(mixture.X)):
            break
        lengths, axes, _ = mixture.metric(end.noise)
        curves = mixture.curves(end)
        if all((((curves - other) @ (axes / lengths)) ** 2).sum() > policy.same * size
               for _, other in kept):
            kept.append((end, curves))
    return [end for end, _ in kept]
