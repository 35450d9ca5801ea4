"""Block arrowhead with a Kronecker border and low-rank coupling (DESIGN A3).

    H = [ D + U K U^T         s phi_i^T (x) j_i Q^T              ]
        [ .                   G (x) I_p + sum_c C_c C_c^T + E    ]

D has a block for each row and, where a penalty couples rows along a graph, a block for each edge;
U K U^T is of a penalty that couples all rows.
E is a dense part of the border, for penalties on decoders that are not the same for every output.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from reml_sae.errors import InputError
from reml_sae.linalg._factorize import factorize
from reml_sae.linalg._span_factor import SpanFactor
from reml_sae.typing import Array, Index, Mask


@dataclass(frozen=True)
class SpanArrowMatrix:
    """Arrowhead of a Gaussian SAE-manifold.

    Attributes
    ----------
    rows : (N, q, q) row blocks D_i
    features : (N, M) scaled basis phi_i
    jacobians : (N, q, r) row Jacobians j_i in span coordinates
    span : (p, r) orthonormal columns Q
    gram : (M, M) G
    border_columns : (c, M, r) extra rank-one terms of the border, in the span
    scale : float, s
    heads, tails : (e,) rows that an edge couples, head != tail; a pair may occur more than once
    edges : (e, q, q) block of D in row ``head`` and column ``tail``; its transpose is implied
    dense_border : (M p, M p) E; the span must then be the identity. Size 0 where there is none
    columns : (c, N, q) U, which may be without columns
    core : (c, c) K
    carried : (N, q) bool, optional
        The parameters that a row has; the others have a unit block and no coupling. All by default.
    """

    rows: Array
    features: Array
    jacobians: Array
    span: Array
    gram: Array
    border_columns: Array
    scale: float
    heads: Index = field(default_factory=lambda: np.zeros(0, np.intp))
    tails: Index = field(default_factory=lambda: np.zeros(0, np.intp))
    edges: Array = field(default_factory=lambda: np.zeros((0, 0, 0)))
    dense_border: Array = field(default_factory=lambda: np.zeros((0, 0)))
    columns: Array = field(default_factory=lambda: np.zeros((0, 0, 0)))
    core: Array = field(default_factory=lambda: np.zeros((0, 0)))
    carried: Mask | None = None

    def __post_init__(self) -> None:
        (n, q, _), m, (p, r) = self.rows.shape, self.features.shape[1], self.span.shape
        e, c = len(self.edges), len(self.columns)
        expected = {"rows": (n, q, q), "features": (n, m), "jacobians": (n, q, r), "gram": (m, m),
                    "border_columns": (len(self.border_columns), m, r), "heads": (e,),
                    "tails": (e,), "edges": (e, q, q) if e else self.edges.shape,
                    "columns": (c, n, q) if c else self.columns.shape, "core": (c, c)}
        if self.carried is not None:
            expected["carried"] = (n, q)
        if self.dense_border.size:
            expected["dense_border"] = (m * p, m * p)
            if r != p or not np.array_equal(self.span, np.eye(p)):
                raise InputError("span must be the identity where the border has a dense part")
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise InputError(f"{name} must have shape {shape} to match rows (N, q, q), "
                                 f"features (N, M) and span (p, r), got "
                                 f"{getattr(self, name).shape}")
        if r > p:
            raise InputError(f"span must have orthonormal columns, got {r} columns of length {p}")

    @property
    def border_shape(self) -> tuple[int, int]:
        """(M, p), the shape of a border vector."""
        return self.features.shape[1], self.span.shape[0]

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
