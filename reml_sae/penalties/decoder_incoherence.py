"""Incoherence of the decoders of atoms that are active together.

    P = w/2 sum_{jk} W_jk ||B_j B_k^T||^2 / (||B_j||^2 ||B_k||^2)       over the given pairs

In the view T = (B_1; ..; B_K)^T with G = T^T T, a term is a function of X = G_jk, a = tr G_jj and
b = tr G_kk: h = |X|^2 / (2 a b). With y = X / sqrt(ab), u = dX / sqrt(ab), alpha = da / a,
beta = db / b

    d2h = |u|^2 - 2 (alpha + beta) <y, u> + |y|^2 (alpha^2 + alpha beta + beta^2)
        = |v|^2 - (alpha + beta) <y, v> + |y|^2 (alpha - beta)^2 / 4,   v = u - y (alpha + beta) / 2

Majorizer of that part, since -(alpha + beta) <y, v> <= |v|^2 / 2 + |y|^2 (alpha + beta)^2 / 2:

    3/2 |v|^2 + |y|^2 [(alpha + beta)^2 / 2 + (alpha - beta)^2 / 4]
      = 3/2 |u|^2 - 3/2 (alpha + beta) <y, u> + |y|^2 [9/8 (alpha^2 + beta^2) + 5/4 alpha beta]

The blocks 2 h' hold X / (ab) between j and k and -|y|^2 / a, -|y|^2 / b on the diagonal, which is
dropped; the rest is at most (ab)^{-1/2} [[G_jj / a, G_jk / sqrt(ab)], [., G_kk / b]], a congruence
of G and so positive semidefinite. Everything is a sum of monomials c a^-i b^-j.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy.sparse as sp

from reml_sae.errors import InputError
from reml_sae.penalties import _fields, _gram
from reml_sae.penalties._base import PenaltyTier
from reml_sae.penalties._gram import Directions, GramPenalty, Matrix
from reml_sae.penalties._matrix import Held
from reml_sae.penalties._registry import register
from reml_sae.typing import Array, Curvature, Index

FLOOR = 1e-50
"""Added to the squared norm of every decoder, so that two zero decoders count as incoherent."""

FACTORS: dict[str, tuple[float, float, float, float]] = {
    "exact": (1.0, 1.0, 1.0, 0.5), "majorizer": (1.5, 0.75, 1.125, 0.625)}
"""Of the core, in units W / (ab): u with u, -y alpha with u, |y|^2 alpha^2, |y|^2 alpha beta."""


class _Pairs(NamedTuple):
    X: Array
    """Entries of the cross-Grams, (e,)."""
    a: Array
    """Squared norms of the first decoders, and in b of the second, (pairs,)."""
    b: Array
    square: Array
    """|X|^2, (pairs,)."""


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class DecoderIncoherencePenalty(Held, GramPenalty):
    """Decoders of co-active atoms orthogonal; target: the stacked decoders (M_1 + .. + M_K, p).

    Only the pairs that are named cost anything: nothing is K x K or M x M but the dense
    `curvature`.

    Parameters
    ----------
    block_sizes : list of int
        Basis sizes M_1 .. M_K of at least two atoms.
    pairs : list of [int, int], optional
        Pairs of atoms; all of them by default.
    coactivation : list of float, optional
        W_jk >= 0 of every pair, the mean co-activation; ones by default.
    weight, weight_schedule, learnable
        See `Penalty`.
    """

    block_sizes: Any
    pairs: Any = None
    coactivation: Any = None

    KIND_TAG: ClassVar[str] = "decoder_incoherence"
    PYTHON_WRAPPER: ClassVar[str] = "DecoderIncoherencePenalty"
    TIER: ClassVar[PenaltyTier] = PenaltyTier.BETA
    FORMULA: ClassVar[str] = (
        "w / 2 sum_{jk in pairs} W_jk ||B_j B_k^T||^2 / (||B_j||^2 ||B_k||^2),  W = coactivation")

    def __post_init__(self) -> None:
        sizes = _sizes(self.block_sizes)
        object.__setattr__(self, "block_sizes", sizes)
        if self.pairs is not None:
            pairs = _fields.edge_list("pairs", self.pairs)
            outside = np.flatnonzero((pairs >= len(sizes)).any(axis=1))
            if outside.size:
                raise InputError(
                    f"pairs[{outside[0]}] = {pairs[outside[0]].tolist()} names an atom outside "
                    f"0 .. {len(sizes) - 1}")
            object.__setattr__(self, "pairs", pairs)
        if self.coactivation is not None:
            strengths = _fields.array("coactivation", self.coactivation, 1)
            if len(strengths) != len(self._atoms[0]):
                raise InputError(f"coactivation must hold one number for each of the "
                                 f"{len(self._atoms[0])} pairs, got {len(strengths)}")
            if (strengths < 0.0).any():
                at = int(np.argmax(strengths < 0.0))
                raise InputError(f"coactivation[{at}] must be >= 0, got {strengths[at]:g}")
            object.__setattr__(self, "coactivation", strengths)
        super().__post_init__()

    def acts_on(self) -> str:
        """The decoders of all atoms, stacked."""
        return "decoders"

    def by_output(self) -> bool:
        """True."""
        return True

    def width(self) -> int:
        """M_1 + .. + M_K."""
        return sum(self.block_sizes)

    # --- pattern -----------------------------------------------------------------------------

    @cached_property
    def _atoms(self) -> tuple[Index, Index]:
        """First and second atom of every pair."""
        if self.pairs is None:
            return np.triu_indices(len(self.block_sizes), 1)
        return self.pairs[:, 0], self.pairs[:, 1]

    @cached_property
    def _weights(self) -> Array:
        """W, (pairs,)."""
        if self.coactivation is None:
            return np.ones(len(self._atoms[0]))
        return self.coactivation

    @cached_property
    def _cross(self) -> tuple[Index, Index, Index]:
        """Pair, row and column in G of every entry of the cross-Grams."""
        return _block_entries(self.block_sizes, *self._atoms)

    @cached_property
    def _places(self) -> tuple[Index, Index, Index]:
        """Pair of every X, and where the core holds the squared norms of every pair."""
        pair = self._cross[0]
        return pair, len(pair) + self._atoms[0], len(pair) + self._atoms[1]

    @cached_property
    def _within(self) -> tuple[Index, Index, Index]:
        """Atom, row and column of every entry of the diagonal blocks of G."""
        atoms = np.arange(len(self.block_sizes))
        return _block_entries(self.block_sizes, atoms, atoms)

    @cached_property
    def _group(self) -> Index:
        """Atom of every column of the view, (M,)."""
        return np.repeat(np.arange(len(self.block_sizes)), self.block_sizes)

    @cached_property
    def directions(self) -> Directions:
        """dX of every entry of the pairs, then da of every atom."""
        _, row, column = self._cross
        return Directions.pairs(row, column, self.width(), off=0.5).join(
            Directions.traces(self._group))

    # --- functions of the Gram matrix --------------------------------------------------------

    def _read(self, T: Array) -> _Pairs:
        _, row, column = self._cross
        norms = self._of_atoms(np.einsum("na,na->a", T, T), self._group) + FLOOR
        X = _gram.products(T, T, row, column)
        first, second = self._atoms
        return _Pairs(X, norms[first], norms[second], self._by_pair(X**2))

    def _by_pair(self, entries: Array) -> Array:
        return _gram.sums(entries, self._cross[0], len(self._weights))

    def _of_atoms(self, values: Array, atom: Index) -> Array:
        return _gram.sums(values, atom, len(self.block_sizes))

    def _by_atom(self, first: Array, second: Array) -> Array:
        """Sums over the pairs of every atom, (K,)."""
        return self._of_atoms(np.concatenate([first, second]), np.concatenate(self._atoms))

    def _matrix(self, by_X: Array, by_atom: Array, within: Array) -> Matrix:
        """The gradient in G, (M, M), by those in X, the squared norms and the entries within."""
        lists, (_, row, column) = self.directions, self._within
        y = np.concatenate([by_X, by_atom])
        return _gram.assemble(
            np.concatenate([lists.value * y[lists.index], within]),
            np.concatenate([lists.row, row]), np.concatenate([lists.column, column]), self.width())

    def gram_value(self, T: Array) -> float:
        """sum W |X|^2 / (2 a b)."""
        _, a, b, square = self._read(T)
        return 0.5 * float(self._weights @ (square / a / b))

    def gram_first(self, T: Array, which: Curvature) -> Matrix:
        """2 h', or its majorizer."""
        X, a, b, square = self._read(T)
        pair, (atom, row, column) = self._cross[0], self._within
        cross = 2.0 * (self._weights / a / b)[pair] * X
        if which == "exact":
            level = -self._weights * square / a / b
            return self._matrix(cross, self._by_atom(level / a, level / b), np.zeros(len(row)))
        within = self._majorizer_within(a, b)[atom] * _gram.products(T, T, row, column)
        return self._matrix(cross, np.zeros(len(self.block_sizes)), within)

    def _majorizer_within(self, a: Array, b: Array) -> Array:
        """What multiplies G_jj in the majorizer, (K,)."""
        scale = self._weights / np.sqrt(a) / np.sqrt(b)
        return self._by_atom(scale / a, scale / b)

    def gram_core(self, T: Array, which: Curvature) -> Matrix:
        """Sparse: a pair couples its own X and its two squared norms."""
        X, a, b, square = self._read(T)
        own, mixed, norm, norms = FACTORS[which]
        pair, at_a, at_b = self._places
        entry, scale = np.arange(len(X)), self._weights / a / b
        level = scale * square
        by_a, by_b = (-mixed * (scale / length)[pair] * X for length in (a, b))
        between = norms * level / a / b
        upper = sp.csr_array(
            (np.concatenate([by_a, by_b, between]),
             (np.concatenate([entry, entry, at_a]),
              np.concatenate([at_a[pair], at_b[pair], at_b]))),
            (self.directions.count, self.directions.count))
        diagonal = np.concatenate([own * scale[pair],
                                   self._by_atom(norm * level / a**2, norm * level / b**2)])
        return sp.csr_array(upper + upper.T + sp.diags_array(diagonal))

    def gram_vjp(self, T: Array, W: Array, K: Array, which: Curvature) -> Matrix:
        """By the monomials c a^-i b^-j of <W, first> + <K, core>."""
        X, a, b, square = self._read(T)
        own, mixed, norm, norms = FACTORS[which]
        (_, row, column), (pair, at_a, at_b) = self._cross, self._places
        atom, row_within, column_within = self._within
        W_X, W_within = W[row, column], W[row_within, column_within]
        entry = np.arange(len(X))
        K_a, K_b = K[entry, at_a[pair]], K[entry, at_b[pair]]
        K_aa, K_bb, K_ab = K[at_a, at_a], K[at_b, at_b], K[at_a, at_b]
        terms = [(2.0 * self._by_pair(W_X * X), 1.0, 1.0),
                 (own * self._by_pair(K[entry, entry]), 1.0, 1.0),
                 (-2.0 * mixed * self._by_pair(K_a * X), 2.0, 1.0),
                 (-2.0 * mixed * self._by_pair(K_b * X), 1.0, 2.0),
                 (norm * square * K_aa, 3.0, 1.0), (norm * square * K_bb, 1.0, 3.0),
                 (2.0 * norms * square * K_ab, 2.0, 2.0)]
        by_square = norm * (K_aa / a**3 / b + K_bb / a / b**3) + 2.0 * norms * K_ab / a**2 / b**2
        within = np.zeros(len(row_within))
        first, second = self._atoms
        if which == "exact":
            trace = self._of_atoms(np.diagonal(W), self._group)
            terms += [(-square * trace[first], 2.0, 1.0), (-square * trace[second], 1.0, 2.0)]
            by_square -= trace[first] / a**2 / b + trace[second] / a / b**2
        else:
            inner = self._of_atoms(W_within * _gram.products(T, T, row_within, column_within), atom)
            terms += [(inner[first], 1.5, 0.5), (inner[second], 0.5, 1.5)]
            within = self._majorizer_within(a, b)[atom] * W_within
        by_X = (2.0 * W_X / (a * b)[pair] + 2.0 * by_square[pair] * X
                - 2.0 * mixed * (K_a / (a**2 * b)[pair] + K_b / (a * b**2)[pair]))
        by_a = sum(-i * c * a ** -(i + 1.0) * b**-j for c, i, j in terms)
        by_b = sum(-j * c * a**-i * b ** -(j + 1.0) for c, i, j in terms)
        by_atom = self._by_atom(self._weights * by_a, self._weights * by_b)
        return self._matrix(self._weights[pair] * by_X, by_atom, within)


def _sizes(value: Any) -> tuple[int, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray)) \
            or len(value) < 2:
        raise InputError(f"block_sizes must list two or more basis sizes, got {value!r}")
    return tuple(_fields.integer(f"block_sizes[{k}]", size, 1) for k, size in enumerate(value))


def _block_entries(
    sizes: tuple[int, ...], first: Index, second: Index
) -> tuple[Index, Index, Index]:
    """Block, row and column of every entry of the blocks (first, second) of G."""
    heights, widths = np.array(sizes)[first], np.array(sizes)[second]
    starts = np.cumsum(sizes) - sizes
    block = np.repeat(np.arange(len(first)), heights * widths)
    local = np.arange(len(block)) - (np.cumsum(heights * widths) - heights * widths)[block]
    return (block, starts[first][block] + local // widths[block],
            starts[second][block] + local % widths[block])
