"""Rows that use one atom each at most, by the kind of their atom (DESIGN H1).

Such a row has the log amplitude and the coordinates of its atom alone, and meets that atom's
decoder and the intercept. Atoms of one kind have the same basis, so their rows together are one
model of one atom, whose decoder is that of the row's own atom: arrays are as wide as an atom, and
nothing but the number of kinds is looped over in the work on rows. Those that use none are a kind
of their own, beside an atom that is shut.

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
from reml_sae.typing import Array, Index


def uses_one_atom(structure: SAEStructure) -> bool:
    """Whether every row has the parameters of one atom at most, and the border is a product.

    Penalties with data of the rows of one atom are for rows: there must be some.
    """
    assignment = structure.assignment
    owned = [term.atom for term in structure.row_terms if term.atom >= 0]
    return (assignment.is_single and assignment.chooses_support and not structure.couples_rows
            and not structure.has_dense_border and len(structure.Z) > 0
            and bool((structure.active.sum(axis=1) <= 1).all())
            and bool(structure.active[:, owned].any(axis=0).all()))


@dataclass(frozen=True, eq=False)
class Kind:
    """Atoms of one kind, with their rows sorted by atom.

    Attributes
    ----------
    is_open : bool
        Whether the rows use the atoms; those that use none are beside one that is shut.
    structure : SAEStructure
        The rows under one atom of the kind.
    atoms : (k,) atoms in the whole structure
    rows : (n,) rows in the whole structure
    incidence : MeetsBlock
        Which of these atoms each of these rows uses.
    columns : (k, q) columns of xi that the rows of an atom have
    places : (k, M_k + 1) rows of beta that they meet, the intercept last
    outer : (n_outer,) places in rho of the outer parameters that they have
    generators : (c, M_k, M_k) generators of the gauge that the atoms keep
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
        """What the rows have of xi (N, q) of all rows: (n, 1 + d)."""
        own: Array = xi[self._at]
        return own

    def put_xi(self, xi: Array, own: Array) -> None:
        """Put it there."""
        xi[self._at] = own

    def own(self, packed: Array) -> Array:
        """What the rows have of packed tangents (N, w): (n, 1 + d)."""
        mine: Array = packed[self.rows, : self.columns.shape[1]]
        return mine

    def put_own(self, packed: Array, own: Array) -> None:
        """Put it there."""
        packed[self.rows, : self.columns.shape[1]] = own

    def beta(self, beta: Array) -> Array:
        """What the rows meet of decoders (M, p): (k, M_k + 1, p)."""
        met: Array = beta[self.places]
        return met

    def add_beta(self, beta: Array, met: Array) -> None:
        """Add to decoders (M, p) what all rows add to what they meet."""
        beta[self.places[:, :-1]] += met[:, :-1]
        beta[-1] += met[:, -1].sum(axis=0)

    def spans(self, met: Array) -> Array:
        """Orthonormal bases (k, p, r) of what decoders (k, M_k + 1, p) have beside constants."""
        first = 0 if self.generators[:, :, :1].any() else 1
        curve = met[:, first:-1].swapaxes(1, 2)
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
    """The kinds of atoms of a structure whose rows use one atom at most; of others, none."""
    if structure not in _KNOWN:
        _KNOWN[structure] = _kinds(structure) if uses_one_atom(structure) else []
    return _KNOWN[structure]


def _kinds(structure: SAEStructure) -> list[Kind]:
    n_atoms = len(structure.atoms)
    labels = np.where(structure.active.any(axis=1), structure.active.argmax(axis=1), n_atoms)
    rows = np.split(np.argsort(labels, kind="stable"),
                    np.cumsum(np.bincount(labels, minlength=n_atoms + 1))[:-1])
    owned = {term.atom for term in structure.row_terms if term.atom >= 0}
    kept: list[list[tuple[int, Array]]] = [[] for _ in range(n_atoms)]
    for k, number, generator in structure.symmetries:
        kept[k].append((number, generator))
    groups: dict[object, list[int]] = {}
    for k, atom in enumerate(structure.atoms):
        numbers = tuple(number for number, _ in kept[k])
        groups.setdefault((atom, numbers, k if k in owned else -1), []).append(k)
    out = [_kind(structure, members, [rows[k] for k in members],
                 [generator for _, generator in kept[members[0]]])
           for members in groups.values()]
    if len(rows[-1]):
        out.append(_kind(structure, [0], rows[-1:], [], is_open=False))
    return out


def _kind(
    structure: SAEStructure, members: Sequence[int], parts: Sequence[Index],
    generators: Sequence[Array], is_open: bool = True,
) -> Kind:
    """The kind of some atoms, of which ``parts`` are the rows."""
    first, size = members[0], structure.atoms[members[0]].basis_size
    rows = np.concatenate(parts)
    terms = [term for term in structure.row_terms if term.atom in (-1, first)]
    everything = np.arange(len(structure.outer))
    outer = [everything[term.where] for term in terms] + [everything[structure.outer.psi]]
    columns = [[k, *range(where.start, where.stop)] for k in members
               for where in [structure.coordinate_columns(k)]]
    places = [[*range(where.start, where.stop), structure.layout.basis_size - 1]
              for where in (structure.layout.basis_slices[k] for k in members)]
    own = SAEStructure(
        structure.Z[rows], [structure.atoms[first]], _alone(structure, terms, rows),
        np.full((len(rows), 1), is_open), assignment=TopK(1), unit=structure.unit, symmetries=[],
        family=structure.family.restrict(rows, structure.shape), offset=structure.offset,
        noise=structure.noise, metrics=structure.metrics[rows])
    return Kind(is_open, own, np.array(members), rows, MeetsBlock(np.array([*map(len, parts)])),
                np.array(columns), np.array(places), np.concatenate(outer),
                np.array(generators).reshape(-1, size, size))


def _alone(
    structure: SAEStructure, terms: Sequence[PenaltyTerm], rows: Index
) -> list[PenaltyTerm]:
    """Terms of some rows, of which every one is on all atoms or on the one that there is."""
    return [replace(structure.restricted(term, rows), atom=min(term.atom, 0)) for term in terms]
