"""Factors of a `SpanArrowMatrix` (DESIGN A3).

The row blocks couple to the border only inside the span Q (p, r), so the Schur complement is G on
the p - r directions outside and an (M r) x (M r) matrix inside,

    S_r = G (x) I_r + sum_c C_c C_c^T + E - C^T D^-1 C,          C_i = s phi_i^T (x) j_i
    log|H| = log|D| + (p - r) log|G| + log|S_r|

at a cost that does not depend on p. `SpanSchur` holds the border. Where D is block diagonal, its
rows are eliminated one by one (`_rows`): `SpanArrowFactor`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from reml_sae.linalg._dense import DenseCholesky
from reml_sae.linalg._factor import Factor
from reml_sae.linalg._incidence import MeetsAll
from reml_sae.linalg._rows import EliminatedRows
from reml_sae.linalg._span_blocks import SpanBlocks
from reml_sae.linalg._supports import Support, SupportedRows
from reml_sae.typing import Array


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
        """Apply the border block of H^-1 to v (.., M, p)."""
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
        C^T D^-1 C; its memory becomes that of the factor.
    """

    def __init__(self, matrix: SpanBlocks, coupling: Array):
        self.span = matrix.span
        self.m, self.r = matrix.features.shape[1], matrix.span.shape[1]
        self.outside = matrix.span.shape[0] - self.r
        # outside the span the border is G alone; where the span is everything, G may be singular
        self._gram = DenseCholesky.of(matrix.gram if self.outside else np.empty((0, 0)),
                                      "the border's Gram matrix")
        schur = np.negative(coupling, out=coupling)
        for output in range(self.r):
            schur[:, output, :, output] += matrix.gram
        schur = schur.reshape(self.m * self.r, self.m * self.r)
        for column in matrix.border_columns:  # of one atom each, most rows are zero
            used = np.flatnonzero(column.any(axis=1))
            if used.size:
                where = slice(used[0] * self.r, (used[-1] + 1) * self.r)
                own = column.ravel()[where]
                schur[where, where] += own[:, None] * own
        if matrix.dense_border.size:
            schur += matrix.dense_border
        self._inside = DenseCholesky.of(schur, "the Schur complement on the border", True)

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
        """S^-1 v for v (.., M, p)."""
        inside = v @ self.span
        # one column for each v, in the order in which the factor is stored
        count = int(np.prod(v.shape[:-2]))
        flat = inside.reshape(count, self.m * self.r)
        solved = self._inside.solve(flat.T).T.reshape(inside.shape)
        out = np.asarray(solved @ self.span.T, np.float64)
        if self.outside:
            rest = (v - inside @ self.span.T).swapaxes(0, -2)
            flat = rest.reshape(self.m, count * v.shape[-1])
            out += self._gram.solve(flat).reshape(rest.shape).swapaxes(0, -2)
        return out

    def inverse(self) -> Array:
        """S_r^-1, (M, r, M, r)."""
        return self._inside.inverse().reshape(self.m, self.r, self.m, self.r)

    def inverse_trace(self, inside: Array) -> Array:
        """Trace over all p outputs of S^-1, (M, M), where ``inside`` is `inverse`."""
        trace = np.einsum("arbr->ab", inside)
        return trace + self.outside * self._gram.inverse() if self.outside else trace

    def covariance(self, where: slice) -> Array:
        """Blocks of S^-1 of border rows ``where`` for every output, (p, m, m)."""
        start, stop, _ = where.indices(self.m)
        inside = self._inside.inverse_block(start * self.r, stop * self.r).reshape(
            stop - start, self.r, stop - start, self.r)
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
        """Apply the border block of H^-1, that is S^-1, to v (.., M, p)."""
        return self.schur.solve(v)

    def border_inverse(self) -> Array:
        """Border block of H^-1 inside the span, (M, r, M, r)."""
        return self.schur.inverse()

    def coefficient_covariance(self, where: slice) -> Array:
        """Blocks of H^-1 of border rows ``where`` for every output: (p, m, m)."""
        return self.schur.covariance(where)


class SpanArrowFactor(BorderedFactor):
    """Factor of a `SpanArrowMatrix` whose rows do not couple; by their supports where given."""

    def __init__(self, matrix: SpanBlocks, chunk_rows: int | None = None,
                 supports: Sequence[Support] = ()):
        self.matrix = matrix
        parts = matrix.rows, matrix.features, matrix.jacobians, matrix.scale
        self._rows = (SupportedRows(*parts, supports, chunk_rows) if supports
                      else EliminatedRows(*parts, MeetsAll(), chunk_rows))
        self.schur = SpanSchur(matrix, self._rows.coupling())

    def solve_rows(self, g: Array) -> Array:
        """D^-1 g for g (N, q)."""
        return self._rows.solve(g)

    def logdet(self) -> float:
        """Log-determinant of H."""
        return self._rows.logdet() + self.schur.logdet()

    def selected_inverse(self) -> SpanSelectedInverse:
        """Return the parts of H^-1 that derivatives of log|H| need."""
        inside = self.schur.inverse()
        border_trace = self.schur.inverse_trace(inside)
        rows, jac_cross, feature_cross = self._rows.selected_inverse(inside, border_trace)
        n, q, _ = rows.shape
        return SpanSelectedInverse(rows, border_trace, jac_cross, feature_cross,
                                   edges=np.zeros((0, q, q)), columns=np.zeros((0, n, q)))
