"""A span arrowhead plus a low-rank part that couples all rows (DESIGN A3, Woodbury).

    H = H_0 + U K U^T,      X = H_0^-1 U,    g = U^T X,    R = K (I + g K)^-1
    log|H| = log|H_0| + log|I + g^(1/2) K g^(1/2)|
    H^-1   = H_0^-1 - X R X^T

U has no border part. K need not be definite: H is positive definite where the matrix of the second
line is. The border blocks of H^-1 are not those of H_0^-1, since X has a border part.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import NotPositiveDefiniteError
from reml_sae.linalg._span_factor import SpanFactor, SpanSelectedInverse

Array = NDArray[np.float64]


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
        zero = np.zeros((self.matrix.features.shape[1], self.matrix.span.shape[0]))
        solved = [base.solve(column, zero) for column in columns]
        self._x_rows = np.stack([rows for rows, _ in solved])
        self._x_border = np.stack([border for _, border in solved])
        gram = np.tensordot(columns, self._x_rows, axes=([1, 2], [1, 2]))
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
        self._gram = gram

    def logdet(self) -> float:
        """Log-determinant of H."""
        return self.base.logdet() + self._logdet

    def solve(self, g_rows: Array, g_border: Array) -> tuple[Array, Array]:
        """Solve H x = g for g = ((N, q), (M, p))."""
        rows, border = self.base.solve(g_rows, g_border)
        inner = np.tensordot(self._x_rows, g_rows, axes=2)
        inner += np.tensordot(self._x_border, g_border, axes=2)
        weights = self._middle @ inner
        return (rows - np.tensordot(weights, self._x_rows, axes=1),
                border - np.tensordot(weights, self._x_border, axes=1))

    def apply_border_inverse(self, v: Array) -> Array:
        """Apply the border block of H^-1 to v (M, p)."""
        weights = self._middle @ np.tensordot(self._x_border, v, axes=2)
        return self.base.apply_border_inverse(v) - np.tensordot(weights, self._x_border, axes=1)

    def border_inverse(self) -> Array:
        """Border block of H^-1 inside the span, (M, r, M, r)."""
        inside = self._x_border @ self.matrix.span
        change = np.einsum("cmr,ce,enk->mrnk", inside, self._middle, inside, optimize=True)
        return self.base.border_inverse() - change

    def coefficient_covariance(self, where: slice) -> Array:
        """Blocks of H^-1 of border rows ``where`` for every output: (p, m, m)."""
        x = self._x_border[:, where]
        change = np.einsum("cmo,ce,eno->omn", x, self._middle, x, optimize=True)
        return self.base.coefficient_covariance(where) - change

    def selected_inverse(self) -> SpanSelectedInverse:
        """Return the parts of H^-1 that derivatives of log|H| need."""
        matrix, s = self.matrix, self.matrix.scale
        base = self.base.selected_inverse()
        x, border = self._x_rows, self._x_border
        weighted = np.tensordot(self._middle, x, axes=1)
        inside = border @ matrix.span
        # calJ_i X for every column: what the data see of it, in the span
        seen = np.einsum("nar,cna->cnr", matrix.jacobians, x)
        seen += np.einsum("nm,cmr->cnr", matrix.features, inside)
        weighted_border = np.tensordot(self._middle, inside, axes=1)
        edges = base.edges
        if len(edges):
            edges = edges - np.einsum("cea,ceb->eab", weighted[:, matrix.heads], x[:, matrix.tails])
        return SpanSelectedInverse(
            rows=base.rows - np.einsum("cna,cnb->nab", weighted, x),
            border_trace=base.border_trace - np.einsum(
                "cmo,ce,eno->mn", border, self._middle, border, optimize=True),
            jac_cross=base.jac_cross - s * np.einsum("cna,cnr->nar", weighted, seen),
            feature_cross=base.feature_cross - s * np.einsum("cmr,cnr->nm", weighted_border, seen),
            edges=edges,
            columns=x - np.tensordot(self._gram @ self._middle, x, axes=1),
        )
