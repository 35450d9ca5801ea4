"""Block arrowhead with a Kronecker border and low-rank coupling (DESIGN A3).

    H = [ D_i                 s phi_i^T (x) j_i Q^T          ]
        [ .                   G (x) I_p + sum_c C_c C_c^T    ]

The row blocks couple to the border only inside the span Q (p, r), so the Schur complement is G on
the p - r directions outside and an (M r) x (M r) matrix inside,

    S_r = G (x) I_r + sum_c C_c C_c^T - s^2 sum_i (phi_i phi_i^T) (x) W_i,    W_i = j_i^T D_i^-1 j_i
    log|H| = sum_i log|D_i| + (p - r) log|G| + log|S_r|

at a cost that does not depend on p. Sums over rows are products of packed symmetric pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError
from reml_sae.linalg._batched import batched_cholesky, batched_inverse, factor_logdet
from reml_sae.linalg._dense import DenseCholesky

Array = NDArray[np.float64]

CHUNK_ELEMENTS = 4_000_000


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
    """

    rows: Array
    features: Array
    jacobians: Array
    span: Array
    gram: Array
    border_columns: Array
    scale: float

    def __post_init__(self) -> None:
        (n, q, _), m, (p, r) = self.rows.shape, self.features.shape[1], self.span.shape
        expected = {"rows": (n, q, q), "features": (n, m), "jacobians": (n, q, r), "gram": (m, m),
                    "border_columns": (len(self.border_columns), m, r)}
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
        return rows, self.gram @ x_border + inner @ self.span.T

    def to_dense(self) -> Array:
        """Return the whole matrix, (N q + M p, N q + M p)."""
        n, q, _ = self.rows.shape
        m, p = self.border_shape
        out = np.zeros((n * q + m * p,) * 2)
        index = np.arange(n * q).reshape(n, q)
        out[index[:, :, None], index[:, None, :]] = self.rows
        full = self.jacobians @ self.span.T
        coupling = self.features[:, None, :, None] * full[:, :, None, :]
        out[: n * q, n * q:] = self.scale * coupling.reshape(n * q, m * p)
        out[n * q:, : n * q] = out[: n * q, n * q:].T
        out[n * q:, n * q:] = np.kron(self.gram, np.eye(p))
        for column in self.border_columns:
            flat = (column @ self.span.T).ravel()
            out[n * q:, n * q:] += np.outer(flat, flat)
        return out

    def factorize(self, chunk_rows: int | None = None) -> SpanArrowFactor:
        """Factor H.

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
        return SpanArrowFactor(self, chunk_rows)


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
    """

    rows: Array
    border_trace: Array
    jac_cross: Array
    feature_cross: Array


class SpanArrowFactor:
    """Factor of a `SpanArrowMatrix`; made by `SpanArrowMatrix.factorize`."""

    def __init__(self, matrix: SpanArrowMatrix, chunk_rows: int | None = None):
        self.matrix = matrix
        r = matrix.span.shape[1]
        m, p = matrix.border_shape
        self._row_factors = batched_cholesky(matrix.rows)
        self._row_inverse = batched_inverse(matrix.rows, self._row_factors)
        self._outside = p - r
        # outside the span the border is G alone; where the span is everything, G may be singular
        self._gram_factor = DenseCholesky.of(
            matrix.gram if self._outside else np.empty((0, 0)), "the border's Gram matrix")
        pairs = m * (m + 1) // 2 + r * (r + 1) // 2 + m * m + 2 * r * r
        self._chunk = chunk_rows or max(1, CHUNK_ELEMENTS // max(1, pairs))
        self._m_pairs, self._r_pairs = np.triu_indices(m), np.triu_indices(r)
        schur = np.einsum("ab,rs->arbs", matrix.gram, np.eye(r))
        schur -= matrix.scale**2 * self._coupling()
        schur = schur.reshape(m * r, m * r)
        flat = matrix.border_columns.reshape(len(matrix.border_columns), m * r)
        schur += flat.T @ flat
        self._schur_factor = DenseCholesky.of(schur, "the Schur complement on the border")

    def _chunks(self) -> list[slice]:
        n = len(self.matrix.features)
        return [slice(start, start + self._chunk) for start in range(0, n, self._chunk)]

    def _pulled(self, where: slice) -> Array:
        """W_i = j_i^T D_i^-1 j_i of a chunk, (n, r, r)."""
        j = self.matrix.jacobians[where]
        return j.transpose(0, 2, 1) @ (self._row_inverse[where] @ j)

    def _coupling(self) -> Array:
        """Sum over rows of phi phi^T (x) W, as (M, r, M, r)."""
        m, r = self.matrix.features.shape[1], self.matrix.jacobians.shape[2]
        (ma, mb), (ra, rb) = self._m_pairs, self._r_pairs
        packed = np.zeros((ma.size, ra.size))
        for where in self._chunks():
            phi = self.matrix.features[where]
            packed += (phi[:, ma] * phi[:, mb]).T @ self._pulled(where)[:, ra, rb]
        half = np.empty((ma.size, r, r))
        half[:, ra, rb] = packed
        half[:, rb, ra] = packed
        full = np.empty((m, m, r, r))
        full[ma, mb] = half
        full[mb, ma] = half
        return full.transpose(0, 2, 1, 3)

    def logdet(self) -> float:
        """Log-determinant of H."""
        rows = float(factor_logdet(self._row_factors).sum())
        return rows + self._outside * self._gram_factor.logdet() + self._schur_factor.logdet()

    def apply_border_inverse(self, v: Array) -> Array:
        """Apply the border block of H^-1, that is S^-1, to v (M, p)."""
        span = self.matrix.span
        inside = v @ span
        outside = self._gram_factor.solve(v - inside @ span.T) if self._outside else 0.0
        solved = self._schur_factor.solve(inside.ravel()).reshape(inside.shape)
        return solved @ span.T + outside

    def solve(self, g_rows: Array, g_border: Array) -> tuple[Array, Array]:
        """Solve H x = g for g = ((N, q), (M, p))."""
        matrix = self.matrix
        scaled = np.einsum("nab,nb->na", self._row_inverse, g_rows)
        pushed = np.einsum("nar,na->nr", matrix.jacobians, scaled)
        reduced = g_border - matrix.scale * (matrix.features.T @ pushed) @ matrix.span.T
        x_border = self.apply_border_inverse(reduced)
        towards = matrix.scale * np.einsum(
            "nar,nr->na", matrix.jacobians, matrix.features @ (x_border @ matrix.span))
        return scaled - np.einsum("nab,nb->na", self._row_inverse, towards), x_border

    def coefficient_covariance(self, where: slice) -> Array:
        """Blocks of H^-1 of border rows ``where`` for every output: (p, m, m)."""
        matrix = self.matrix
        m, r = matrix.features.shape[1], matrix.jacobians.shape[2]
        inside = self._schur_factor.inverse().reshape(m, r, m, r)[where][:, :, where]
        out = np.einsum("or,arbs,os->oab", matrix.span, inside, matrix.span, optimize=True)
        if self._outside:
            gram_inverse = self._gram_factor.inverse()[where, where]
            left = 1.0 - np.einsum("or,or->o", matrix.span, matrix.span)
            out += np.maximum(left, 0.0)[:, None, None] * gram_inverse
        return out

    def selected_inverse(self) -> SpanSelectedInverse:
        """Return the parts of H^-1 that derivatives of log|H| need."""
        matrix, s = self.matrix, self.matrix.scale
        m, r = matrix.features.shape[1], matrix.jacobians.shape[2]
        (ma, mb), (ra, rb) = self._m_pairs, self._r_pairs
        inverse = self._schur_factor.inverse().reshape(m, r, m, r).transpose(0, 2, 1, 3)
        border_trace = np.einsum("abrr->ab", inverse)
        if self._outside:
            border_trace = border_trace + self._outside * self._gram_factor.inverse()
        # K[(m m'), (r r')] symmetrised over both pairs, since it only meets symmetric partners
        k = 0.5 * (inverse + inverse.transpose(1, 0, 2, 3))
        k = k[ma, mb][:, ra, rb]
        m_weight = np.where(ma == mb, 1.0, 2.0)
        r_weight = np.where(ra == rb, 1.0, 2.0)
        rows = np.empty_like(matrix.rows)
        jac_cross = np.empty_like(matrix.jacobians)
        feature_cross = np.empty_like(matrix.features)
        for where in self._chunks():
            phi, j, dinv = matrix.features[where], matrix.jacobians[where], self._row_inverse[where]
            n = len(phi)
            x_packed = (phi[:, ma] * phi[:, mb] * m_weight) @ k
            x = np.empty((n, r, r))
            x[:, ra, rb] = x_packed
            x[:, rb, ra] = x_packed
            dj = dinv @ j
            djx = dj @ x
            rows[where] = dinv + s**2 * (djx @ dj.transpose(0, 2, 1))
            jac_cross[where] = s * (rows[where] @ j - s * djx)
            w = j.transpose(0, 2, 1) @ dj
            u_packed = (w[:, ra, rb] * r_weight) @ k.T
            u = np.empty((n, m, m))
            u[:, ma, mb] = u_packed
            u[:, mb, ma] = u_packed
            feature_cross[where] = -(s**2) * np.einsum("na,nab->nb", phi, u)
        feature_cross += s * (matrix.features @ border_trace)
        return SpanSelectedInverse(rows, border_trace, jac_cross, feature_cross)
