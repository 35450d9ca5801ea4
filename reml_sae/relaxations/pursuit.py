"""Matching pursuit over curves, with exchanges.

The dictionary is a grid of points of every atom. A row takes the point that explains its residual
best, with an amplitude under its prior, and then exchanges each of its points for the best of any
atom until nothing changes or the rounds are over: plain matching pursuit keeps its first mistakes,
and curves of atoms that share directions make it err. It starts from each of the few best first
atoms. It is blind to sets of atoms of which none looks good alone, as where a row uses most atoms;
so the sets whose spans explain the row best are candidates too, with the points nearest to the
row's parts in these spans. Everything is least squares with unit weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reml_sae.relaxations.block_ksvd import leading_sets, scores_on
from reml_sae.relaxations.policy import PursuitPolicy
from reml_sae.typing import Array, Index

BLOCK_ELEMENTS = 100_000
"""Rows times points that are worked on at once: what stays in the cache of a core."""
Slots = tuple[Index, Index, Array]
"""Atoms, grid points and amplitudes of the rows' slots, each (n, j)."""


@dataclass(frozen=True)
class AmplitudePrior:
    """Prior of amplitudes: log a has mean 0 and a precision, within a range; its costs in nats.

    Attributes
    ----------
    log_lowest, log_highest : float
    precision : float
    costs : (K,) array
        Of opening each atom.
    """

    log_lowest: float
    log_highest: float
    precision: float
    costs: Array


class CurveDictionary:
    """Points of all atoms, atom by atom.

    Parameters
    ----------
    points : list of K (G_k, p) arrays
        Relative to the constants of the atoms.
    centres : (K, p) array
        Constants that an atom adds whole, whatever its amplitude; zero where it does not.
    widths : sequence of K int
        Dimensions of the leading span of each atom.
    prior : AmplitudePrior
    """

    def __init__(
        self, points: Sequence[Array], centres: Array, widths: Sequence[int], prior: AmplitudePrior
    ):
        self.sizes = [len(part) for part in points]
        self.n_atoms = len(points)
        self.points: Array = np.concatenate(points)
        self.centres, self.prior = centres, prior
        self.squares = np.maximum((self.points**2).sum(1), np.finfo(float).tiny)
        self.owner = np.repeat(np.arange(self.n_atoms), self.sizes)
        self.across: Array = (self.points * self.centres[self.owner]).sum(axis=1)
        self.first = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        self.frames = np.zeros((self.n_atoms, max(widths), self.points.shape[1]))
        """Orthonormal rows of the leading span of each atom's points, zero below its width."""
        for k, width in enumerate(widths):
            axes = np.linalg.svd(self._own(k), full_matrices=False)[2][:width]
            self.frames[k, : len(axes)] = axes

    def _own(self, k: int) -> Array:
        return self.points[self.first[k] : self.first[k] + self.sizes[k]]

    def nearest(self, k: int, parts: Array) -> tuple[Index, Array]:
        """Points (n,) of atom k, and amplitudes (n,), that come nearest to ``parts`` (n, p)."""
        squares = self.squares[self.first[k] : self.first[k] + self.sizes[k]]
        reach = parts @ self._own(k).T
        a = np.clip(reach / squares, np.exp(self.prior.log_lowest), np.exp(self.prior.log_highest))
        best = (a * (reach - 0.5 * a * squares)).argmax(axis=1)
        return self.first[k] + best, a[np.arange(len(a)), best]

    def best_of_each_atom(self, residual: Array) -> tuple[Array, Index, Array]:
        """Gain in nats (n, K) of adding each atom, its grid point and its amplitude.

        The best point of an atom is taken before its amplitude is held to its prior.
        """
        low, high = np.exp(self.prior.log_lowest), np.exp(self.prior.log_highest)
        where = np.empty((len(residual), self.n_atoms), np.intp)
        along = np.empty(where.shape)
        step = max(1, BLOCK_ELEMENTS // len(self.points))
        for rows in (slice(start, start + step) for start in range(0, len(residual), step)):
            reach = residual[rows] @ self.points.T
            reach -= self.across
            a = reach / self.squares
            np.clip(a, low, high, out=a)
            gain = 0.5 * a
            gain *= self.squares
            np.subtract(reach, gain, out=gain)
            gain *= a
            for k, first in enumerate(self.first):
                where[rows, k] = first + gain[:, first : first + self.sizes[k]].argmax(1)
            along[rows] = np.take_along_axis(reach, where[rows], 1)
        whole = residual @ self.centres.T - 0.5 * (self.centres**2).sum(1)
        squares = self.squares[where]
        # one Newton step of |y|^2 (a - c)^2 / 2 + lambda log(a)^2 / 2 in log a, from c
        c = np.clip(along / squares, low, high)
        weight = squares * c**2 / (squares * c**2 + self.prior.precision)
        log_a = weight * np.log(c)
        a = np.exp(log_a)
        gain = a * (along - 0.5 * a * squares) - 0.5 * self.prior.precision * log_a**2
        return gain + whole - self.prior.costs, where, a


def pursue_rows(
    dictionary: CurveDictionary, target: Array, least: int, most: int, luck: float,
    policy: PursuitPolicy,
) -> list[Slots]:
    """Slots of rows (n, p): of every size that a row may use, and those in spans.

    Parameters
    ----------
    dictionary : CurveDictionary
    target : (n, p) array
    least, most : int
        Numbers of atoms that a row may use.
    luck : float
        Nats that the luckiest row would gain by one more atom from noise.
    policy : PursuitPolicy
    """
    slots, deepest = _pursued(dictionary, target, least, most, luck, policy)
    return slots + [_slots_in_spans(dictionary, target, atoms) for atoms in
                    _span_sets(dictionary, target, least, deepest, policy.span_sets)]


def _span_sets(
    dictionary: CurveDictionary, target: Array, least: int, deepest: int, most_sets: int
) -> list[Index]:
    """Sets (n, m) of several atoms whose spans explain the rows best, of every size allowed."""
    found = list(leading_sets(target, dictionary.frames, deepest, most_sets))
    return [sets[:, b] for sets, _ in found[max(least, 2) - 1:] for b in range(sets.shape[1])]


def _slots_in_spans(dictionary: CurveDictionary, target: Array, atoms: Index) -> Slots:
    """The points of the atoms nearest to the parts of the rows in their spans."""
    support = np.zeros((len(target), dictionary.n_atoms), bool)
    np.put_along_axis(support, atoms, True, axis=1)
    scores, _ = scores_on(target - support @ dictionary.centres, dictionary.frames, support)
    places, amplitudes = np.zeros(atoms.shape, np.intp), np.ones(atoms.shape)
    for k in range(dictionary.n_atoms):
        rows, slot = np.nonzero(atoms == k)
        places[rows, slot], amplitudes[rows, slot] = dictionary.nearest(
            k, scores[rows, k] @ dictionary.frames[k])
    return atoms, places, amplitudes


def _pursued(
    dictionary: CurveDictionary, target: Array, least: int, most: int, luck: float,
    policy: PursuitPolicy,
) -> tuple[list[Slots], int]:
    """Slots of every size from ``least`` on, of the last two beams, and the last size.

    It is ``most``, or the last by which any row gains more than ``luck`` nats.
    """
    n = len(target)
    gain, where, a = dictionary.best_of_each_atom(target)
    order = np.argsort(-gain, axis=1, kind="stable")[:, :policy.beams]
    beams: list[Slots] = [
        (first, np.take_along_axis(where, first, 1), np.take_along_axis(a, first, 1))
        for first in np.split(order, order.shape[1], axis=1)]
    empty: Slots = (np.zeros((n, 0), np.intp), np.zeros((n, 0), np.intp), np.zeros((n, 0)))
    out = [empty] if least == 0 else []
    before = np.full(n, np.inf)
    deepest = 0
    for size in range(1, most + 1):
        if size > 1:
            beams = [_grown(dictionary, target, slots, policy.exchanges) for slots in beams]
        losses = np.stack([_loss(dictionary, target, slots) for slots in beams], axis=1)
        gained = before - losses.min(axis=1)
        if size > max(least, policy.sure_size) and not (gained > luck).any():
            break
        before, deepest = np.minimum(before, losses.min(axis=1)), size
        ranked = np.argsort(losses, axis=1, kind="stable")
        best = [_picked(beams, ranked[:, rank]) for rank in range(min(2, len(beams)))]
        if size >= least:
            out.append(best[0])
    return out + best[1:], deepest


def _grown(
    dictionary: CurveDictionary, target: Array, slots: Slots, exchanges: int
) -> Slots:
    """Slots with one more, after which every one is exchanged for the best a few times."""
    slots = _with_slot(dictionary, target, slots, None)
    for _ in range(exchanges):
        for slot in range(slots[0].shape[1]):
            slots = _with_slot(dictionary, target, slots, slot)
    return slots


def _picked(beams: Sequence[Slots], pick: Index) -> Slots:
    """The slots (n, j) of one beam for every row."""
    rows = np.arange(len(pick))
    return (np.stack([atoms for atoms, _, _ in beams])[pick, rows],
            np.stack([places for _, places, _ in beams])[pick, rows],
            np.stack([amplitudes for _, _, amplitudes in beams])[pick, rows])


def _residual(dictionary: CurveDictionary, target: Array, slots: Slots) -> Array:
    atoms, places, amplitudes = slots
    fitted: Array = np.einsum("nj,njp->np", amplitudes, dictionary.points[places])
    return target - fitted - dictionary.centres[atoms].sum(axis=1)


def _loss(dictionary: CurveDictionary, target: Array, slots: Slots) -> Array:
    atoms, _, amplitudes = slots
    loss = 0.5 * (_residual(dictionary, target, slots) ** 2).sum(1)
    loss += 0.5 * dictionary.prior.precision * (np.log(amplitudes) ** 2).sum(1)
    total: Array = loss + dictionary.prior.costs[atoms].sum(1)
    return total


def _with_slot(
    dictionary: CurveDictionary, target: Array, slots: Slots, slot: int | None
) -> Slots:
    """Slots with one added, or one exchanged for the best of the atoms that the others leave."""
    if slot is not None:
        slots = tuple(np.delete(part, slot, axis=1) for part in slots)  # type: ignore[assignment]
    gain, where, a = dictionary.best_of_each_atom(_residual(dictionary, target, slots))
    np.put_along_axis(gain, slots[0], -np.inf, 1)
    best = gain.argmax(1)[:, None]
    new = (best, np.take_along_axis(where, best, 1), np.take_along_axis(a, best, 1))
    return tuple(np.concatenate([item, part], axis=1)  # type: ignore[return-value]
                 for part, item in zip(slots, new, strict=True))
