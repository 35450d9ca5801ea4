"""A span arrowhead plus a low-rank part that couples all rows (DESIGN A3, Woodbury).

    H = H_0 + U K U^T,      X = D^-1 U,    g = U^T X,    R = K (I + g K)^-1

U has no border part, so it is the rows that change, and the border feels it by its Schur complement

    D'^-1 = D^-1 - X R X^T,      S' = S + G R G^T,      G = C^T X
    log|H| = log|D| + log|I + g^(1/2) K g^(1/2)| + log|S'|

Woodbury's formula on the whole of H_0 would be shorter, but H_0 may be nearly singular where the
penalty is what settles a direction, and digits would be lost; D' and S' are conditioned as H is.
K need not be definite: H is positive definite where the matrix of the log-determinant and S' are.

With B the matrix of rows D and of Schur complement S', and Q = B^-1 (0, G R),

    H^-1 = B^-1 + P W^T + W P^T,     P = (X, 0),     W = Q + P N / 2,     N = R G^T S'^-1 G R - R
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Self

import numpy as np

from reml_sae.errors import NotPositiveDefiniteError
from reml_sae.linalg._span_factor import (
    SpanFactor,
    SpanSelectedInverse,
    solve_bordered,
    towards_border,
)
from reml_sae.typing import Array


class LowRankUpdate:
    """Factor of H_0 + U K U^T.

    Parameters
    ----------
    base : SpanFactor
        Factor of H_0.
    columns : (c, N, q) array
        U.
    core : (c, c) symmetric array
        K.

    Raises
    ------
    NotPositiveDefiniteError
        Where the sum is not positive definite.
    """

    def __init__(self, base: SpanFactor, columns: Array, core: Array):
        self.base, self.columns = base, columns
        self.matrix = base.matrix
        self._x = np.stack([base.solve_rows(column) for column in columns])
        gram = np.tensordot(columns, self._x, axes=([1, 2], [1, 2]))
        gram = 0.5 * (gram + gram.T)
        values, vectors = np.linalg.eigh(gram)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        eigenvalues = np.linalg.eigvalsh(np.eye(len(core)) + root.T @ core @ root)
        if not eigenvalues[0] > 0.0:
            raise NotPositiveDefiniteError(
                "the part of the curvature that couples all rows is not positive definite")
        self._logdet = float(np.log(eigenvalues).sum())
        middle = np.linalg.solve((np.eye(len(core)) + gram @ core).T, core).T
        self._middle = 0.5 * (middle + middle.T)
        pulled = np.stack([towards_border(self.matrix, x) for x in self._x])
        self._weighted = np.tensordot(self._middle, pulled, axes=1)
        self._bordered = base.with_border(
            np.einsum("cmr,cnk->mrnk", pulled, self._weighted, optimize=True))

    @property
    def backend(self) -> str | None:
        """That of H_0."""
        return self.base.backend

    def logdet(self) -> float:
        """Log-determinant of H."""
        return self._bordered.logdet() + self._logdet

    def solve_rows(self, g: Array) -> Array:
        """D'^-1 g for g (N, q)."""
        weights = self._middle @ np.tensordot(self._x, g, axes=2)
        return self.base.solve_rows(g) - np.tensordot(weights, self._x, axes=1)

    def solve(self, g_rows: Array, g_border: Array) -> tuple[Array, Array]:
        """Solve H x = g for g = ((N, q), (M, p))."""
        return solve_bordered(self.matrix, self.solve_rows, self.apply_border_inverse,
                              g_rows, g_border)

    def with_border(self, extra: Array) -> Self:
        """The factor of H with ``extra`` (M, r, M, r) added to its border, inside the span."""
        other = copy(self)
        other._bordered = self._bordered.with_border(extra)
        return other

    def apply_border_inverse(self, v: Array) -> Array:
        """Apply the border block of H^-1 to v (.., M, p)."""
        return self._bordered.apply_border_inverse(v)

    def border_inverse(self) -> Array:
        """Border block of H^-1 inside the span, (M, r, M, r)."""
        return self._bordered.border_inverse()

    def coefficient_covariance(self, where: slice) -> Array:
        """Blocks of H^-1 of border rows ``where`` for every output: (p, m, m)."""
        return self._bordered.coefficient_covariance(where)

    def selected_inverse(self) -> SpanSelectedInverse:
        """Return the parts of H^-1 that derivatives of log|H| need."""
        matrix, s, x = self.matrix, self.matrix.scale, self._x
        found = self._bordered.selected_inverse()
        nothing, border = np.zeros_like(x[0]), self._weighted @ matrix.span.T
        solved = [self._bordered.solve(nothing, column) for column in border]
        w = np.stack([rows for rows, _ in solved])
        inside = np.stack([column for _, column in solved]) @ matrix.span
        square = np.tensordot(self._weighted, inside, axes=([1, 2], [1, 2])) - self._middle
        w += 0.5 * np.tensordot(0.5 * (square + square.T), x, axes=1)
        # calJ_i P and calJ_i W for every column: what the data see of them, in the span
        seen_x = np.einsum("nar,cna->cnr", matrix.jacobians, x)
        seen_w = np.einsum("nar,cna->cnr", matrix.jacobians, w)
        seen_w += np.einsum("nm,cmr->cnr", matrix.features, inside)
        rows = np.einsum("cna,cnb->nab", x, w)
        edges = found.edges
        if len(edges):
            heads, tails = matrix.heads, matrix.tails
            edges = (edges + np.einsum("cea,ceb->eab", x[:, heads], w[:, tails])
                     + np.einsum("cea,ceb->eab", w[:, heads], x[:, tails]))
        zero = np.zeros(matrix.border_shape)
        return replace(
            found,
            rows=found.rows + rows + rows.transpose(0, 2, 1),
            jac_cross=found.jac_cross + s * (np.einsum("cna,cnr->nar", x, seen_w)
                                             + np.einsum("cna,cnr->nar", w, seen_x)),
            feature_cross=found.feature_cross + s * np.einsum("cmr,cnr->nm", inside, seen_x),
            edges=edges,
            columns=np.stack([self.solve(column, zero)[0] for column in self.columns]),
        )
