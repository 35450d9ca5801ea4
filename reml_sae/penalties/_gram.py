"""Penalties that are functions of the Gram matrix, P = w h(G) with G = T^T T for T (n, d).

dG = X^T T + T^T X along X. With h' the gradient in G (symmetric) and h'' its derivative

    gradient   2 w T h'
    Hessian    X -> 2 w X h' + 2 w T h''[dG]

so both the Hessian and the majorizers have one block for every row and a low rank across rows:

    B = w (I_n (x) first + U core U^T),   U_c = 2 T S_c,   <U_c, X> = <S_c, dG>

for fixed symmetric matrices S_c that span what h'' acts on (`Directions`); first and core are
functions of G. The Hessian has first = 2 h' and core_ce = <S_c, h''[S_e]>.

A kind may ask for a `frame`, an orthogonal Q that depends on T: all of this then holds for T Q, and
U_c = 2 T Q S_c Q^T. B does not depend on Q; its rounding errors do, where G is ill conditioned.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from reml_sae.penalties._curvature import RowCurvature, RowInverse
from reml_sae.penalties._matrix import MatrixPenalty
from reml_sae.typing import Array, Curvature, Index

Matrix: TypeAlias = Array | sp.csr_array
"""(d, d) or (c, c): dense, or sparse where the kind touches few entries."""

CHUNK = 1 << 22


@dataclass(frozen=True)
class Directions:
    """Symmetric matrices S_c as a list of entries S_index[row, column] = value.

    Every column of every S_c has one entry at most.

    Attributes
    ----------
    count : int
        How many matrices, c.
    width : int
        d.
    index, row, column : (e,) integers
    value : (e,)
    """

    count: int
    width: int
    index: Index
    row: Index
    column: Index
    value: Array

    @classmethod
    def pairs(cls, a: ArrayLike, b: ArrayLike, width: int, off: float = np.sqrt(0.5)) -> Self:
        """One matrix for each pair a <= b, with ``off`` at (a, b) and (b, a) or one at (a, a).

        With the default they are orthonormal.
        """
        a, b = np.asarray(a, np.intp), np.asarray(b, np.intp)
        both = np.flatnonzero(a != b)
        index = np.concatenate([np.arange(len(a)), both])
        return cls(len(a), width, index, np.concatenate([a, b[both]]),
                   np.concatenate([b, a[both]]), np.where((a != b)[index], off, 1.0))

    @classmethod
    def traces(cls, group_of: Index) -> Self:
        """One identity for each group of columns; ``group_of`` (d,) gives the group of each."""
        columns = np.arange(len(group_of))
        return cls(int(group_of.max()) + 1, len(group_of), group_of, columns, columns,
                   np.ones(len(group_of)))

    def join(self, other: Directions) -> Directions:
        """Both lists, one after the other."""
        return Directions(
            self.count + other.count, self.width,
            np.concatenate([self.index, self.count + other.index]),
            *(np.concatenate([getattr(self, name), getattr(other, name)])
              for name in ("row", "column", "value")))

    def coordinates(self, V: Array, T: Array) -> Array:
        """<S_c, V^T T + T^T V> = <U_c, V>, (c,)."""
        entries = products(V, T, self.row, self.column)
        return sums(2.0 * self.value * entries, self.index, self.count)

    def combine(self, y: Array) -> Matrix:
        """The matrix sum_c y_c S_c, (d, d)."""
        return assemble(self.value * y[self.index], self.row, self.column, self.width)

    def columns_of(self, T: Array) -> Array:
        """U_c = 2 T S_c, (c, n, d)."""
        out = np.zeros((self.count, len(T), self.width))
        out[self.index, :, self.column] = 2.0 * self.value[:, None] * T.T[self.row]
        return out

    def weighted_sum(self, Z: Array) -> Array:
        """The matrix sum_c Z_c S_c, (n, d), for Z (c, n, d)."""
        entries = np.arange(len(self.row))
        select = sp.csr_array((self.value, (self.column, entries)), (self.width, len(entries)))
        return (select @ Z[self.index, :, self.row]).T

    def diagonal(self, T: Array, core: Matrix) -> Array:
        """Diagonal of U core U^T, (n, d)."""
        out = np.zeros_like(T)
        order = np.argsort(self.column, kind="stable")
        for entries in np.split(order, np.cumsum(np.bincount(self.column))[:-1]):
            if len(entries):
                index, factor = self.index[entries], 2.0 * self.value[entries]
                U = T[:, self.row[entries]] * factor
                part = core[index][:, index]
                out[:, self.column[entries[0]]] = np.einsum("ne,ne->n", U @ part, U)
        return out


def sums(values: Array, index: Index, count: int) -> Array:
    """Sums of the values of every index, (count,)."""
    return np.asarray(np.bincount(index, values, count), float)


def products(V: Array, T: Array, row: Index, column: Index) -> Array:
    """Entries of V^T T, (e,), for V and T (n, d)."""
    if _is_dense(len(row), T.shape[1]):
        return (V.T @ T)[row, column]
    step = max(1, CHUNK // max(len(T), 1))
    return np.concatenate([np.einsum("ne,ne->e", V[:, row[i:i + step]], T[:, column[i:i + step]])
                           for i in range(0, len(row), step)])


def assemble(values: Array, row: Index, column: Index, width: int) -> Matrix:
    """The matrix with these entries, (d, d); those of one place add up."""
    out = sp.csr_array((values, (row, column)), (width, width))
    return out.toarray() if _is_dense(len(row), width) else out


def _is_dense(entries: int, width: int) -> bool:
    """Whether a dense (d, d) matrix costs little more than the entries."""
    return 4 * entries >= width**2


def all_pairs(width: int) -> Directions:
    """An orthonormal basis of the symmetric (d, d) matrices, c = d (d + 1) / 2."""
    return Directions.pairs(*np.triu_indices(width), width)


class GramPenalty(MatrixPenalty):
    """P = w h(T^T T).

    A subclass gives the directions and, as functions of the matrix view T (n, d) in its frame and
    without the strength, the four ``gram_`` methods.
    """

    @property
    @abstractmethod
    def directions(self) -> Directions:
        """The matrices S_c."""

    @abstractmethod
    def gram_value(self, T: Array) -> float:
        """The function h itself."""

    @abstractmethod
    def gram_first(self, T: Array, which: Curvature) -> Matrix:
        """The block of every row, (d, d); 2 h' where exact."""

    @abstractmethod
    def gram_core(self, T: Array, which: Curvature) -> Matrix:
        """The core, (c, c); <S_c, h''[S_e]> where exact."""

    @abstractmethod
    def gram_vjp(self, T: Array, W: Array, K: Array, which: Curvature) -> Matrix:
        """Symmetric gradient (d, d) in G of <W, first> + <K, core>, for symmetric W and K."""

    def frame(self, T: Array) -> Array | None:
        """Orthogonal Q, (d, d), in whose columns the kind works; None for the identity.

        With a frame the kind gives its own ``psd_majorizer_diag``.
        """
        return None

    def value(self, target: Array, rho: Array) -> float:
        """P, strength folded in."""
        return self.strength(rho) * self.gram_value(self._framed(target)[0])

    def row_gradient(self, target: Array, rho: Array) -> Array:
        """2 w T h', (n, d)."""
        T, Q = self._framed(target)
        return self.strength(rho) * _turn(T @ self.gram_first(T, "exact"), Q, back=True)

    def curvature(self, target: Array, rho: Array, which: Curvature) -> RowCurvature:
        """Equal blocks and the columns U; the columns take (c, n, d)."""
        w, (T, Q) = self.strength(rho), self._framed(target)
        first, core = _dense(self.gram_first(T, which)), _dense(self.gram_core(T, which))
        first = _turn(_turn(first, Q, back=True).T, Q, back=True)
        return RowCurvature(np.broadcast_to(w * first, (len(T), *first.shape)),
                            columns=_turn(self.directions.columns_of(T), Q, back=True),
                            core=w * core)

    def curvature_vjp(
        self, target: Array, rho: Array, G: RowInverse, which: Curvature
    ) -> Array:
        """Gradient (n, d): through the Gram matrix, and through T in the columns U = 2 T S."""
        T, Q = self._framed(target)
        inverse_U = _turn(G.columns, Q)
        W = _turn(_turn(G.blocks.sum(0), Q).T, Q)
        K = np.tensordot(self.directions.columns_of(T), inverse_U, axes=([1, 2], [1, 2]))
        by_gram = self.gram_vjp(T, 0.5 * (W + W.T), 0.5 * (K + K.T), which)
        by_columns = np.tensordot(_dense(self.gram_core(T, which)), inverse_U, axes=1)
        out = 2.0 * (T @ by_gram) + 4.0 * self.directions.weighted_sum(by_columns)
        return self.strength(rho) * _turn(out, Q, back=True)

    def _framed(self, target: Array) -> tuple[Array, Array | None]:
        T = self.rows(target)
        Q = self.frame(T)
        return _turn(T, Q), Q

    # --- without the columns -----------------------------------------------------------------

    def hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """Exact Hessian times a flat vector, without the columns."""
        return self._product(target, rho, v, "exact")

    def psd_majorizer_hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """Majorizer times a flat vector, without the columns."""
        return self._product(target, rho, v, "majorizer")

    def psd_majorizer_diag(self, target: Array, rho: Array) -> Array:
        """Diagonal of the majorizer, flat, without the columns."""
        T = self.rows(target)
        out = self.directions.diagonal(T, self.gram_core(T, "majorizer"))
        return self.flat(self.strength(rho)
                         * (out + self.gram_first(T, "majorizer").diagonal()))

    def _product(self, target: Array, rho: Array, v: Array, which: Curvature) -> Array:
        T, Q = self._framed(target)
        V = _turn(self.rows(v), Q)
        inner = self.gram_core(T, which) @ self.directions.coordinates(V, T)
        out = V @ self.gram_first(T, which) + 2.0 * (T @ self.directions.combine(inner))
        return self.flat(self.strength(rho) * _turn(out, Q, back=True))


def _turn(X: Array, Q: Array | None, back: bool = False) -> Array:
    """X Q, or X Q^T."""
    return X if Q is None else X @ (Q.T if back else Q)


def _dense(matrix: Matrix) -> Array:
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()


def group_index(groups: tuple[tuple[int, ...], ...]) -> Index:
    """The group of every column, (d,)."""
    out = np.zeros(sum(map(len, groups)), np.intp)
    for g, group in enumerate(groups):
        out[list(group)] = g
    return out
