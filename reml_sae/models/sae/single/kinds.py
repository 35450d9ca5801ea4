"""Rows under hard gates, by the kinds of the atoms that they use (DESIGN H1).

Such a row has the log amplitudes and the coordinates of its own atoms alone, and meets their
decoders and the intercept. Atoms of one kind have the same basis, so rows whose atoms are of the
same kinds are together one model of so many atoms, whose decoders are those of the row's own:
arrays are as wide as these atoms, and nothing but the number of kinds is looped over in the work on
rows. Those that use none are a kind of their own, beside an atom that is shut.

Where every row uses one atom at most, no two kinds share an atom, and the decoders fall apart
(`single.point`).

A tangent of such a model, a step or a gradient, has for every row what its atom has and no more: it
is packed, (N, w) with the width w of the widest kind. A state has a column for every parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np

from reml_sae.assignments.gates import TopK
from reml_sae.engine.protocol import Theta
from reml_sae.linalg import MeetsBlock
from reml_sae.models.sae.gauge import move_atom
from reml_sae.models.sae.state import SAEState
from reml_sae.models.sae.structure import SAEStructure
from reml_sae.models.sae.terms import PenaltyTerm
from reml_sae.typing import Array, Index, Mask


def uses_own_atoms(structure: SAEStructure) -> bool:
    """Whether rows have the parameters of their own atoms alone, and the border is a product.

    Penalties with data of the rows of one atom are for rows: there must be some.
    """
    owned = [term.atom for term in structure.row_terms if term.atom >= 0]
    return (structure.assignment.chooses_support and not structure.couples_rows
            and not structure.has_dense_border and len(structure.Z) > 0
            and bool(structure.active[:, owned].any(axis=0).all()))


def uses_one_atom(structure: SAEStructure) -> bool:
    """Whether every row, besides, has the parameters of one atom at most."""
    return (structure.assignment.is_single and uses_own_atoms(structure)
            and bool((structure.active.sum(axis=1) <= 1).all()))


@dataclass(frozen=True, eq=False)
class Kind:
    """Sets of s atoms of the same kinds, with their rows sorted by set.

    Attributes
    ----------
    is_open : bool
        Whether the rows use the atoms; those that use none are beside one that is shut.
    structure : SAEStructure
        The rows under atoms of these kinds.
    atoms : (k, s) atoms in the whole structure
    rows : (n,) rows in the whole structure
    incidence : MeetsBlock
        Which of these sets each of these rows uses.
    columns : (k, q) columns of xi that the rows of a set have
    places : (k, m + 1) rows of beta that they meet, the intercept last
    outer : (n_outer,) places in rho of the outer parameters that they have
    generators : (c, M_k, M_k) generators of the gauge that the atoms keep, where s = 1
    """

    is_open: bool
    structure: SAEStructure
    atoms: Index
    rows: Index
    incidence: MeetsBlock
    columns: Index
    places: Index
    outer: Index
    generators: Array

    @cached_property
    def _at(self) -> tuple[Index, Index]:
        return self.rows[:, None], self.columns[self.incidence.block]

    def xi(self, xi: Array) -> Array:
        """What the rows have of xi (N, q) of all rows: (n, q) of their own."""
        own: Array = xi[self._at]
        return own

    def put_xi(self, xi: Array, own: Array) -> None:
        """Put it there."""
        xi[self._at] = own

    def own(self, packed: Array) -> Array:
        """What the rows have of packed tangents (N, w): (n, q) of their own."""
        mine: Array = packed[self.rows, : self.columns.shape[1]]
        return mine

    def put_own(self, packed: Array, own: Array) -> None:
        """Put it there."""
        packed[self.rows, : self.columns.shape[1]] = own

    def beta(self, beta: Array) -> Array:
        """What the rows meet of decoders (M, p): (k, m + 1, p)."""
        met: Array = beta[self.places]
        return met

    def add_beta(self, beta: Array, met: Array) -> None:
        """Add to decoders (M, p) what all rows add to what they meet."""
        beta[self.places[:, :-1]] += met[:, :-1]
        beta[-1] += met[:, -1].sum(axis=0)

    def spans(self, met: Array) -> Array:
        """Orthonormal bases (k, p, r) of what decoders (k, m + 1, p) have beside constants."""
        constant = np.zeros(met.shape[1], bool)
        constant[[where.start for where in self.structure.layout.basis_slices]] = True
        constant &= not self.generators[:, :, :1].any()
        constant[-1] = True
        curve = met[:, ~constant].swapaxes(1, 2)
        if not curve.shape[2]:
            return curve
        return np.asarray(np.linalg.qr(curve)[0], float)

    def theta(self, theta: Theta) -> Theta:
        """The state of the rows, with the decoders that they meet."""
        return Theta(self.xi(theta.xi), self.beta(theta.beta))

    def state(self, theta: Theta, rho: Array) -> SAEState:
        """The rows at a state of the whole."""
        own = self.theta(theta)
        return SAEState(self.structure, own, rho[self.outer], self.spans(own.beta), self.incidence)


def width(kinds: Sequence[Kind]) -> int:
    """Columns of packed tangents."""
    return max(kind.columns.shape[1] for kind in kinds)


def packed(kinds: Sequence[Kind], xi: Array) -> Array:
    """What rows carry of xi (N, q), (N, w)."""
    out = np.zeros((len(xi), width(kinds)))
    for kind in kinds:
        kind.put_own(out, kind.xi(xi))
    return out


def unpacked(kinds: Sequence[Kind], own: Array, q: int) -> Array:
    """Packed tangents (N, w) with a column for every parameter, (N, q)."""
    out = np.zeros((len(own), q))
    for kind in kinds:
        kind.put_xi(out, kind.own(own))
    return out


def retract_kinds(kinds: Sequence[Kind], theta: Theta, step: Theta, factor: float) -> Theta:
    """Move along a packed step; see `SAEStructure.retract`."""
    xi, beta = theta.xi.copy(), theta.beta + factor * step.beta
    for kind in filter(lambda kind: kind.is_open, kinds):
        own, move = kind.xi(theta.xi), factor * kind.own(step.xi)
        moved = own + move
        for j, rows in kind.incidence:
            where = kind.places[j, :-1]
            moved[rows, 1:], beta[where] = move_atom(
                kind.structure.atoms[0], own[rows, 1:], theta.beta[where], move[rows, 1:],
                factor * step.beta[where])
        kind.put_xi(xi, moved)
    return Theta(xi, beta)


_KNOWN: WeakKeyDictionary[SAEStructure, list[Kind]] = WeakKeyDictionary()


def kinds_of(structure: SAEStructure) -> list[Kind]:
    """The kinds of sets of atoms that rows use, where they have these alone; else none."""
    if structure not in _KNOWN:
        _KNOWN[structure] = _kinds(structure) if uses_own_atoms(structure) else []
    return _KNOWN[structure]


def _kinds(structure: SAEStructure) -> list[Kind]:
    owned = {term.atom for term in structure.row_terms if term.atom >= 0}
    kept: list[list[tuple[int, Array]]] = [[] for _ in structure.atoms]
    for k, number, generator in structure.symmetries:
        kept[k].append((number, generator))
    kind_of: dict[object, int] = {}
    labels = [kind_of.setdefault((atom, tuple(number for number, _ in kept[k]),
                                  k if k in owned else -1), len(kind_of))
              for k, atom in enumerate(structure.atoms)]
    used, rows_of = _sets(structure)
    groups: dict[object, list[int]] = {}
    members = [sorted(np.flatnonzero(own).tolist(), key=lambda k: (labels[k], k)) for own in used]
    for number, atoms in enumerate(members):
        groups.setdefault(tuple(labels[k] for k in atoms), []).append(number)
    out = []
    for key, sets in groups.items():
        is_open = key != ()
        own = [members[number] if is_open else [0] for number in sets]
        generators = kept[own[0][0]] if len(own[0]) == 1 and is_open else []
        out.append(_kind(structure, own, [rows_of[number] for number in sets],
                         [generator for _, generator in generators], is_open))
    return out


def _sets(structure: SAEStructure) -> tuple[Mask, list[Index]]:
    """Sets of atoms (k, K) that rows use, with their rows; where rows use one, every atom is one.

    Those of atoms come first, in their order, and last that of no atoms.
    """
    if uses_one_atom(structure):
        n_atoms = len(structure.atoms)
        own = np.where(structure.active.any(axis=1), structure.active.argmax(axis=1), n_atoms)
        used = np.eye(n_atoms + 1, n_atoms, dtype=bool)
        counts = np.bincount(own, minlength=n_atoms + 1)
    else:
        used, own, counts = np.unique(
            ~structure.active, axis=0, return_inverse=True, return_counts=True)
        used, own = ~used, own.ravel()
    rows = np.split(np.argsort(own, kind="stable"), np.cumsum(counts)[:-1])
    return (used, rows) if used[-1].any() or len(rows[-1]) else (used[:-1], rows[:-1])


def _kind(
    structure: SAEStructure, sets: Sequence[Sequence[int]], parts: Sequence[Index],
    generators: Sequence[Array], is_open: bool,
) -> Kind:
    """The kind of some sets of atoms, of which ``parts`` are the rows."""
    first, layout = list(sets[0]), structure.layout
    rows = np.concatenate(parts)
    terms = [term for term in structure.row_terms if term.atom in (-1, *first)]
    everything = np.arange(len(structure.outer))
    outer = [everything[term.where] for term in terms] + [everything[structure.outer.psi]]
    columns = [np.concatenate([own, *(_range(structure.coordinate_columns(k)) for k in own)])
               for own in sets]
    places = [np.concatenate([*(_range(layout.basis_slices[k]) for k in own),
                              [layout.basis_size - 1]]) for own in sets]
    own = SAEStructure(
        structure.Z[rows], [structure.atoms[k] for k in first],
        _alone(structure, terms, rows, first), np.full((len(rows), len(first)), is_open),
        assignment=TopK(len(first), len(first)), unit=structure.unit, symmetries=[],
        family=structure.family.restrict(rows, structure.shape), offset=structure.offset,
        noise=structure.noise, metrics=structure.metrics[rows])
    size = structure.atoms[first[0]].basis_size
    return Kind(is_open, own, np.array(sets), rows, MeetsBlock(np.array([*map(len, parts)])),
                np.array(columns, np.intp), np.array(places, np.intp), np.concatenate(outer),
                np.array(generators).reshape(-1, size, size))


def _range(where: slice) -> Index:
    return np.arange(where.start, where.stop)


def _alone(
    structure: SAEStructure, terms: Sequence[PenaltyTerm], rows: Index, atoms: Sequence[int]
) -> list[PenaltyTerm]:
    """Terms of some rows, of which every one is on all atoms or on one of those that there are."""
    return [replace(structure.restricted(term, rows),
                    atom=atoms.index(term.atom) if term.atom >= 0 else -1) for term in terms]
