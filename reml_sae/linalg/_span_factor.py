"""Factors of a `SpanArrowMatrix` (DESIGN A3).

The row blocks couple to the border only inside the span Q (p, r), so the Schur complement is G on
the p - r directions outside and an (M r) x (M r) matrix inside,

    S_r = G (x) I_r + sum_c C_c C_c^T + E - C^T D^-1 C,          C_i = s phi_i^T (x) j_i
    log|H| = log|D| + (p - r) log|G| + log|S_r|

at a cost that does not depend on p. `SpanSchur` holds the border. Where D is block diagonal,

    C^T D^-1 C = s^2 sum_i (phi_i phi_i^T) (x) W_i,    W_i = j_i^T D_i^-1 j_i

and `SpanArrowFactor` accumulates it as products of packed symmetric pairs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from reml_sae.linalg._batched import (
    batched_cholesky,
    batched_cholesky_solve,
    batched_inverse,
    batched_solve_lower,
    batched_solve_upper,
    factor_logdet,
)
from reml_sae.linalg._dense import DenseCholesky
from reml_sae.linalg._factor import Factor
from reml_sae.linalg._span_blocks import SpanBlocks
from reml_sae.typing import Array

CHUNK_ELEMENTS = 4_000_000


@dataclass(frozen=True)
class SpanSelectedInverse:
    """The parts of H^-1 that derivatives of log|H| need.

    With the joint Jacobian of a row, calJ_i = (j_i Q^T, phi_i (x) I_p), and G_i the matching block
    of H^-1, T_i = s G_i calJ_i^T has the parts ``jac_cross`` and ``feature_cross``.

    Attributes
    ----------
    rows : (N, q, q) blocks of H^-1
    border_trace : (M, M) trace over outputs of the border block of H^-1
    jac_cross : (N, q, r) rows of T_i, in span coordinates
    feature_cross : (N, M) border rows of T_i, traced over outputs
    edges : (e, q, q) blocks of H^-1 in row ``head`` and column ``tail``
    columns : (c, N, q) rows of H^-1 U, where H has a low-rank part U
    """

    rows: Array
    border_trace: Array
    jac_cross: Array
    feature_cross: Array
    edges: Array
    columns: Array


class SpanFactor(Factor, Protocol):
    """What a point asks of a factor of a span arrowhead; g is ((N, q), (M, p))."""

    matrix: SpanBlocks

    @property
    def backend(self) -> str | None:
        """The sparse Cholesky that ran, "cholmod" or "splu"; None where none did."""
        ...

    def solve_rows(self, g: Array) -> Array:
        """D^-1 g for g (N, q), where D is the part of H in the rows."""
        ...

    def with_border(self, extra: Array) -> Self:
        """The factor of H with ``extra`` (M, r, M, r) added to its border, inside the span."""
        ...

    def apply_border_inverse(self, v: Array) -> Array:
        """Apply the border block of H^-1 to v (M, p)."""
        ...

    def border_inverse(self) -> Array:
        """Border block of H^-1 inside the span, (M, r, M, r)."""
        ...

    def coefficient_covariance(self, where: slice) -> Array:
        """Blocks of H^-1 of border rows ``where`` for every output: (p, m, m)."""
        ...

    def selected_inverse(self) -> SpanSelectedInverse:
        """Return the parts of H^-1 that derivatives of log|H| need."""
        ...


class SpanSchur:
    """Factor of the Schur complement on the border.

    Parameters
    ----------
    matrix : SpanBlocks
    coupling : (M, r, M, r) array
        C^T D^-1 C.
    """

    def __init__(self, matrix: SpanBlocks, coupling: Array):
        self.span = matrix.span
        self.m, self.r = matrix.features.shape[1], matrix.span.shape[1]
        self.outside = matrix.span.shape[0] - self.r
        # outside the span the border is G alone; where the span is everything, G may be singular
        self._gram = DenseCholesky.of(matrix.gram if self.outside else np.empty((0, 0)),
                                      "the border's Gram matrix")
        schur = np.einsum("ab,rs->arbs", matrix.gram, np.eye(self.r)) - coupling
        schur = schur.reshape(self.m * self.r, self.m * self.r)
        flat = matrix.border_columns.reshape(len(matrix.border_columns), self.m * self.r)
        schur += flat.T @ flat
        if matrix.dense_border.size:
            schur += matrix.dense_border
        self._inside = DenseCholesky.of(schur, "the Schur complement on the border")

    def plus(self, extra: Array) -> SpanSchur:
        """The factor of S + ``extra`` (M, r, M, r)."""
        other, lower = copy(self), self._inside.lower
        other._inside = DenseCholesky.of(
            lower @ lower.T + extra.reshape(lower.shape), "the Schur complement on the border")
        return other

    def logdet(self) -> float:
        """Log-determinant of the border's Schur complement."""
        return self.outside * self._gram.logdet() + self._inside.logdet()

    def solve(self, v: Array) -> Array:
        """S^-1 v for v (M, p)."""
        inside = v @ self.span
        outside = self._gram.solve(v - inside @ self.span.T) if self.outside else 0.0
        solved = self._inside.solve(inside.ravel()).reshape(inside.shape)
        return solved @ self.span.T + outside

    def inverse(self) -> Array:
        """S_r^-1, (M, r, M, r)."""
        return self._inside.inverse().reshape(self.m, self.r, self.m, self.r)

    def inverse_trace(self, inside: Array) -> Array:
        """Trace over all p outputs of S^-1, (M, M), where ``inside`` is `inverse`."""
        trace = np.einsum("arbr->ab", inside)
        return trace + self.outside * self._gram.inverse() if self.outside else trace

    def covariance(self, where: slice) -> Array:
        """Blocks of S^-1 of border rows ``where`` for every output, (p, m, m)."""
        inside = self.inverse()[where][:, :, where]
        out = np.einsum("or,arbs,os->oab", self.span, inside, self.span, optimize=True)
        if self.outside:
            left = 1.0 - np.einsum("or,or->o", self.span, self.span)
            out += np.maximum(left, 0.0)[:, None, None] * self._gram.inverse()[where, where]
        return out


def towards_border(matrix: SpanBlocks, x_rows: Array) -> Array:
    """C^T x inside the span, for x (N, q): (M, r)."""
    pushed = np.einsum("nar,na->nr", matrix.jacobians, x_rows)
    return np.asarray(matrix.scale * (matrix.features.T @ pushed), np.float64)


def solve_bordered(
    matrix: SpanBlocks, rows_inverse: Callable[[Array], Array],
    schur_inverse: Callable[[Array], Array], g_rows: Array, g_border: Array,
) -> tuple[Array, Array]:
    """Solve H x = g from D^-1 and S^-1, where D may be more than the matrix's own rows."""
    reduced = g_border - towards_border(matrix, rows_inverse(g_rows)) @ matrix.span.T
    x_border = schur_inverse(reduced)
    pulled = matrix.scale * np.einsum(
        "nar,nr->na", matrix.jacobians, matrix.features @ (x_border @ matrix.span))
    # not D^-1 g - (D^-1 C) x_b, whose terms may cancel
    return rows_inverse(g_rows - pulled), x_border


class BorderedFactor(ABC):
    """What a factor whose rows have been eliminated answers from D^-1 and its Schur complement."""

    matrix: SpanBlocks
    schur: SpanSchur

    @property
    def backend(self) -> str | None:
        """None: no sparse Cholesky."""
        return None

    @abstractmethod
    def solve_rows(self, g: Array) -> Array:
        """D^-1 g for g (N, q)."""

    def with_border(self, extra: Array) -> Self:
        """The factor of H with ``extra`` (M, r, M, r) added to its border, inside the span."""
        other = copy(self)
        other.schur = self.schur.plus(extra)
        return other

    def solve(self, g_rows: Array, g_border: Array) -> tuple[Array, Array]:
        """Solve H x = g for g = ((N, q), (M, p))."""
        return solve_bordered(self.matrix, self.solve_rows, self.schur.solve, g_rows, g_border)

    def apply_border_inverse(self, v: Array) -> Array:
        """Apply the border block of H^-1, that is S^-1, to v (M, p)."""
        return self.schur.solve(v)

    def border_inverse(self) -> Array:
        """Border block of H^-1 inside the span, (M, r, M, r)."""
        return self.schur.inverse()

    def coefficient_covariance(self, where: slice) -> Array:
        """Blocks of H^-1 of border rows ``where`` for every output: (p, m, m)."""
        return self.schur.covariance(where)


class SpanArrowFactor(BorderedFactor):
    """Factor of a `SpanArrowMatrix` whose rows do not couple."""

    def __init__(self, matrix: SpanBlocks, chunk_rows: int | None = None):
        self.matrix = matrix
        r = matrix.span.shape[1]
        m = matrix.border_shape[0]
        self._row_factors = batched_cholesky(matrix.rows)
        pairs = m * (m + 1) // 2 + r * (r + 1) // 2 + m * m + 2 * r * r
        self._chunk = chunk_rows or max(1, CHUNK_ELEMENTS // max(1, pairs))
        self._m_pairs, self._r_pairs = np.triu_indices(m), np.triu_indices(r)
        self.schur = SpanSchur(matrix, matrix.scale**2 * self._coupling())

    def _chunks(self) -> list[slice]:
        n = len(self.matrix.features)
        return [slice(start, start + self._chunk) for start in range(0, n, self._chunk)]

    def _half(self, where: slice) -> Array:
        """L_i^-1 j_i of a chunk, (n, q, r); its Gram matrix is W_i."""
        return batched_solve_lower(self._row_factors[where], self.matrix.jacobians[where])

    def solve_rows(self, g: Array) -> Array:
        """D^-1 g for g (N, q)."""
        return batched_cholesky_solve(self._row_factors, g[:, :, None])[:, :, 0]

    def _coupling(self) -> Array:
        """Sum over rows of phi phi^T (x) W, as (M, r, M, r)."""
        m, r = self.matrix.features.shape[1], self.matrix.jacobians.shape[2]
        (ma, mb), (ra, rb) = self._m_pairs, self._r_pairs
        packed = np.zeros((ma.size, ra.size))
        for where in self._chunks():
            phi, root = self.matrix.features[where], self._half(where)
            pulled = root.transpose(0, 2, 1) @ root
            packed += (phi[:, ma] * phi[:, mb]).T @ pulled[:, ra, rb]
        half = np.empty((ma.size, r, r))
        half[:, ra, rb] = packed
        half[:, rb, ra] = packed
        full = np.empty((m, m, r, r))
        full[ma, mb] = half
        full[mb, ma] = half
        return full.transpose(0, 2, 1, 3)

    def logdet(self) -> float:
        """Log-determinant of H."""
        return float(factor_logdet(self._row_factors).sum()) + self.schur.logdet()

    def selected_inverse(self) -> SpanSelectedInverse:
        """Return the parts of H^-1 that derivatives of log|H| need."""
        matrix, s = self.matrix, self.matrix.scale
        m, r = matrix.features.shape[1], matrix.jacobians.shape[2]
        (ma, mb), (ra, rb) = self._m_pairs, self._r_pairs
        inside = self.schur.inverse()
        border_trace = self.schur.inverse_trace(inside)
        inverse = inside.transpose(0, 2, 1, 3)
        # K[(m m'), (r r')] symmetrised over both pairs, since it only meets symmetric partners
        k = 0.5 * (inverse + inverse.transpose(1, 0, 2, 3))
        k = k[ma, mb][:, ra, rb]
        m_weight = np.where(ma == mb, 1.0, 2.0)
        r_weight = np.where(ra == rb, 1.0, 2.0)
        rows = np.empty_like(matrix.rows)
        jac_cross = np.empty_like(matrix.jacobians)
        feature_cross = np.empty_like(matrix.features)
        for where in self._chunks():
            phi, j = matrix.features[where], matrix.jacobians[where]
            lower, half, n = self._row_factors[where], self._half(where), len(phi)
            x_packed = (phi[:, ma] * phi[:, mb] * m_weight) @ k
            x = np.empty((n, r, r))
            x[:, ra, rb] = x_packed
            x[:, rb, ra] = x_packed
            dj = batched_solve_upper(lower, half)
            djx = dj @ x
            rows[where] = batched_inverse(matrix.rows[where], lower)
            rows[where] += s**2 * (djx @ dj.transpose(0, 2, 1))
            jac_cross[where] = s * (rows[where] @ j - s * djx)
            w = half.transpose(0, 2, 1) @ half
            u_packed = (w[:, ra, rb] * r_weight) @ k.T
            u = np.empty((n, m, m))
            u[:, ma, mb] = u_packed
            u[:, mb, ma] = u_packed
            feature_cross[where] = -(s**2) * np.einsum("na,nab->nb", phi, u)
        feature_cross += s * (matrix.features @ border_trace)
        n, q, _ = rows.shape
        return SpanSelectedInverse(rows, border_trace, jac_cross, feature_cross,
                                   edges=np.zeros((0, q, q)), columns=np.zeros((0, n, q)))
