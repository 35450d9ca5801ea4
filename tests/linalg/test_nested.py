"""The nested arrowhead against the span arrowhead that holds the same matrix."""

from dataclasses import replace

import numpy as np
import pytest

from reml_sae.errors import NotPositiveDefiniteError
from reml_sae.linalg import BorderBlocks, MeetsBlock, NestedFactor, SpanArrowMatrix
from reml_sae.linalg._rows import EliminatedRows

SCALE, SHARED = 1.7, 0.4


def batch(rng, p, counts, m, q, r, c):
    n, k = sum(counts), len(counts)
    meets = MeetsBlock(np.array(counts))
    features = np.concatenate([rng.normal(size=(n, m)), np.ones((n, 1))], axis=1)
    jacobians = 0.5 * rng.normal(size=(n, q, r))
    rows = SCALE * jacobians @ jacobians.transpose(0, 2, 1) + np.eye(q)
    grams = SCALE * meets.sums(features, features)
    grams[:, :m, :m] += 0.3 * np.eye(m)
    spans = np.linalg.qr(rng.normal(size=(k, p, r)))[0] if r else np.zeros((k, p, 0))
    return BorderBlocks(rows, features, jacobians, meets, spans, grams,
                        rng.normal(size=(k, c, m, r)))


def dense(batches):
    """The same matrix, with a border of all blocks and a span that is everything."""
    p = batches[0].spans.shape[1]
    sizes = [m for b in batches for m in [b.grams.shape[1] - 1] * len(b.spans)]
    M, q = sum(sizes) + 1, max(b.rows.shape[1] for b in batches)
    N = sum(len(b.rows) for b in batches)
    rows, jacobians = np.tile(np.eye(q), (N, 1, 1)), np.zeros((N, q, p))
    features, gram = np.zeros((N, M)), np.zeros((M, M))
    gram[-1, -1] = SHARED
    columns, places, first, row = [], [], 0, 0
    for b in batches:
        own, m = b.rows.shape[1], b.grams.shape[1] - 1
        ends = np.cumsum(b.incidence.counts)[:-1]
        for j, where in enumerate(np.split(np.arange(len(b.rows)), ends)):
            place = np.append(np.arange(first, first + m), M - 1)
            for i in where:
                rows[row, :own, :own] = b.rows[i]
                jacobians[row, :own] = b.jacobians[i] @ b.spans[j].T
                features[row, place] = b.features[i]
                row += 1
            gram[np.ix_(place, place)] += b.grams[j]
            for column in b.columns[j]:
                full = np.zeros((M, p))
                full[place[:-1]] = column @ b.spans[j].T
                columns.append(full)
            places.append(place)
            first += m
    return SpanArrowMatrix(rows, features, jacobians, np.eye(p), gram,
                           np.array(columns).reshape(-1, M, p), SCALE), places


CASES = {
    "one batch": [([5, 7, 4], 3, 2, 2, 1)],
    "two batches": [([6, 3], 3, 2, 2, 1), ([9, 0, 5], 5, 3, 4, 0)],
    "spans of everything": [([8, 6], 7, 3, 6, 2)],
    "points": [([4, 3], 1, 1, 0, 0), ([6], 3, 2, 3, 1)],
}


@pytest.fixture(params=CASES, scope="module")
def system(request):
    rng = np.random.default_rng(0)
    batches = [batch(rng, 6, *case) for case in CASES[request.param]]
    matrix, places = dense(batches)
    return batches, NestedFactor(batches, SCALE, SHARED), matrix, matrix.factorize(), places


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


def test_logdet(system):
    _, nested, matrix, _, _ = system
    close(nested.logdet(), np.linalg.slogdet(matrix.to_dense())[1])


def test_solve(system):
    batches, nested, _, factor, places = system
    rng = np.random.default_rng(1)
    g_rows = [rng.normal(size=b.rows.shape[:2]) for b in batches]
    g_blocks = [rng.normal(size=(len(b.spans), b.grams.shape[1] - 1, 6)) for b in batches]
    g_shared = rng.normal(size=6)
    x_rows, x_blocks, x_shared = nested.solve(g_rows, g_blocks, g_shared)
    border = np.zeros(factor.matrix.border_shape)
    rows = np.zeros(factor.matrix.rows.shape[:2])
    rows[:] = np.concatenate([np.pad(g, ((0, 0), (0, rows.shape[1] - g.shape[1]))) for g in g_rows])
    for place, block in zip(places, [b for g in g_blocks for b in g], strict=True):
        border[place[:-1]] = block
    border[-1] = g_shared
    expected_rows, expected = factor.solve(rows, border)
    for place, block in zip(places, [b for x in x_blocks for b in x], strict=True):
        close(block, expected[place[:-1]])
    close(x_shared, expected[-1])
    close(np.concatenate([np.pad(x, ((0, 0), (0, rows.shape[1] - x.shape[1]))) for x in x_rows]),
          expected_rows)


def test_selected_inverse(system):
    batches, nested, _, factor, places = system
    found, total = nested.selected_inverse()
    expected = factor.selected_inverse()
    close(total, expected.border_trace[-1, -1])
    row, block = 0, 0
    for b, inverse in zip(batches, found, strict=True):
        n, q = b.rows.shape[:2]
        close(inverse.rows, expected.rows[row:row + n, :q, :q])
        spans = b.incidence.of_rows(b.spans)
        cross = inverse.jac_cross @ spans.transpose(0, 2, 1)
        cross += inverse.jac_beyond @ b.incidence.of_rows(inverse.beyond)
        close(cross, expected.jac_cross[row:row + n, :q])
        for j in range(len(b.spans)):
            place = places[block + j]
            close(inverse.border_trace[j], expected.border_trace[np.ix_(place, place)])
        for i in range(n):
            place = places[block + b.incidence.block[i]]
            close(inverse.feature_cross[i], expected.feature_cross[row + i, place])
        row, block = row + n, block + len(b.spans)


def test_blocks_of_the_inverse(system):
    batches, nested, matrix, _, places = system
    M, p = matrix.border_shape
    inverse = np.linalg.inv(matrix.to_dense())[-M * p:, -M * p:].reshape(M, p, M, p)
    rng, block = np.random.default_rng(2), 0
    for number, b in enumerate(batches):
        v = rng.normal(size=(len(b.spans), b.grams.shape[1] - 1, p))
        product = nested.own_inverse(number, v)
        for j in range(len(b.spans)):
            own = places[block][:-1]
            part = inverse[own][:, :, own]
            close(product[j], np.einsum("aobq,bq->ao", part, v[j]))
            close(nested.covariance(number, j), np.einsum("aobo->oab", part))
            block += 1


def test_rows_in_chunks_are_the_same():
    rng = np.random.default_rng(3)
    b = batch(rng, 6, [5, 7, 4], 3, 2, 2, 1)
    whole, chunked = (EliminatedRows(b.rows, b.features, b.jacobians, SCALE, b.incidence, chunk)
                      for chunk in (None, 3))
    close(chunked.coupling(), whole.coupling())


@pytest.mark.parametrize("field", ["rows", "grams"])
def test_what_fails_is_named(field):
    b = batch(np.random.default_rng(4), 6, [5, 4], 3, 2, 2, 0)
    broken = getattr(b, field).copy()
    broken[1] *= -1.0
    with pytest.raises(NotPositiveDefiniteError, match=r"block 1"):
        NestedFactor([replace(b, **{field: broken})], SCALE, SHARED)
