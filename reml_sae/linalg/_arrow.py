"""Symmetric block arrowhead with a dense border (DESIGN A3).

    H = [ D   C ]    D = blockdiag(D_1 .. D_N),  D_i (q_i x q_i),  C_i (q_i x P),  A (P x P)
        [ C^T A ]

    S = A - sum_i C_i^T D_i^-1 C_i,    log|H| = sum_i log|D_i| + log|S|
    solve:            x_b = S^-1 (g_b - sum_i C_i^T D_i^-1 g_i),    x_i = D_i^-1 (g_i - C_i x_b)
    selected inverse: G_bb = S^-1,  G_ib = -D_i^-1 C_i S^-1,  G_ii = D_i^-1 - G_ib C_i^T D_i^-1

Rows of equal size are one group, a stack of blocks; sums over rows run over chunks of a group, so
that working memory beyond the factor is O(chunk).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import numpy as np

from reml_sae.errors import InputError
from reml_sae.linalg._batched import (
    batched_cholesky,
    batched_cholesky_solve,
    batched_inverse,
    batched_solve_lower,
    factor_logdet,
)
from reml_sae.linalg._checks import real_array, row_groups, symmetric_border
from reml_sae.linalg._dense import DenseCholesky
from reml_sae.typing import Array

Rows = TypeVar("Rows", bound=Array | list[Array])
"""Row data: one stack (N, ..), or a list of stacks (n_g, ..), one for each group."""

CHUNK_ELEMENTS = 4_000_000


class ArrowMatrix(Generic[Rows]):
    """Symmetric block arrowhead.

    Rows that differ in size come as a list of groups; row vectors and results then have the same
    form. Rows are numbered through the groups in order.

    Parameters
    ----------
    rows : (N, q, q) array, or list of (n_g, q_g, q_g) arrays
        Diagonal blocks D_i.
    coupling : (N, q, P) array, or list of (n_g, q_g, P) arrays
        C_i.
    border : (P, P) array or scipy.sparse matrix
        A. A sparse border is made dense.

    Raises
    ------
    InputError
        Where shapes do not match, a block is not symmetric, or a value is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> H = ArrowMatrix(2.0 * np.ones((3, 1, 1)), np.ones((3, 1, 1)), np.array([[2.0]]))
    >>> round(H.factorize().logdet(), 6) == round(float(np.linalg.slogdet(H.to_dense())[1]), 6)
    True
    """

    def __init__(self, rows: Rows, coupling: Rows, border: Any):
        self.border: Array = symmetric_border(border, "border")
        self._blocks, self._couplings, self._ragged = row_groups(rows, coupling, len(self.border))

    def __repr__(self) -> str:
        return f"ArrowMatrix(row_groups={self.row_groups}, border_dim={self.border_dim})"

    @property
    def rows(self) -> Rows:
        """D_i, in the form in which they were given."""
        return self._pack(self._blocks)

    @property
    def coupling(self) -> Rows:
        """C_i, in the form in which they were given."""
        return self._pack(self._couplings)

    @property
    def row_groups(self) -> tuple[tuple[int, int], ...]:
        """(n_g, q_g) of every group: its number of rows and their size."""
        return tuple((b.shape[0], b.shape[1]) for b in self._blocks)

    @property
    def n_rows(self) -> int:
        """Number of row blocks N."""
        return sum(n for n, _ in self.row_groups)

    @property
    def border_dim(self) -> int:
        """Size P of the border."""
        return len(self.border)

    @property
    def dim(self) -> int:
        """Number of rows of the whole matrix."""
        return sum(n * q for n, q in self.row_groups) + self.border_dim

    def matvec(self, x_rows: Rows, x_border: Array) -> tuple[Rows, Array]:
        """H x.

        Parameters
        ----------
        x_rows : (N, q) or (N, q, k) array, or list of such groups
        x_border : (P,) or (P, k) array

        Returns
        -------
        tuple of the same shapes
        """
        groups, border, flat = self._vectors(x_rows, x_border, "x")
        rows, out = [], self.border @ border
        for d, c, x in zip(self._blocks, self._couplings, groups, strict=True):
            rows.append(d @ x + c @ border)
            out += _towards_border(c, x)
        return self._unvectors(rows, out, flat)

    def to_dense(self) -> Array:
        """Return the whole matrix (dim, dim): rows in order, then the border."""
        out = np.zeros((self.dim, self.dim))
        split, start = self.dim - self.border_dim, 0
        for d, c in zip(self._blocks, self._couplings, strict=True):
            n, q = d.shape[:2]
            index = start + np.arange(n * q).reshape(n, q)
            out[index[:, :, None], index[:, None, :]] = d
            out[start : start + n * q, split:] = c.reshape(n * q, self.border_dim)
            start += n * q
        out[split:, :split] = out[:split, split:].T
        out[split:, split:] = self.border
        return out

    def factorize(self, chunk_rows: int | None = None) -> ArrowFactor[Rows]:
        """Factor H.

        Parameters
        ----------
        chunk_rows : int, optional
            Rows that are worked on at once; chosen from a bound on memory by default.

        Raises
        ------
        NotPositiveDefiniteError
            Naming the first bad row block; ``row`` is None where the Schur complement failed.
        """
        if chunk_rows is not None and chunk_rows < 1:
            raise InputError(f"chunk_rows must be at least 1, got {chunk_rows}")
        return ArrowFactor(self, chunk_rows)

    def _pack(self, groups: list[Array]) -> Rows:
        return cast(Rows, list(groups) if self._ragged else groups[0])

    def _vectors(self, rows: Rows, border: Array, name: str) -> tuple[list[Array], Array, bool]:
        """Validate vectors; give each a trailing axis, and say whether it was added."""
        shared = real_array(border, f"{name}_border")
        flat = shared.ndim == 1
        if shared.ndim not in (1, 2) or len(shared) != self.border_dim:
            raise InputError(f"{name}_border must have shape ({self.border_dim},) or "
                             f"({self.border_dim}, k), got {shared.shape}")
        if isinstance(rows, list | tuple) != self._ragged:
            raise InputError(f"{name}_rows must be {'a list of groups' if self._ragged else 'one'}"
                             f"{'' if self._ragged else ' array'}, as the matrix's rows are")
        given = list(rows) if self._ragged else [rows]
        if len(given) != len(self._blocks):
            raise InputError(f"{name}_rows has {len(given)} groups, the matrix has "
                             f"{len(self._blocks)}")
        groups = []
        for g, (value, (n, q)) in enumerate(zip(given, self.row_groups, strict=True)):
            label = f"{name}_rows[{g}]" if self._ragged else f"{name}_rows"
            group = real_array(value, label)
            expected = (n, q, *shared.shape[1:])
            if group.shape != expected:
                raise InputError(f"{label} must have shape {expected}, got {group.shape}")
            groups.append(group[:, :, None] if flat else group)
        return groups, shared[:, None] if flat else shared, flat

    def _unvectors(self, rows: list[Array], border: Array, flat: bool) -> tuple[Rows, Array]:
        if flat:
            return self._pack([x[:, :, 0] for x in rows]), border[:, 0]
        return self._pack(rows), border


@dataclass(frozen=True)
class SelectedInverse(Generic[Rows]):
    """The blocks of G = H^-1 on the pattern of H.

    Attributes
    ----------
    rows : (N, q, q) array, or list of (n_g, q_g, q_g)
        G_ii.
    coupling : (N, q, P) array, or list of (n_g, q_g, P)
        G_ib.
    border : (P, P) array
        G_bb.
    """

    rows: Rows
    coupling: Rows
    border: Array


class ArrowFactor(Generic[Rows]):
    """Factor of an `ArrowMatrix`; made by `ArrowMatrix.factorize`."""

    def __init__(self, matrix: ArrowMatrix[Rows], chunk_rows: int | None = None):
        self.matrix = matrix
        self._chunk_rows = chunk_rows
        self._row_factors: list[Array] = []
        self._row_logdet, first = 0.0, 0
        schur = matrix.border.copy()
        for d, c in zip(matrix._blocks, matrix._couplings, strict=True):
            lower = batched_cholesky(d, first)
            self._row_logdet += float(factor_logdet(lower).sum())
            self._row_factors.append(lower)
            for where in self._chunks(c):
                # C^T D^-1 C = Y^T Y with L Y = C
                half = batched_solve_lower(lower[where], c[where]).reshape(-1, matrix.border_dim)
                schur -= half.T @ half
            first += len(d)
        self._schur = DenseCholesky.of(schur, "the Schur complement on the border")

    def _chunks(self, coupling: Array) -> Iterator[slice]:
        n, q, width = coupling.shape
        if q == 0 or width == 0:
            return
        step = self._chunk_rows or max(1, CHUNK_ELEMENTS // (q * max(width, q)))
        for start in range(0, n, step):
            yield slice(start, start + step)

    def logdet(self) -> float:
        """Log-determinant of H."""
        return self._row_logdet + self._schur.logdet()

    def solve(self, g_rows: Rows, g_border: Array) -> tuple[Rows, Array]:
        """Solve H x = g.

        Parameters
        ----------
        g_rows : (N, q) or (N, q, k) array, or list of such groups
        g_border : (P,) or (P, k) array

        Returns
        -------
        tuple of the same shapes
        """
        groups, border, flat = self.matrix._vectors(g_rows, g_border, "g")
        factors, couplings = self._row_factors, self.matrix._couplings
        reduced = border.copy()
        for lower, c, g in zip(factors, couplings, groups, strict=True):
            reduced -= _towards_border(c, batched_cholesky_solve(lower, g))
        x_border = self._schur.solve(reduced)
        # not D^-1 g - (D^-1 C) x_b, whose terms may cancel
        rows = [batched_cholesky_solve(lower, g - c @ x_border)
                for lower, c, g in zip(factors, couplings, groups, strict=True)]
        return self.matrix._unvectors(rows, x_border, flat)

    def selected_inverse(self) -> SelectedInverse[Rows]:
        """Return the blocks of H^-1 on the pattern of H."""
        border = self._schur.inverse()
        rows, coupling = [], []
        for d, lower, c in zip(self.matrix._blocks, self._row_factors, self.matrix._couplings,
                               strict=True):
            block, cross = batched_inverse(d, lower), np.empty_like(c)
            for where in self._chunks(c):
                pulled = batched_cholesky_solve(lower[where], c[where])
                cross[where] = -(pulled.reshape(-1, len(border)) @ border).reshape(pulled.shape)
                block[where] -= cross[where] @ pulled.transpose(0, 2, 1)
            rows.append(block)
            coupling.append(cross)
        return SelectedInverse(self.matrix._pack(rows), self.matrix._pack(coupling), border)


def _towards_border(coupling: Array, x: Array) -> Array:
    """Sum over rows of C_i^T x_i: (n, q, P), (n, q, k) to (P, k)."""
    n, q, width = coupling.shape
    return coupling.reshape(n * q, width).T @ x.reshape(n * q, x.shape[2])
