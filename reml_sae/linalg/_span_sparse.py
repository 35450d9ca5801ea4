"""Factor of a `SpanArrowMatrix` whose rows are coupled by edges (DESIGN A3).

D is one sparse matrix: it goes to the sparse Cholesky backend, and Y = D^-1 C is stored, N q M r
numbers, because D^-1 mixes the rows. With Sigma = S_r^-1,

    G_ij = (D^-1)_ij + Y_i Sigma Y_j^T        G_ib = -Y_i Sigma

on the pattern of D.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

from reml_sae.linalg._rows import CHUNK_ELEMENTS
from reml_sae.linalg._span_blocks import SpanBlocks
from reml_sae.linalg._span_factor import BorderedFactor, SpanSchur, SpanSelectedInverse
from reml_sae.linalg._sparse import SparseCholesky
from reml_sae.typing import Array


class SparseSpanFactor(BorderedFactor):
    """Factor of a `SpanArrowMatrix` with edges."""

    def __init__(self, matrix: SpanBlocks, chunk_rows: int | None = None):
        self.matrix = matrix
        n, q, _ = matrix.rows.shape
        m, r = matrix.features.shape[1], matrix.jacobians.shape[2]
        self._chunk = chunk_rows or max(1, CHUNK_ELEMENTS // max(1, q * m * r))
        self._rows = SparseCholesky.of(_sparse_rows(matrix), "the matrix of all rows")
        coupling = matrix.scale * np.einsum("nm,nar->namr", matrix.features, matrix.jacobians)
        coupling = coupling.reshape(n * q, m * r)
        solved = self._rows.solve(coupling)
        self._pulled = solved.reshape(n, q, m * r)
        self.schur = SpanSchur(matrix, (coupling.T @ solved).reshape(m, r, m, r))

    @property
    def backend(self) -> str:
        """The sparse Cholesky that ran, "cholmod" or "splu"."""
        return self._rows.backend

    def logdet(self) -> float:
        """Log-determinant of H."""
        return self._rows.logdet() + self.schur.logdet()

    def solve_rows(self, g: Array) -> Array:
        """D^-1 g for g (N, q)."""
        return self._rows.solve(g.ravel()).reshape(g.shape)

    def selected_inverse(self) -> SpanSelectedInverse:
        """Return the parts of H^-1 that derivatives of log|H| need."""
        matrix, s = self.matrix, self.matrix.scale
        n, q, _ = matrix.rows.shape
        m, r = matrix.features.shape[1], matrix.jacobians.shape[2]
        inside = self.schur.inverse()
        border_trace = self.schur.inverse_trace(inside)
        sigma = inside.reshape(m * r, m * r)
        index = np.arange(n * q).reshape(n, q)
        rows = self._inverse_blocks(index, index)
        edges = self._inverse_blocks(index[matrix.heads], index[matrix.tails])
        jac_cross = np.empty_like(matrix.jacobians)
        feature_cross = s * (matrix.features @ border_trace)
        tail_pulled = self._pulled.transpose(0, 2, 1)
        for start in range(0, n, self._chunk):
            where = slice(start, start + self._chunk)
            cross = self._pulled[where] @ sigma
            rows[where] += cross @ tail_pulled[where]
            blocks = cross.reshape(-1, q, m, r)
            jac_cross[where] = s * (rows[where] @ matrix.jacobians[where])
            jac_cross[where] -= s * np.einsum("namr,nm->nar", blocks, matrix.features[where])
            feature_cross[where] -= s * np.einsum("namr,nar->nm", blocks, matrix.jacobians[where])
        for start in range(0, len(edges), self._chunk):
            where = slice(start, start + self._chunk)
            cross = self._pulled[matrix.heads[where]] @ sigma
            edges[where] += cross @ tail_pulled[matrix.tails[where]]
        return SpanSelectedInverse(rows, border_trace, jac_cross, feature_cross, edges,
                                   columns=np.zeros((0, n, q)))

    def _inverse_blocks(self, heads: NDArray[np.intp], tails: NDArray[np.intp]) -> Array:
        """Blocks (e, q, q) of D^-1 for the indices (e, q) of their rows and columns."""
        q = heads.shape[1]
        i = np.repeat(heads, q, axis=1)
        j = np.tile(tails, (1, q))
        return self._rows.inverse_at(i.ravel(), j.ravel()).reshape(len(heads), q, q)


def _sparse_rows(matrix: SpanBlocks) -> coo_array:
    """D as one sparse matrix (N q, N q); entries that are zero in every block stay in the pattern.

    The selected inverse is read on this pattern.
    """
    n, q, _ = matrix.rows.shape
    index = np.arange(n * q).reshape(n, q)
    heads = np.concatenate([index, index[matrix.heads], index[matrix.tails]])
    tails = np.concatenate([index, index[matrix.tails], index[matrix.heads]])
    values = np.concatenate([matrix.rows, matrix.edges, matrix.edges.transpose(0, 2, 1)])
    i, j = np.repeat(heads, q, axis=1).ravel(), np.tile(tails, (1, q)).ravel()
    return coo_array((values.ravel(), (i, j)), shape=(n * q, n * q))
