"""Moves from where EM of the joint mixture has ended, and whether they lead lower.

The coordinates of an atom begin again; two atoms divide their rows anew or exchange them, or one
leaves its rows for half of the other's. To add one of two, write a function as those in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from reml_sae.relaxations.axes import TINY
from reml_sae.relaxations.graphs import k_means, normalised_cut
from reml_sae.relaxations.joint_mixture import AtomCodes, JointGrid, JointMixture, Place
from reml_sae.typing import Array, Index


@dataclass(frozen=True)
class Move:
    """Codes to try, and the atoms that differ by them, in order; None where others may have to."""

    codes: AtomCodes
    atoms: tuple[int, ...] | None


@dataclass(frozen=True)
class Found:
    """Where a move has led: nats below where it began, and the place if all rows were asked."""

    gain: float
    place: Place | None = None


@dataclass(frozen=True)
class Optimum:
    """Where EM has ended, and what moves from there need of it."""

    mixture: JointMixture
    place: Place
    _parts: dict[tuple[int, ...], _Part] = field(default_factory=dict, repr=False)

    @cached_property
    def codes(self) -> AtomCodes:
        """Codes of the rows."""
        return self.mixture.codes(self.mixture.X, self.place)

    @cached_property
    def shares(self) -> Array:
        """Of rows, by atoms (n, K), up to the totals of the rows."""
        mixing, owner = self.mixture.mixing(self.mixture.X, self.place)[0], self.mixture.joint.owner
        return np.stack([mixing[:, owner == k].sum(axis=1) for k in range(self.n_atoms)], axis=1)

    @cached_property
    def white(self) -> Array:
        """Rows (n, q) in the metric of the noise."""
        return self.mixture.X @ self.mixture.whitening(self.place)

    @property
    def n_atoms(self) -> int:
        """Count K of atoms."""
        return len(self.mixture.joint.atoms)

    def follow(self, move: Move) -> Found:
        """Where EM leads by a move.

        Where the atoms that differ are not all of them, EM of their own rows has to lead lower
        first: that is a small part of the work.
        """
        if move.atoms is not None and len(move.atoms) < self.n_atoms:
            gain = self._part(move.atoms).gain(move.codes)
            if gain <= self.mixture.alike:
                return Found(gain)
        place = self.mixture.carried(move.codes, self.place.value)
        return Found(self.place.value - place.value, place)

    def _part(self, atoms: tuple[int, ...]) -> _Part:
        if atoms not in self._parts:
            self._parts[atoms] = _Part.of(self.mixture, self.codes, atoms)
        return self._parts[atoms]


@dataclass(frozen=True)
class _Part:
    """Some atoms and their rows, as if there were no others."""

    mixture: JointMixture
    rows: Index
    columns: Index
    atoms: Sequence[int]
    value: float

    @classmethod
    def of(cls, whole: JointMixture, codes: AtomCodes, atoms: tuple[int, ...]) -> _Part:
        rows = np.flatnonzero(np.isin(codes.labels, atoms))
        columns = np.r_[tuple(whole.joint.columns[k] for k in atoms)]
        part = cls(whole.only(rows, atoms), rows, columns, atoms, np.inf)
        return replace(part, value=part.mixture.carried(part.among(codes)).value)

    def among(self, codes: AtomCodes) -> AtomCodes:
        return AtomCodes(np.searchsorted(self.atoms, codes.labels[self.rows]),
                         codes.coordinates[np.ix_(self.rows, self.columns)])

    def gain(self, codes: AtomCodes) -> float:
        return self.value - self.mixture.carried(self.among(codes), self.value).value


def begin_again(optimum: Optimum, k: int, rng: np.random.Generator) -> Move | None:
    """Random coordinates of the rows of one atom; None where there are too few rows for it."""
    return _placed(optimum, optimum.codes.labels, (k,), (k,), rng)


def propose(optimum: Optimum, rng: np.random.Generator) -> Move | None:
    """A random move of two atoms; None where there are too few rows for it."""
    return KINDS[rng.integers(len(KINDS))](optimum, rng)


def _divide(optimum: Optimum, rng: np.random.Generator) -> Move | None:
    """Two atoms divide their rows anew."""
    pair, labels = _pair(optimum, rng), optimum.codes.labels
    rows = np.flatnonzero(np.isin(labels, pair))
    return _halved(optimum, labels, rows, pair, (min(pair), max(pair)), rng)


def _exchange(optimum: Optimum, rng: np.random.Generator) -> Move | None:
    """Two atoms of different kinds exchange their rows."""
    one, two = _pair(optimum, rng)
    atoms, labels = optimum.mixture.joint.atoms, optimum.codes.labels
    if atoms[one] == atoms[two]:
        return None
    exchanged = np.where(labels == one, two, np.where(labels == two, one, labels))
    return _placed(optimum, exchanged, (one, two), (min(one, two), max(one, two)), rng)


def _leave(optimum: Optimum, rng: np.random.Generator) -> Move | None:
    """An atom leaves its rows to the others, for half of another's."""
    pair, labels = _pair(optimum, rng), optimum.codes.labels
    others = optimum.shares.copy()
    others[:, pair[0]] = -1.0
    left = np.where(labels == pair[0], others.argmax(axis=1), labels)
    return _halved(optimum, left, np.flatnonzero(left == pair[1]), pair, None, rng)


KINDS: tuple[Callable[[Optimum, np.random.Generator], Move | None], ...] = (
    _divide, _exchange, _leave)


def _pair(optimum: Optimum, rng: np.random.Generator) -> tuple[int, int]:
    one, two = rng.choice(optimum.n_atoms, 2, replace=False)
    return int(one), int(two)


def _halved(
    optimum: Optimum, labels: Index, rows: Index, pair: tuple[int, int],
    differ: tuple[int, ...] | None, rng: np.random.Generator,
) -> Move | None:
    """Rows divided between two atoms at random: along a direction, or by what is near what."""
    if len(rows) < 2 * optimum.mixture.policy.least_rows:
        return None
    kind, X = rng.integers(4), optimum.mixture.X[rows]
    if kind == 0:
        half = turned(_spread(optimum, rows)[:, :3], 1, rng)[:, 0] > 0.0
    elif kind == 1:
        half = k_means(X, 2, rng) == 1
    else:
        half = normalised_cut(X, 2, bool(kind == 2), rng) == 1
    divided = labels.copy()
    divided[rows] = np.where(half, *pair)
    return _placed(optimum, divided, pair, differ, rng)


def _placed(
    optimum: Optimum, labels: Index, anew: Sequence[int], differ: tuple[int, ...] | None,
    rng: np.random.Generator,
) -> Move | None:
    """Codes of rows with these labels, whose coordinates on some atoms begin anew."""
    joint, coordinates = optimum.mixture.joint, optimum.codes.coordinates.copy()
    for k in anew:
        rows = np.flatnonzero(labels == k)
        if len(rows) < optimum.mixture.policy.least_rows:
            return None
        spread = _spread(optimum, rows)
        d = min(joint.smooth[k].shape[1], spread.shape[1])
        scores = turned(spread[:, :d + int(rng.integers(3))], d, rng)
        coordinates[rows, joint.columns[k]] = nearest(joint, k, scores)
    return Move(AtomCodes(labels, coordinates), differ)


def _spread(optimum: Optimum, rows: Index) -> Array:
    """Some rows about their mean, of unit variance along axes; the first stands out most."""
    X = optimum.white[rows]
    return spread_out(X - X.mean(axis=0))


def spread_out(X: Array) -> Array:
    """Rows (n, q) on their main axes, the longest first, each of unit variance or none."""
    values, axes = np.linalg.eigh(X.T @ X / max(len(X), 1))
    values, axes = values[::-1], axes[:, ::-1]
    return X @ axes / np.sqrt(np.maximum(values, TINY * max(float(values[0]), TINY)))


def random_codes(joint: JointGrid, white: Array, rng: np.random.Generator) -> AtomCodes:
    """Codes of white rows (n, q), the leading axes first, by random scores for every atom.

    All axes, or few of the leading ones: an atom is below much noise or among the first. A row is
    on the atom on which its scores are longest.
    """
    q, everywhere = white.shape[1], rng.random() < 0.5
    points, lengths = [], []
    for k, smooth in enumerate(joint.smooth):
        d = min(smooth.shape[1], q)
        axes = q if everywhere else int(np.exp(rng.uniform(np.log(d), np.log(q + 1))))
        scores = turned(white[:, :axes], d, rng)
        points.append(nearest(joint, k, scores))
        lengths.append((scores**2).mean(axis=1))
    return AtomCodes(np.argmax(lengths, axis=0), np.concatenate(points, axis=1))


def turned(white: Array, d: int, rng: np.random.Generator) -> Array:
    """Scores (n, d) of white rows (n, q) on random axes."""
    return white @ np.linalg.qr(rng.standard_normal((white.shape[1], d)))[0]


def nearest(joint: JointGrid, k: int, scores: Array) -> Array:
    """The points (n, d) of an atom whose smooth functions are nearest to scores."""
    curve = joint.smooth[k][:, :scores.shape[1]]
    return joint.points_of(
        k, (0.5 * (curve**2).sum(axis=1) - scores @ curve.T).argmin(axis=1))
