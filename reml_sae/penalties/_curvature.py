"""Curvature of a penalty on an (n, d) target, in the three shapes that the engine carries.

    B = blockdiag(blocks) + sum_e (E_e + E_e^T) + U core U^T

Row blocks go into the row blocks D_i of the arrowhead. Edges couple two rows each, are sparse and
go to the sparse Cholesky backend. The columns U couple all rows at low rank and enter by the
Woodbury identity (DESIGN A3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from reml_sae.typing import Array, Index


def _none() -> Index:
    return np.zeros(0, np.intp)


@dataclass(frozen=True)
class RowCurvature:
    """A symmetric matrix over the entries of an (n, d) target.

    Attributes
    ----------
    blocks : (n, d, d) symmetric diagonal blocks
    heads, tails : (e,) rows that an edge couples; head != tail
    edges : (e, d, d) block of B in row ``head`` and column ``tail``; its transpose is implied
    columns : (c, n, d) low-rank columns U
    core : (c, c) symmetric
    """

    blocks: Array
    heads: Index = field(default_factory=_none)
    tails: Index = field(default_factory=_none)
    edges: Array = field(default_factory=lambda: np.zeros((0, 1, 1)))
    columns: Array = field(default_factory=lambda: np.zeros((0, 1, 1)))
    core: Array = field(default_factory=lambda: np.zeros((0, 0)))

    @property
    def is_row_block(self) -> bool:
        """Whether rows do not couple."""
        return not len(self.edges) and not len(self.columns)

    def matvec(self, v: Array) -> Array:
        """B v for v (n, d)."""
        return np.einsum("nab,nb->na", self.blocks, v) + self.between(v)

    def between(self, v: Array) -> Array:
        """What B v has beside the diagonal blocks."""
        out = np.zeros_like(v)
        if len(self.edges):
            np.add.at(out, self.heads, np.einsum("eab,eb->ea", self.edges, v[self.tails]))
            np.add.at(out, self.tails, np.einsum("eab,ea->eb", self.edges, v[self.heads]))
        if len(self.columns):
            inner = self.core @ np.tensordot(self.columns, v, axes=([1, 2], [0, 1]))
            out += np.tensordot(inner, self.columns, axes=1)
        return out

    def diagonal(self) -> Array:
        """Diagonal of B, (n, d)."""
        out = np.einsum("naa->na", self.blocks).copy()
        if len(self.columns):
            out += np.einsum("cna,ce,ena->na", self.columns, self.core, self.columns)
        return out

    def to_dense(self) -> Array:
        """B as (n d, n d), entry (n, a) at n d + a."""
        n, d = self.blocks.shape[:2]
        out = np.zeros((n, d, n, d))
        index = np.arange(n)
        out[index, :, index, :] = self.blocks
        np.add.at(out.transpose(0, 2, 1, 3), (self.heads, self.tails), self._sized_edges(d))
        np.add.at(out.transpose(0, 2, 1, 3), (self.tails, self.heads),
                  self._sized_edges(d).transpose(0, 2, 1))
        dense = out.reshape(n * d, n * d)
        if len(self.columns):
            flat = self.columns.reshape(len(self.columns), n * d)
            dense = dense + flat.T @ self.core @ flat
        return dense

    def _sized_edges(self, d: int) -> Array:
        return self.edges if len(self.edges) else np.zeros((0, d, d))


@dataclass(frozen=True)
class RowInverse:
    """A symmetric matrix G where a `RowCurvature` of the same shape needs it.

    Attributes
    ----------
    blocks : (n, d, d) diagonal blocks of G
    edges : (e, d, d) blocks of G in row ``head`` and column ``tail``
    columns : (c, n, d) G U
    """

    blocks: Array
    edges: Array
    columns: Array

    @classmethod
    def of_dense(cls, G: Array, curvature: RowCurvature) -> Self:
        """Parts of a dense G (n d, n d) on the pattern of a curvature."""
        n, d = curvature.blocks.shape[:2]
        blocks = G.reshape(n, d, n, d)
        index = np.arange(n)
        columns = curvature.columns
        if len(columns):
            columns = (columns.reshape(len(columns), n * d) @ G).reshape(columns.shape)
        return cls(blocks[index, :, index, :], blocks[curvature.heads, :, curvature.tails, :],
                   columns)

    def inner(self, curvature: RowCurvature) -> float:
        """<G, B>, the trace of the product."""
        total = float(np.vdot(self.blocks, curvature.blocks))
        if len(curvature.edges):
            total += 2.0 * float(np.vdot(self.edges, curvature.edges))
        if len(curvature.columns):
            total += float(np.vdot(self.core_weights(curvature), curvature.core))
        return total

    def core_weights(self, curvature: RowCurvature) -> Array:
        """U^T G U, (c, c): the gradient of <G, B> in the core."""
        return np.tensordot(curvature.columns, self.columns, axes=([1, 2], [1, 2]))
