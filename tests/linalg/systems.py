"""Random arrowheads of every shape, and what dense algebra says about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reml_sae.linalg import ArrowMatrix, SpanArrowMatrix

RTOL = 1e-10


def assert_close(actual, expected, rtol=RTOL):
    """Relative to the largest entry, since small entries of an inverse carry its rounding."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    scale = np.abs(expected).max(initial=0.0)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * max(scale, 1e-300))


@dataclass(frozen=True)
class ArrowShape:
    groups: tuple[tuple[int, int], ...]
    border: int
    ragged: bool = False

    def __str__(self):
        rows = "+".join(f"{n}x{q}" for n, q in self.groups)
        return f"{'ragged' if self.ragged else 'stack'}-{rows}-P{self.border}"

    def build(self, seed=0) -> ArrowMatrix:
        """A positive definite system: a random Gram matrix with the pattern of an arrow."""
        rng = np.random.default_rng(seed)
        border = rng.normal(size=(self.border, self.border + 2))
        border = border @ border.T
        rows, coupling = [], []
        for n, q in self.groups:
            factor = rng.normal(size=(n, q, q + 2))
            block = factor @ factor.transpose(0, 2, 1)
            cross = rng.normal(size=(n, q, self.border))
            rows.append(block + q * np.eye(q))
            coupling.append(cross)
            border = border + np.einsum("nap,nab,nbs->ps", cross, np.linalg.inv(rows[-1]), cross)
        border = 0.5 * (border + border.T)
        if self.ragged:
            return ArrowMatrix(rows, coupling, border)
        return ArrowMatrix(rows[0], coupling[0], border)


ARROWS = [
    ArrowShape(((6, 3),), 4),
    ArrowShape(((1, 3),), 4),
    ArrowShape(((7, 1),), 3),
    ArrowShape(((5, 2),), 1),
    ArrowShape(((5, 0),), 4),
    ArrowShape(((5, 3),), 0),
    ArrowShape(((0, 3),), 4),
    ArrowShape(((3, 2),), 40),
    ArrowShape(((4, 3), (2, 1), (5, 2)), 4, ragged=True),
    ArrowShape(((4, 3), (3, 0), (1, 5)), 4, ragged=True),
    ArrowShape(((4, 3), (2, 1)), 0, ragged=True),
    ArrowShape(((0, 3), (2, 1)), 2, ragged=True),
    ArrowShape(((6, 2),), 3, ragged=True),
    ArrowShape((), 3, ragged=True),
]


def as_groups(rows):
    return rows if isinstance(rows, list) else [rows]


def like(matrix, groups):
    """Row data in the form of the matrix."""
    return groups if isinstance(matrix.rows, list) else groups[0]


def split(matrix, flat):
    """A dense vector (dim, ..) as (rows, border) in the matrix's form."""
    groups, start = [], 0
    for n, q in matrix.row_groups:
        groups.append(flat[start : start + n * q].reshape(n, q, *flat.shape[1:]))
        start += n * q
    return like(matrix, groups), flat[start:]


def join(matrix, rows, border):
    """Inverse of `split`."""
    flat = [np.reshape(g, (n * q, *border.shape[1:]))
            for g, (n, q) in zip(as_groups(rows), matrix.row_groups, strict=True)]
    return np.concatenate([*flat, border])


@dataclass(frozen=True)
class SpanShape:
    n: int
    q: int
    m: int
    r: int
    p: int
    c: int = 0

    def __str__(self):
        return f"N{self.n}-q{self.q}-M{self.m}-r{self.r}-p{self.p}-c{self.c}"

    def parts(self, seed=0):
        """H = s sum calJ calJ^T + prior: the pieces from which `assemble` builds it."""
        rng = np.random.default_rng(seed)
        span = np.linalg.qr(rng.normal(size=(self.p, self.p)))[0][:, : self.r]
        row_prior = rng.normal(size=(self.n, self.q, self.q + 2))
        border_prior = rng.normal(size=(self.m, self.m + 2))
        return {
            "features": rng.normal(size=(self.n, self.m)),
            "jacobians": rng.normal(size=(self.n, self.q, self.r)),
            "span": span,
            "row_prior": row_prior @ row_prior.transpose(0, 2, 1),
            "border_prior": border_prior @ border_prior.T,
            "border_columns": rng.normal(size=(self.c, self.m, self.r)),
            "scale": 1.7,
        }

    def build(self, seed=0) -> SpanArrowMatrix:
        return assemble(**self.parts(seed))


def assemble(
    features, jacobians, span, row_prior, border_prior, border_columns, scale
) -> SpanArrowMatrix:
    return SpanArrowMatrix(
        rows=scale * jacobians @ jacobians.transpose(0, 2, 1) + row_prior,
        features=features, jacobians=jacobians, span=span,
        gram=scale * features.T @ features + border_prior,
        border_columns=border_columns, scale=scale,
    )


SPANS = [
    SpanShape(6, 3, 4, 3, 5),
    SpanShape(6, 3, 4, 3, 5, c=1),
    SpanShape(6, 3, 4, 3, 5, c=2),
    SpanShape(5, 2, 3, 4, 4),
    SpanShape(5, 2, 3, 4, 4, c=2),
    SpanShape(5, 2, 3, 0, 4),
    SpanShape(5, 2, 3, 0, 4, c=1),
    SpanShape(5, 0, 3, 2, 4, c=1),
    SpanShape(1, 2, 3, 2, 4),
    SpanShape(4, 1, 1, 1, 1),
    SpanShape(0, 2, 3, 2, 4),
    SpanShape(20, 5, 2, 2, 9, c=2),
]


@dataclass(frozen=True)
class DenseSpanInverse:
    """Every contraction of `SpanSelectedInverse`, from its definition, on the dense inverse."""

    rows: np.ndarray
    border_trace: np.ndarray
    jac_cross: np.ndarray
    feature_cross: np.ndarray
    border: np.ndarray

    @classmethod
    def of(cls, matrix: SpanArrowMatrix, dense: np.ndarray | None = None) -> DenseSpanInverse:
        n, q, _ = matrix.rows.shape
        m, p = matrix.border_shape
        s, phi, j, span = matrix.scale, matrix.features, matrix.jacobians, matrix.span
        inverse = np.linalg.inv(matrix.to_dense() if dense is None else dense)
        index = np.arange(n * q).reshape(n, q)
        rows = inverse[index[:, :, None], index[:, None, :]]
        cross = inverse[: n * q, n * q :].reshape(n, q, m, p)
        border = inverse[n * q :, n * q :].reshape(m, p, m, p)
        border_trace = np.einsum("aobo->ab", border)
        jac_cross = s * (rows @ j + np.einsum("nm,namo,or->nar", phi, cross, span))
        feature_cross = s * (
            phi @ border_trace + np.einsum("nar,or,namo->nm", j, span, cross, optimize=True))
        return cls(rows, border_trace, jac_cross, feature_cross, border)
