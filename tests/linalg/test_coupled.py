"""Span arrowheads with coupled rows or a dense border: every quantity against a dense matrix."""

from dataclasses import replace

import numpy as np
import pytest

from reml_sae.errors import InputError, NotPositiveDefiniteError
from reml_sae.linalg import LowRankUpdate, SpanArrowFactor, SparseSpanFactor
from tests.linalg.systems import DenseSpanInverse, SpanShape

SHAPES = [SpanShape(6, 3, 4, 3, 5, c=1), SpanShape(5, 2, 3, 4, 4), SpanShape(8, 1, 2, 2, 6, c=2),
          SpanShape(20, 2, 2, 2, 2)]
PARTS = ["edges", "low rank", "indefinite low rank", "both"]


def coupled(shape, part):
    """Matrix, columns (c, N, q), core (c, c) and the whole as a dense matrix."""
    matrix, rng = shape.build(), np.random.default_rng(3)
    n, q = shape.n, shape.q
    columns, core = np.zeros((0, n, q)), np.zeros((0, 0))
    if part in ("edges", "both"):
        pairs = np.array([(i, j) for i in range(n) for j in (i + 1, i + 3) if j < n])
        heads, tails = pairs[::2].T
        # a pair may come twice, and either way round
        heads, tails = np.append(heads, tails[0]), np.append(tails, heads[0])
        root = rng.normal(size=(len(heads), q, q))
        rows = matrix.rows.copy()
        np.add.at(rows, heads, root @ root.transpose(0, 2, 1) + np.eye(q))
        np.add.at(rows, tails, root.transpose(0, 2, 1) @ root + np.eye(q))
        matrix = replace(matrix, rows=rows, heads=heads, tails=tails, edges=-root)
    if part != "edges":
        columns = rng.normal(size=(3, n, q))
        root = rng.normal(size=(3, 3))
        core = root @ root.T if part != "indefinite low rank" else np.diag([-1e-3, 0.0, 0.5])
    dense = matrix.to_dense()
    flat = columns.reshape(len(columns), n * q)
    dense[: n * q, : n * q] += flat.T @ core @ flat
    return matrix, columns, core, dense


def factorize(matrix, columns, core, chunk_rows=None):
    return replace(matrix, columns=columns, core=core).factorize(chunk_rows)


cases = pytest.mark.parametrize("shape", SHAPES, ids=str)
parts = pytest.mark.parametrize("part", PARTS)


@cases
@parts
def test_logdet(shape, part):
    *pieces, dense = coupled(shape, part)
    assert factorize(*pieces).logdet() == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-12)


@cases
@parts
def test_solve(shape, part):
    *pieces, dense = coupled(shape, part)
    rng = np.random.default_rng(5)
    g_rows, g_border = rng.normal(size=(shape.n, shape.q)), rng.normal(size=(shape.m, shape.p))
    rows, border = factorize(*pieces).solve(g_rows, g_border)
    expected = np.linalg.solve(dense, np.concatenate([g_rows.ravel(), g_border.ravel()]))
    np.testing.assert_allclose(np.concatenate([rows.ravel(), border.ravel()]), expected,
                               atol=1e-11 * np.abs(expected).max())


@cases
@parts
@pytest.mark.parametrize("chunk_rows", [None, 2])
def test_selected_inverse(shape, part, chunk_rows):
    matrix, columns, core, dense = coupled(shape, part)
    found = factorize(matrix, columns, core, chunk_rows).selected_inverse()
    expected = DenseSpanInverse.of(matrix, dense)
    for name in ("rows", "border_trace", "jac_cross", "feature_cross"):
        reference = getattr(expected, name)
        np.testing.assert_allclose(getattr(found, name), reference, err_msg=name,
                                   atol=1e-11 * np.abs(reference).max())
    n, q = shape.n, shape.q
    inverse = np.linalg.inv(dense)[: n * q, : n * q]
    blocks = inverse.reshape(n, q, n, q)[matrix.heads, :, matrix.tails, :]
    np.testing.assert_allclose(found.edges, blocks.reshape(-1, q, q),
                               atol=1e-11 * np.abs(inverse).max())
    flat = columns.reshape(len(columns), n * q) @ inverse
    np.testing.assert_allclose(found.columns, flat.reshape(columns.shape), atol=1e-11)


@cases
@parts
def test_border_of_the_inverse(shape, part):
    *pieces, dense = coupled(shape, part)
    factor, start = factorize(*pieces), shape.n * shape.q
    m, p, span = shape.m, shape.p, pieces[0].span
    inverse = np.linalg.inv(dense)[start:, start:].reshape(m, p, m, p)
    v = np.random.default_rng(6).normal(size=(m, p))
    np.testing.assert_allclose(factor.apply_border_inverse(v),
                               np.einsum("aobq,bq->ao", inverse, v), atol=1e-11)
    inside = np.einsum("or,aobq,qs->arbs", span, inverse, span, optimize=True)
    np.testing.assert_allclose(factor.border_inverse(), inside, atol=1e-11)
    where = slice(1, m)
    np.testing.assert_allclose(factor.coefficient_covariance(where),
                               np.einsum("aobo->oab", inverse)[:, where, where], atol=1e-11)


@cases
@parts
def test_matvec(shape, part):
    matrix, _, _, _ = coupled(shape, part)
    rng = np.random.default_rng(7)
    rows, border = rng.normal(size=(shape.n, shape.q)), rng.normal(size=(shape.m, shape.p))
    found = matrix.matvec(rows, border)
    expected = matrix.to_dense() @ np.concatenate([rows.ravel(), border.ravel()])
    np.testing.assert_allclose(np.concatenate([part.ravel() for part in found]), expected,
                               atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("edges", [False, True])
def test_dense_border(edges):
    shape = SpanShape(8, 2, 3, 4, 4)
    matrix = coupled(shape, "edges")[0] if edges else shape.build()
    root = np.random.default_rng(8).normal(size=(12, 12))
    matrix = replace(matrix, dense_border=root @ root.T, span=np.eye(4))
    dense = matrix.to_dense()
    factor = matrix.factorize()
    assert isinstance(factor, SparseSpanFactor if edges else SpanArrowFactor)
    assert factor.logdet() == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-12)
    found, expected = factor.selected_inverse(), DenseSpanInverse.of(matrix, dense)
    for name in ("rows", "border_trace", "jac_cross", "feature_cross"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-11)
    np.testing.assert_allclose(factor.border_inverse(), expected.border, atol=1e-11)
    x = np.random.default_rng(9).normal(size=(3, 4))
    product = matrix.matvec(np.zeros((8, 2)), x)[1]
    np.testing.assert_allclose(product.ravel(), (dense @ np.append(np.zeros(16), x))[16:])


def test_a_dense_border_needs_the_whole_space():
    matrix = SpanShape(5, 2, 3, 2, 4).build()
    with pytest.raises(InputError, match="span must be the identity"):
        replace(matrix, dense_border=np.eye(12))


def test_edges_that_are_too_strong_are_named():
    matrix = coupled(SHAPES[0], "edges")[0]
    with pytest.raises(NotPositiveDefiniteError, match="matrix of all rows"):
        replace(matrix, edges=100.0 * matrix.edges).factorize()


def test_a_low_rank_part_that_is_too_negative_is_named():
    matrix, columns, core, _ = coupled(SHAPES[0], "low rank")
    with pytest.raises(NotPositiveDefiniteError, match="couples all rows"):
        LowRankUpdate(matrix.factorize(), columns, -100.0 * core)
