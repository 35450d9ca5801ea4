"""Rows whose atoms are known, each in the span of its own decoder.

A Gaussian likelihood knows of a row z of atom k its projection Q^T z on an orthonormal basis of the
decoder's rows, and the length of the rest, which no parameter of the row changes:

    |z - f B|^2 = |Q^T z - f B Q|^2 + |z - Q Q^T z|^2

So the rows of one kind are those of a model with M + 1 columns, the last of them that length, and
all that the engine computes of rows at given decoders is the same there but for the constant
(1/2) log(2 pi phi) of the columns that are gone. No array is as wide as the data or as all atoms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import numpy as np

from reml_sae.engine.protocol import Theta
from reml_sae.families.noise import Isotropic
from reml_sae.linalg import MeetsBlock
from reml_sae.models.sae.rows import (
    RowBatch,
    decrements_of,
    evidence_of,
    objective_of,
    over_batch,
    refine_batch,
)
from reml_sae.models.sae.single.kinds import Kind, kinds_of
from reml_sae.models.sae.single.summed import RowSums
from reml_sae.models.sae.state import SAEState
from reml_sae.models.sae.structure import SAEStructure
from reml_sae.rows import RowMap, RowResult
from reml_sae.typing import Array, Index


@dataclass(frozen=True, eq=False)
class OwnSpans:
    """The spans of all decoders of a structure whose rows use one atom each.

    Attributes
    ----------
    structure : SAEStructure
    beta : (M, p) array
    rho : (n_rho,) array
    kinds : tuple of Kind
    frames : tuple of (k, p, r) arrays
        Q of the atoms of every kind.
    """

    structure: SAEStructure
    beta: Array
    rho: Array
    kinds: tuple[Kind, ...]
    frames: tuple[Array, ...]

    @classmethod
    def of(cls, structure: SAEStructure, beta: Array, rho: Array) -> Self:
        """Of decoders with no intercept beside them."""
        atom = np.eye(1, len(structure.atoms), dtype=bool)
        one = structure.with_changes(Z=np.zeros((1, structure.shape[1])), active=atom,
                                     metrics=np.zeros(1, np.intp))
        kinds = tuple(kinds_of(one))
        frames = tuple(np.linalg.qr(beta[kind.places[:, :-1]].swapaxes(1, 2))[0] for kind in kinds)
        return cls(structure, beta, rho, kinds, frames)

    @property
    def _phi(self) -> float:
        return self.structure.scale_floor(self.rho)

    def project(self, data: Array, labels: Index) -> Array:
        """Rows (n, p) in the spans of their atoms and beside them: (n, r + 1) of the widest kind.

        Shorter ones are filled up with zeros.
        """
        out = np.zeros((len(data), 1 + max(Q.shape[2] for Q in self.frames)))
        for number, Q in enumerate(self.frames):
            rows, counts = self._sorted(number, labels)
            own = data[rows]
            inside = MeetsBlock(counts).apply(own, Q)
            rest = np.einsum("np,np->n", own, own) - np.einsum("nr,nr->n", inside, inside)
            r = Q.shape[2]
            out[rows, :r], out[rows, r] = inside, np.sqrt(np.maximum(rest, 0.0))
        return out

    def _sorted(self, number: int, labels: Index) -> tuple[Index, Index]:
        """Rows of a kind by atom, and how many every atom has."""
        atoms = self.kinds[number].atoms[:, 0]
        place = np.full(len(self.structure.atoms), -1)
        place[atoms] = np.arange(len(atoms))
        own = place[labels]
        rows = np.flatnonzero(own >= 0)
        rows = rows[np.argsort(own[rows], kind="stable")]
        return rows, np.bincount(own[rows], minlength=len(atoms))

    def moments(self, projected: Array, labels: Index) -> list[tuple[Index, Array, Array, Array]]:
        """Of projected rows (n, r + 1), for the atoms of every kind.

        Returns
        -------
        list of (counts (k,), sums (k, r), squares (k, r, r), squared lengths beside (k,))
        """
        out = []
        for number, Q in enumerate(self.frames):
            rows, counts = self._sorted(number, labels)
            own, meets = projected[rows, :Q.shape[2] + 1], MeetsBlock(counts)
            squares = meets.sums(own, own)
            sums = meets.sums(np.ones((len(own), 1)), own)[:, 0]
            out.append((counts, sums[:, :-1], squares[:, :-1, :-1], squares[:, -1, -1]))
        return out

    def rows(
        self, projected: Array, labels: Index, amplitudes: Array, points: Array, row_map: RowMap
    ) -> list[LabelledRows]:
        """Projected rows (n, r + 1) of every kind, at their amplitudes (n,) and points (n, d)."""
        return [self._of_kind(number, projected, labels, amplitudes, points, row_map)
                for number in range(len(self.kinds))]

    def _of_kind(
        self, number: int, projected: Array, labels: Index, amplitudes: Array, points: Array,
        row_map: RowMap,
    ) -> LabelledRows:
        kind, Q = self.kinds[number], self.frames[number]
        rows, counts = self._sorted(number, labels)
        width, meets = Q.shape[2] + 1, MeetsBlock(counts)
        beta = np.zeros((*kind.places.shape, width))
        beta[:, :-1, :-1] = self.beta[kind.places[:, :-1]] @ Q
        structure = replace(
            kind.structure, Z=projected[rows, :width], active=np.ones((len(rows), 1), bool),
            offset=np.zeros(width), noise=Isotropic(width), metrics=np.zeros(len(rows), np.intp),
            row_map=row_map)
        kind = replace(kind, structure=structure, rows=rows, incidence=meets)
        d = structure.atoms[0].latent_dim
        xi = np.column_stack([np.log(np.maximum(amplitudes[rows], np.finfo(float).tiny)),
                              points[rows, :d]])
        batch = RowBatch(structure, Theta(xi, beta), self.rho[kind.outer], kind.spans(beta), meets,
                         np.zeros(len(rows)))
        gone = self.structure.shape[1] - width
        constant = gone * (0.5 * np.log(2.0 * np.pi * self._phi) + np.log(self.structure.unit))
        return LabelledRows(kind, batch, Q, constant, self.structure.assignment.log_patterns())


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Rows of the atoms of one kind.

    Attributes
    ----------
    kind : Kind
        Its rows are numbers among all rows, sorted by atom.
    batch : RowBatch
    frames : (k, p, r) array
    constant : float
        Nats of a row for the columns that are gone.
    log_patterns : float
        `Assignment.log_patterns` of all atoms.
    """

    kind: Kind
    batch: RowBatch
    frames: Array
    constant: float
    log_patterns: float

    def refined(self, n_steps: int) -> LabelledRows:
        """The rows at their modes, by so many Newton steps at most."""
        xi = over_batch(self.batch, partial(refine_batch, n_steps))
        return replace(self, batch=self.batch.at(xi))

    def _each(self, task: Callable[[RowBatch], RowResult]) -> Array:
        return over_batch(self.batch, task)

    def objectives(self) -> Array:
        """`row_objective`, (n,)."""
        return self._each(objective_of) + self.constant

    def evidence(self) -> Array:
        """`row_evidence`, (n,)."""
        return self._each(evidence_of) + self.constant

    def decrements(self) -> Array:
        """`row_decrements`, (n,)."""
        return self._each(decrements_of)

    def residuals(self) -> Array:
        """Squared lengths (n,) of what curves leave of the rows."""
        return self._each(_residuals)

    def from_centres(self) -> Array:
        """Squared distances (n,) from the constants of the rows' atoms."""
        centres = self.batch.incidence.of_rows(self.batch.theta.beta[:, :1])[:, 0]
        return np.asarray(((self.batch.structure.Z - centres) ** 2).sum(axis=1))

    def sums(self) -> RowSums:
        """What the rows have of V, with the constant of their units."""
        task = partial(_sums, self.kind, self.log_patterns)
        parts = [RowResult((), (sums,)) for sums in self.batch.structure.row_map.map(
            task, self.batch.chunks())]
        total = parts[0].sums[0]
        for part in parts[1:]:
            total = total + part.sums[0]
        n = len(self.kind.rows)
        unit = n * self.batch.structure.shape[1] * np.log(self.batch.structure.unit)
        kinds = tuple(replace(own, spans=self.frames @ own.spans[:, :-1]) for own in total.kinds)
        return replace(total, value=total.value + n * self.constant + float(unit), kinds=kinds)


def _residuals(batch: RowBatch) -> RowResult:
    features = batch.structure.scaled_basis(batch.theta)[1]
    left = batch.structure.Z - batch.incidence.apply(features, batch.theta.beta)
    return RowResult(((left**2).sum(axis=1),))


def _sums(kind: Kind, log_patterns: float, batch: RowBatch) -> RowSums:
    assert isinstance(batch.incidence, MeetsBlock)
    own = replace(kind, structure=batch.structure, incidence=batch.incidence)
    state = SAEState(batch.structure, batch.theta, batch.rho, batch.span, batch.incidence)
    return RowSums.of_kind(own, state, log_patterns)
