"""The span arrowhead as a matrix: its products, and its factor. Notation of `SpanBlocks`."""

from __future__ import annotations

import numpy as np

from reml_sae.errors import InputError
from reml_sae.linalg._factorize import factorize
from reml_sae.linalg._span_blocks import SpanBlocks
from reml_sae.linalg._span_factor import SpanFactor
from reml_sae.typing import Array


class SpanArrowMatrix(SpanBlocks):
    """Arrowhead of an SAE-manifold, made of the fields of `SpanBlocks`."""

    def matvec(self, x_rows: Array, x_border: Array) -> tuple[Array, Array]:
        """H x for x = ((N, q), (M, p))."""
        in_span = x_border @ self.span
        towards_rows = self.features @ in_span
        rows = np.einsum("nab,nb->na", self.rows, x_rows)
        rows += self.scale * np.einsum("nar,nr->na", self.jacobians, towards_rows)
        pushed = np.einsum("nar,na->nr", self.jacobians, x_rows)
        inner = self.scale * (self.features.T @ pushed)
        for column in self.border_columns:
            inner += float(np.vdot(column, in_span)) * column
        if len(self.edges):
            np.add.at(rows, self.heads, np.einsum("eab,eb->ea", self.edges, x_rows[self.tails]))
            np.add.at(rows, self.tails, np.einsum("eab,ea->eb", self.edges, x_rows[self.heads]))
        if len(self.columns):
            rows += np.tensordot(
                self.core @ np.tensordot(self.columns, x_rows, axes=2), self.columns, axes=1)
        border = self.gram @ x_border + inner @ self.span.T
        if self.dense_border.size:
            border += (self.dense_border @ x_border.ravel()).reshape(border.shape)
        return rows, border

    def to_dense(self) -> Array:
        """Return the whole matrix, (N q + M p, N q + M p)."""
        n, q, _ = self.rows.shape
        m, p = self.border_shape
        out = np.zeros((n * q + m * p,) * 2)
        index = np.arange(n * q).reshape(n, q)
        out[index[:, :, None], index[:, None, :]] = self.rows
        for head, tail, block in zip(self.heads, self.tails, self.edges, strict=True):
            out[np.ix_(index[head], index[tail])] += block
            out[np.ix_(index[tail], index[head])] += block.T
        if len(self.columns):
            flat = self.columns.reshape(len(self.columns), n * q)
            out[: n * q, : n * q] += flat.T @ self.core @ flat
        full = self.jacobians @ self.span.T
        coupling = self.features[:, None, :, None] * full[:, :, None, :]
        out[: n * q, n * q:] = self.scale * coupling.reshape(n * q, m * p)
        out[n * q:, : n * q] = out[: n * q, n * q:].T
        out[n * q:, n * q:] = np.kron(self.gram, np.eye(p))
        for column in self.border_columns:
            flat = (column @ self.span.T).ravel()
            out[n * q:, n * q:] += np.outer(flat, flat)
        if self.dense_border.size:
            out[n * q:, n * q:] += self.dense_border
        return out

    def factorize(self, chunk_rows: int | None = None) -> SpanFactor:
        """Factor H by its structure, as `linalg._factorize` says.

        Parameters
        ----------
        chunk_rows : int, optional
            Rows that are worked on at once; chosen from a bound on memory by default.

        Raises
        ------
        NotPositiveDefiniteError
            Naming the first bad row block, or saying that the Schur complement failed.
        """
        if chunk_rows is not None and chunk_rows < 1:
            raise InputError(f"chunk_rows must be at least 1, got {chunk_rows}")
        return factorize(self, chunk_rows)
