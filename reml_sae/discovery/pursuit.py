"""Candidate codes of rows that use several atoms: matching pursuit over the atoms' curves.

The dictionary is a grid of points of every atom at the present decoders. A row takes the point that
explains its residual best, with an amplitude under its prior, and then exchanges each of its points
for the best of any atom until nothing changes or the rounds are over: plain matching pursuit keeps
its first mistakes, and curves of atoms that share directions make it err. It starts from each of
the few best first atoms. It is blind to sets of atoms of which none looks good alone, as where a
row uses most atoms; so the sets whose spans explain the row best are candidates too, with the
points nearest to the row's parts in these spans. Everything is least squares in the metric of the
columns' weights; `encode` refines the candidates and compares them by their evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reml_sae.engine import Theta
from reml_sae.manifolds import Manifold
from reml_sae.models import SAEManifoldModel
from reml_sae.models.sae.start import column_weights
from reml_sae.relaxations.block_ksvd import leading_sets, scores_on
from reml_sae.typing import Array, Index, Mask

GRID_CURVE, GRID_SURFACE = 64, 300
SURE_SIZE = 4
"""Where rows may use few atoms or many, sets of so many are tried whatever they gain; larger ones
while any row gains more by them than the luckiest would by noise."""
BEAMS, EXCHANGES = 3, 2
SPAN_SETS = 4
"""Sets of atoms of a row and of one size that are tried for what their spans explain."""
CHUNK_ELEMENTS = 4_000_000
AMPLITUDE_WIDTH = 4.0
"""Amplitudes are looked for within this many prior standard deviations of one."""


def atom_grid(atom: Manifold) -> Array:
    """Coordinates (n, d) that cover an atom."""
    return atom.grid(GRID_CURVE if atom.latent_dim == 1 else GRID_SURFACE)


@dataclass(frozen=True)
class Candidate:
    """Codes of all rows from which a refinement starts.

    Attributes
    ----------
    support : (N, K) bool
    amplitudes : (N, K)
        On the simplex, the shares.
    coordinates : (N, D)
    """

    support: Mask
    amplitudes: Array
    coordinates: Array


class _Dictionary:
    """Points of all atoms, atom by atom, in the metric of the columns' weights."""

    def __init__(self, model: SAEManifoldModel, theta: Theta, rho: Array):
        self.weights = np.sqrt(column_weights(model, theta, rho))
        grids = [atom_grid(atom) for atom in model.atoms]
        points = [atom.basis(grid) @ theta.beta[where] for atom, grid, where in
                  zip(model.atoms, grids, model.layout.basis_slices, strict=True)]
        self.centres: Array = self.weights * (
            np.stack([theta.beta[where.start] for where in model.layout.basis_slices]))
        """Constants of the atoms, (K, p); ``points`` (G, p) are relative to them."""
        self.points: Array = np.concatenate(points) * self.weights - np.repeat(
            self.centres, [len(grid) for grid in grids], axis=0)
        self.centres = model.assignment.whole_constants(self.centres)
        self.squares = np.maximum((self.points**2).sum(1), np.finfo(float).tiny)
        sizes = [len(grid) for grid in grids]
        self.owner = np.repeat(np.arange(len(grids)), sizes)
        self.across: Array = (self.points * self.centres[self.owner]).sum(axis=1)
        self.first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self.grids = grids
        self.log_lowest, self.log_highest = _amplitude_range(model, rho)
        self.costs = model.opening_costs(rho)
        self.precision = _amplitude_precision(model, rho)
        self.n_atoms = len(grids)
        widths = [atom.linear_dim for atom in model.atoms]
        self.frames = np.zeros((len(grids), max(widths), self.points.shape[1]))
        """Orthonormal rows of the leading span of each atom's points, zero below its width."""
        for k, width in enumerate(widths):
            axes = np.linalg.svd(self._own(k), full_matrices=False)[2][:width]
            self.frames[k, : len(axes)] = axes

    def _own(self, k: int) -> Array:
        return self.points[self.first[k] : self.first[k] + len(self.grids[k])]

    def nearest(self, k: int, parts: Array) -> tuple[Index, Array]:
        """Points (n,) of atom k, and amplitudes (n,), that come nearest to ``parts`` (n, p)."""
        squares = self.squares[self.first[k] : self.first[k] + len(self.grids[k])]
        reach = parts @ self._own(k).T
        a = np.clip(reach / squares, np.exp(self.log_lowest), np.exp(self.log_highest))
        best = (a * (reach - 0.5 * a * squares)).argmax(axis=1)
        return self.first[k] + best, a[np.arange(len(a)), best]

    def best_of_each_atom(self, residual: Array) -> tuple[Array, Index, Array]:
        """Gain in nats (n, K) of adding each atom, its grid point and its amplitude.

        The best point of an atom is taken before its amplitude is held to its prior.
        """
        reach = residual @ self.points.T - self.across
        low, high = np.exp(self.log_lowest), np.exp(self.log_highest)
        a = np.clip(reach / self.squares, low, high)
        gain = a * (reach - 0.5 * a * self.squares)
        whole = residual @ self.centres.T - 0.5 * (self.centres**2).sum(1)
        best = np.maximum.reduceat(gain, self.first, axis=1)
        where = np.empty(best.shape, np.intp)
        for k, first in enumerate(self.first):
            where[:, k] = first + gain[:, first : first + len(self.grids[k])].argmax(1)
        squares, along = self.squares[where], np.take_along_axis(reach, where, 1)
        # one Newton step of |y|^2 (a - c)^2 / 2 + lambda log(a)^2 / 2 in log a, from c
        c = np.clip(along / squares, low, high)
        weight = squares * c**2 / (squares * c**2 + self.precision)
        log_a = weight * np.log(c)
        a = np.exp(log_a)
        gain = a * (along - 0.5 * a * squares) - 0.5 * self.precision * log_a**2
        return gain + whole - self.costs, where, a


def _amplitude_precision(model: SAEManifoldModel, rho: Array) -> float:
    """Precision of log a; of z under threshold gates, taken where a is near one."""
    for term in model.terms:
        if term.target == "amplitudes":
            return float(np.mean(term.penalty.strengths(term.rho(rho))))
    return 0.0


def _amplitude_range(model: SAEManifoldModel, rho: Array) -> tuple[float, float]:
    spread = AMPLITUDE_WIDTH / np.sqrt(max(_amplitude_precision(model, rho), 1e-12))
    if not model.assignment.is_log_normal:
        return float(np.log(0.5)), 3.0
    return max(-spread, -5.0), min(spread, 5.0)


def pursue(model: SAEManifoldModel, theta: Theta, rho: Array) -> list[Candidate]:
    """Candidates of every number of atoms that a row may use; the best two of the largest."""
    dictionary = _Dictionary(model, theta, rho)
    n, n_atoms = model.active.shape
    intercept = theta.beta[-1] if model.layout.has_intercept else 0.0
    target = (model.working - intercept) * dictionary.weights
    least, most = model.assignment.least_active, model.assignment.most_active
    luck = float(np.log(n * n_atoms))
    step = max(1, CHUNK_ELEMENTS // max(1, len(dictionary.points)))
    chunks = []
    for start in range(0, n, step):
        rows = target[start : start + step]
        slots, deepest = _pursue_rows(dictionary, rows, least, most, luck)
        slots += [_slots_in_spans(dictionary, rows, atoms)
                  for atoms in _span_sets(dictionary, rows, least, deepest)]
        chunks.append([_candidate(model, dictionary, *part) for part in slots])
    return _joined(chunks)


def _joined(chunks: list[list[Candidate]]) -> list[Candidate]:
    """Candidates of all rows; a chunk with fewer of them than another repeats its last."""
    out = []
    for number in range(max(map(len, chunks))):
        parts = [chunk[min(number, len(chunk) - 1)] for chunk in chunks]
        out.append(Candidate(np.concatenate([part.support for part in parts]),
                             np.concatenate([part.amplitudes for part in parts]),
                             np.concatenate([part.coordinates for part in parts])))
    return out


def _span_sets(dictionary: _Dictionary, target: Array, least: int, deepest: int) -> list[Index]:
    """Sets (n, m) of several atoms whose spans explain the rows best, of every size allowed."""
    found = list(leading_sets(target, dictionary.frames, deepest, SPAN_SETS))
    return [sets[:, b] for sets, _ in found[max(least, 2) - 1:] for b in range(sets.shape[1])]


def _slots_in_spans(dictionary: _Dictionary, target: Array, atoms: Index) -> _Slots:
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


_Slots = tuple[Index, Index, Array]
"""Atoms, grid points and amplitudes of the rows' slots, each (n, j)."""


def _pursue_rows(
    dictionary: _Dictionary, target: Array, least: int, most: int, luck: float
) -> tuple[list[_Slots], int]:
    """Slots of every size from ``least`` on, of the last two beams, and the last size.

    It is ``most``, or the last by which any row gains more than ``luck`` nats.
    """
    n = len(target)
    gain, where, a = dictionary.best_of_each_atom(target)
    order = np.argsort(-gain, axis=1, kind="stable")[:, :BEAMS]
    beams: list[_Slots] = [
        (first, np.take_along_axis(where, first, 1), np.take_along_axis(a, first, 1))
        for first in np.split(order, order.shape[1], axis=1)]
    empty: _Slots = (np.zeros((n, 0), np.intp), np.zeros((n, 0), np.intp), np.zeros((n, 0)))
    out = [empty] if least == 0 else []
    before = np.full(n, np.inf)
    deepest = 0
    for size in range(1, most + 1):
        if size > 1:
            beams = [_grown(dictionary, target, slots) for slots in beams]
        losses = np.stack([_loss(dictionary, target, slots) for slots in beams], axis=1)
        if size > max(least, SURE_SIZE) and not (before - losses.min(axis=1) > luck).any():
            break
        before, deepest = np.minimum(before, losses.min(axis=1)), size
        ranked = np.argsort(losses, axis=1, kind="stable")
        best = [_picked(beams, ranked[:, rank]) for rank in range(min(2, len(beams)))]
        if size >= least:
            out.append(best[0])
    return out + best[1:], deepest


def _grown(dictionary: _Dictionary, target: Array, slots: _Slots) -> _Slots:
    """Slots with one more, after which every one is exchanged for the best a few times."""
    slots = _with_slot(dictionary, target, slots, None)
    for _ in range(EXCHANGES):
        for slot in range(slots[0].shape[1]):
            slots = _with_slot(dictionary, target, slots, slot)
    return slots


def _picked(beams: Sequence[_Slots], pick: Index) -> _Slots:
    """The slots (n, j) of one beam for every row."""
    rows = np.arange(len(pick))
    return (np.stack([atoms for atoms, _, _ in beams])[pick, rows],
            np.stack([places for _, places, _ in beams])[pick, rows],
            np.stack([amplitudes for _, _, amplitudes in beams])[pick, rows])


def _residual(dictionary: _Dictionary, target: Array, slots: _Slots) -> Array:
    atoms, places, amplitudes = slots
    fitted: Array = np.einsum("nj,njp->np", amplitudes, dictionary.points[places])
    return target - fitted - dictionary.centres[atoms].sum(axis=1)


def _loss(dictionary: _Dictionary, target: Array, slots: _Slots) -> Array:
    atoms, _, amplitudes = slots
    loss = 0.5 * (_residual(dictionary, target, slots) ** 2).sum(1)
    loss += 0.5 * dictionary.precision * (np.log(amplitudes) ** 2).sum(1)
    total: Array = loss + dictionary.costs[atoms].sum(1)
    return total


def _with_slot(
    dictionary: _Dictionary, target: Array, slots: _Slots, slot: int | None
) -> _Slots:
    """Slots with one added, or one exchanged for the best of the atoms that the others leave."""
    if slot is not None:
        slots = tuple(np.delete(part, slot, axis=1) for part in slots)  # type: ignore[assignment]
    gain, where, a = dictionary.best_of_each_atom(_residual(dictionary, target, slots))
    np.put_along_axis(gain, slots[0], -np.inf, 1)
    best = gain.argmax(1)[:, None]
    new = (best, np.take_along_axis(where, best, 1), np.take_along_axis(a, best, 1))
    return tuple(np.concatenate([item, part], axis=1)  # type: ignore[return-value]
                 for part, item in zip(slots, new, strict=True))


def _candidate(
    model: SAEManifoldModel, dictionary: _Dictionary, atoms: Index, places: Index,
    amplitudes: Array,
) -> Candidate:
    n = len(atoms)
    support = np.zeros((n, dictionary.n_atoms), bool)
    np.put_along_axis(support, atoms, True, 1)
    full = np.zeros((n, dictionary.n_atoms))
    np.put_along_axis(full, atoms, amplitudes, 1)
    coordinates = np.zeros((n, model.layout.n_coordinates))
    for k, where in enumerate(model.layout.coordinate_slices):
        coordinates[:, where] = dictionary.grids[k][0]
    for slot in range(atoms.shape[1]):
        for k, where in enumerate(model.layout.coordinate_slices):
            rows = np.flatnonzero(atoms[:, slot] == k)
            coordinates[rows, where] = dictionary.grids[k][places[rows, slot]
                                                           - dictionary.first[k]]
    return Candidate(support, full, coordinates)
