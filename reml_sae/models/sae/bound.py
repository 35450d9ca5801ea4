"""Penalties of an SAE-manifold with their targets at one state.

Columns are those of the full local parameters x = (z_1 .. z_K, t_1 .. t_D) of `mixture`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reml_sae.engine.protocol import Theta
from reml_sae.models.sae.structure import SAEStructure
from reml_sae.models.sae.terms import PenaltyTerm
from reml_sae.penalties import MatrixPenalty, RowCurvature
from reml_sae.typing import Array, Curvature, Index

NOWHERE: Index = np.zeros(0, np.intp)
SATURATED = 700.0
"""Logit of a gate that is open, to the last bit."""


@dataclass(frozen=True)
class Bound:
    """A term with its target at one state.

    Attributes
    ----------
    term : PenaltyTerm
    target : array
        As the penalty takes it: (n, d) rows, or the decoder (M_k, p).
    rho : (rho_count,) array
    rows : (n,) rows that carry it; empty for decoders
    columns : (n, d) columns of x; empty for decoders
    where : slice
        Rows of beta; empty for the others.
    """

    term: PenaltyTerm
    target: Array
    rho: Array
    rows: Index
    columns: Index
    where: slice

    @property
    def penalty(self) -> MatrixPenalty:
        """The term's penalty."""
        penalty: MatrixPenalty = self.term.penalty
        return penalty

    @property
    def at(self) -> tuple[Index, Index]:
        """Index of the target's entries in an array over x, (n, d)."""
        return self.rows[:, None], self.columns

    @property
    def pairs(self) -> tuple[Index, Index, Index]:
        """Index of the pairs of entries of each row in blocks over x, (n, d, d)."""
        return self.rows[:, None, None], self.columns[:, :, None], self.columns[:, None, :]

    def value(self) -> float:
        """Value of the penalty at the target."""
        return self.penalty.value(self.target, self.rho)

    def log_partition(self) -> tuple[float, Array] | None:
        """Log partition of the penalty, and its gradient in its own rho; None where improper."""
        return self.penalty.log_partition(self.rho, len(self.penalty.rows(self.target)))

    def curvature(self, which: Curvature) -> RowCurvature:
        """Curvature of the penalty at the target."""
        return self.penalty.curvature(self.target, self.rho, which)


@dataclass(frozen=True)
class CoupledRows:
    """Penalty curvature between rows, in full local parameters.

    Attributes
    ----------
    heads, tails : (e,) rows that an edge couples
    edges : (e, q, q) blocks between them
    columns : (c, N, q) low-rank columns
    core : (c, c)
    """

    heads: Index
    tails: Index
    edges: Array
    columns: Array
    core: Array


@dataclass(frozen=True)
class ManifoldPrior:
    """The coordinate prior of one atom, of the rows that carry it.

    Attributes
    ----------
    rows : (n,) rows
    columns : slice
        Columns of x.
    jet : tuple of arrays
        Negative log density (n,) up to its partition, and its derivatives in t.
    """

    rows: Index
    columns: slice
    jet: tuple[Array, ...]


def log_partition(bounds: Sequence[Bound], n_rho: int) -> tuple[float, Array]:
    """Log partition of those penalties that are proper, and its gradient in rho (n_rho,)."""
    value, gradient = 0.0, np.zeros(n_rho)
    for bound in bounds:
        partition = bound.log_partition()
        if partition is not None:
            value += partition[0]
            gradient[bound.term.where] += partition[1]
    return value, gradient


def manifold_priors(structure: SAEStructure, theta: Theta, order: int) -> list[ManifoldPrior]:
    """Priors of all coordinates that no penalty takes over."""
    out, has_prior = [], structure.has_manifold_prior
    for k, atom in enumerate(structure.atoms):
        if has_prior[k]:
            where = structure.layout.coordinate_slices[k]
            rows = np.flatnonzero(structure.active[:, k])
            if not rows.size:
                continue
            jet = atom.prior_jet(theta.xi[rows, structure.coordinate_columns(k)], order)
            out.append(ManifoldPrior(
                rows, slice(structure.assignment.n_atoms + where.start,
                            structure.assignment.n_atoms + where.stop), jet))
    return out


def bind_rows(structure: SAEStructure, term: PenaltyTerm, theta: Theta, rho: Array) -> Bound:
    """A term on logits, amplitudes or coordinates with its target at a state."""
    k_atoms = structure.assignment.n_atoms
    nothing = slice(0, 0)
    if term.target == "amplitudes":
        mine = structure.is_open if term.atom < 0 else (
            structure.is_open & (np.arange(k_atoms) == term.atom))
        rows, atoms = np.nonzero(mine)
        target = structure.logits(theta)[rows, atoms][:, None]
        return Bound(term, target, term.rho(rho), rows, atoms[:, None], nothing)
    if term.target == "logits":
        target = structure.logits(theta)
        rows, inside = np.arange(len(target)), np.arange(k_atoms)
    else:
        rows = np.flatnonzero(structure.active[:, term.atom])
        target = theta.xi[rows, structure.coordinate_columns(term.atom)]
        where = structure.layout.coordinate_slices[term.atom]
        inside = k_atoms + np.arange(where.start, where.stop)
        term = structure.restricted(term, rows)
    return Bound(term, target, term.rho(rho), rows,
                 np.broadcast_to(inside, (len(rows), len(inside))), nothing)


def bind_gates(structure: SAEStructure, term: PenaltyTerm, rho: Array) -> Bound:
    """The prior on which atoms rows use, at binary gates: it moves with rho alone."""
    target = np.where(structure.is_open, SATURATED, -SATURATED)
    return Bound(term, target, term.rho(rho), NOWHERE, NOWHERE, slice(0, 0))
