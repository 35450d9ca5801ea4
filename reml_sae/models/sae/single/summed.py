"""V of rows that use one atom each, from sums over chunks of them.

At given decoders all that such rows have of V is a sum over rows: F, their normalisers, what
Laplace's method misses, (1/2) log|D_i|, and for every atom the two terms of its block of the Schur
complement, sum phi phi^T and sum C^T D^-1 C inside its own span. So V is that of `single.point`,
and no array is as long as all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from reml_sae.engine.protocol import Theta
from reml_sae.linalg import BlockFactor, EliminatedRows, NestedBorder
from reml_sae.models.sae.decoder_prior import PlacedScale, placed_scales, volumes, with_scales
from reml_sae.models.sae.gauge import Gauge, at_its_phase
from reml_sae.models.sae.outside import Outside
from reml_sae.models.sae.single.kinds import Kind, kinds_of
from reml_sae.models.sae.state import SAEState
from reml_sae.models.sae.structure import SAEStructure, log_permutations
from reml_sae.typing import Array, Index


@dataclass(frozen=True, eq=False)
class KindSums:
    """Sums over the rows of the atoms of one kind.

    Attributes
    ----------
    atoms : (k,) numbers among all atoms
    places : (k, m + 1) rows of beta that they meet, the intercept last
    generators : (c, m, m) generators of the gauge that the atoms keep
    spans : (k, p, r) array
    counts : (k,) rows of every atom
    gram : (k, m + 1, m + 1) the data's part of the Gram matrix
    blur : (k, m, m) C of `outside`
    coupling : (k, m + 1, r, m + 1, r) C^T D^-1 C
    """

    atoms: Index
    places: Index
    generators: Array
    spans: Array
    counts: Index
    gram: Array
    blur: Array
    coupling: Array

    @classmethod
    def of(cls, kind: Kind, state: SAEState) -> Self:
        """Of the rows of a kind at a state."""
        assert state.precision is not None
        jacobians = np.sqrt(state.row_weight)[:, None, None] * state.jacobian
        rows = EliminatedRows(state.row_hessian("majorizer"), state.scaled_features, jacobians,
                              state.precision, kind.incidence)
        return cls(kind.atoms[:, 0], kind.places, kind.generators, state.span,
                   kind.incidence.counts, state.data_gram, state.outside_rows(0).gram(),
                   rows.coupling())

    def __add__(self, other: KindSums) -> KindSums:
        """Of both groups of rows."""
        return replace(self, counts=self.counts + other.counts, gram=self.gram + other.gram,
                       blur=self.blur + other.blur, coupling=self.coupling + other.coupling)


@dataclass(frozen=True, eq=False)
class RowSums:
    """What rows have of V at given decoders.

    Attributes
    ----------
    value : float
        F, (1/2) log|D_i|, the log partitions and what Laplace's method misses, less
        (1/2) log 2 pi for every parameter of the rows.
    edf : float
        Their effective degrees of freedom where the decoders are known.
    n_rows : int
    kinds : tuple of KindSums
    """

    value: float
    edf: float
    n_rows: int
    kinds: tuple[KindSums, ...]

    @classmethod
    def of(cls, structure: SAEStructure, theta: Theta, rho: Array) -> Self:
        """Of the rows of a structure, at modes of theirs."""
        patterns = structure.assignment.log_patterns()
        every = cls.of_kinds([cls.of_kind(kind, kind.state(theta, rho), patterns)
                              for kind in kinds_of(structure)])
        return replace(every, value=structure.constant + every.value)

    @classmethod
    def of_kinds(cls, parts: Sequence[RowSums]) -> Self:
        """Of rows of all kinds, from those of each."""
        return cls(sum(part.value for part in parts), sum(part.edf for part in parts),
                   sum(part.n_rows for part in parts),
                   tuple(own for part in parts for own in part.kinds))

    @classmethod
    def of_kind(cls, kind: Kind, state: SAEState, log_patterns: float) -> Self:
        """Of the rows of a kind at a state, without the constant of their units."""
        own, blocks = state.structure, state.row_hessian("majorizer")
        value = float(own.family.row_loss(own.Z, state.eta, state.psi).sum())
        value += state.row_prior.value() + state.row_prior.log_partition()[0]
        value += 0.5 * float(np.linalg.slogdet(blocks)[1].sum())
        value += float(state.remainder.values.sum())
        value += len(own.Z) * (log_patterns - own.assignment.log_patterns())
        value -= 0.5 * float(own.carried.sum()) * np.log(2.0 * np.pi)
        prior = state.restrict_blocks(state.row_prior.blocks("majorizer"))
        edf = float(own.carried.sum()) + 2.0 * state.remainder.scaling
        edf -= float(np.einsum("nab,nba->", state.row_inverse, prior))
        return cls(value, edf, len(own.Z), (KindSums.of(kind, state),))

    def __add__(self, other: RowSums) -> RowSums:
        """Of both groups of rows, of the same kinds."""
        return RowSums(self.value + other.value, self.edf + other.edf,
                       self.n_rows + other.n_rows,
                       tuple(a + b for a, b in zip(self.kinds, other.kinds, strict=True)))


@dataclass(frozen=True, eq=False)
class SummedPoint:
    """V at given decoders, and their posterior.

    Attributes
    ----------
    structure : SAEStructure
        Without rows; its decoder penalties are quadratic.
    beta : (M, p) array
    rho : (n_rho,) array
    sums : RowSums
    """

    structure: SAEStructure
    beta: Array
    rho: Array
    sums: RowSums

    @cached_property
    def _grams(self) -> list[Array]:
        """Priors of the decoders and of the intercept."""
        return self.structure.decoder_gram(self.rho)

    @cached_property
    def _scales(self) -> list[PlacedScale]:
        """The terms of g."""
        counts = np.zeros(len(self.structure.atoms))
        for kind in self.sums.kinds:
            counts[kind.atoms] = kind.counts
        return placed_scales(self.structure, counts, self.beta, self.rho, at_modes=True)

    @cached_property
    def _priors(self) -> list[Array]:
        """What the border has at atoms beside their rows: the priors, and the curvature of g."""
        return with_scales(self._grams, self._scales)

    def _outside(self, kind: KindSums) -> float:
        """U of the atoms of a kind."""
        A = kind.gram[:, :-1, :-1]
        P, V, whole = (np.stack([grams[k] for k in kind.atoms])
                       for grams in (self._grams, volumes(self._grams, self._scales), self._priors))
        return Outside(A, kind.blur, P, V, A + whole, self.beta.shape[1]).value

    @cached_property
    def _border(self) -> NestedBorder:
        blocks = []
        for kind in self.sums.kinds:
            gram = kind.gram.copy()
            gram[:, :-1, :-1] += np.stack([self._priors[k] for k in kind.atoms])
            used = (kind.counts > 0)[:, None, None, None]
            tangents = np.einsum("cab,kbp->kcap", kind.generators, self.beta[kind.places[:, :-1]])
            columns = np.sqrt(float(self.sums.n_rows)) * used * (tangents @ kind.spans[:, None])
            blocks.append(BlockFactor(kind.spans, gram, columns, kind.coupling))
        return NestedBorder(blocks, float(self._grams[-1][0, 0]))

    @cached_property
    def criterion(self) -> float:
        """V in nats."""
        structure, p = self.structure, self.beta.shape[1]
        counts = {int(k): int(n) for kind in self.sums.kinds
                  for k, n in zip(kind.atoms, kind.counts, strict=True)}
        used = [k for k in sorted(counts) if counts[k]]
        value = self.sums.value
        for where, gram in zip(structure.layout.blocks, self._grams, strict=True):
            own = self.beta[where]
            value += 0.5 * float(np.vdot(own, gram @ own))
            value -= 0.5 * p * float(np.linalg.slogdet(gram)[1])
        kept = [item for item in structure.symmetries if counts.get(item[0])]
        gauge = Gauge(structure.layout, kept, self.beta, float(self.sums.n_rows))
        value += 0.5 * self._border.logdet() + gauge.volume()[0]
        value += sum(map(self._outside, self.sums.kinds))
        value -= sum(structure.atoms[k].log_multiplicity for k in used)
        return float(value - log_permutations(structure.atoms, used))

    def decoder_posterior(self, k: int) -> tuple[float, Array]:
        """As `SinglePoint.decoder_posterior`."""
        number, block = next((number, int(np.flatnonzero(kind.atoms == k)[0]))
                             for number, kind in enumerate(self.sums.kinds) if k in kind.atoms)
        covariance = self._border.covariance(number, block)
        prior = self._priors[k]
        size = self.structure.atoms[k].basis_size * self.beta.shape[1]
        edf = float(size - np.einsum("oab,ba->", covariance, prior))
        tangents, pulled = self._orbits[number]
        return edf, at_its_phase(covariance, tangents[:, block], pulled[:, block])

    @cached_property
    def _orbits(self) -> list[tuple[Array, Array]]:
        """Tangents (c, k, m, p) of the gauge of every kind, and S^-1 times each in its block."""
        out = []
        for number, kind in enumerate(self.sums.kinds):
            tangents = np.einsum("cab,kbp->ckap", kind.generators, self.beta[kind.places[:, :-1]])
            pulled = [self._border.own_inverse(number, own) for own in tangents]
            out.append((tangents, np.reshape(pulled, tangents.shape)))
        return out
