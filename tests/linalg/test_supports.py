"""Rows that meet a few rows of the border each: the factor by supports is that of all rows."""

from dataclasses import replace

import numpy as np
import pytest

from reml_sae.linalg import DenseCholesky, PackedFactor, SpanArrowMatrix
from reml_sae.linalg._span_factor import SpanArrowFactor
from reml_sae.linalg._supports import SupportedRows, supports_of

SCALE, ATOMS, SIZE = 1.3, 6, 3


def system(seed, n_active, p=5, r=5, n=80):
    """An arrowhead of rows that use some of six atoms of three features, and an intercept."""
    rng = np.random.default_rng(seed)
    m, q = ATOMS * SIZE + 1, ATOMS
    active = rng.random((n, ATOMS)).argsort(axis=1).argsort(axis=1) < n_active
    active[:3] = False  # rows that use none
    met = np.column_stack([np.repeat(active, SIZE, axis=1), np.ones(n, bool)])
    features = rng.normal(size=(n, m)) * met
    features[5:9, :SIZE] = 0.0  # a feature may vanish where a row can have it
    jacobians = rng.normal(size=(n, q, r)) * active[:, :, None]
    root = rng.normal(size=(n, q, q))
    both = active[:, :, None] & active[:, None, :]
    rows = both * (root @ root.transpose(0, 2, 1) + SCALE * np.eye(q)) + np.eye(q)
    rows += SCALE * jacobians @ jacobians.transpose(0, 2, 1)
    gram = SCALE * features.T @ features + np.eye(m)
    columns = np.zeros((2, m, r))
    columns[0, 2:5], columns[1, -1] = rng.normal(size=(3, r)), rng.normal(size=r)
    span = np.linalg.qr(rng.normal(size=(p, r)))[0]
    return SpanArrowMatrix(rows, features, jacobians, span, gram, columns, SCALE, carried=active,
                           met=met)


CASES = [(seed, s, p, r) for s in (1, 2, 3) for seed, p, r in ((0, 5, 5), (1, 6, 3))]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("chunk_rows", [None, 2])
def test_supports_are_exact(case, chunk_rows):
    seed, s, p, r = case
    matrix = system(seed, s, p, r)
    factor = matrix.factorize(chunk_rows)
    assert isinstance(factor, PackedFactor)
    assert isinstance(factor._base._rows, SupportedRows)
    whole = SpanArrowFactor(replace(matrix, carried=None, met=None))
    dense, inverse = matrix.to_dense(), np.linalg.inv(matrix.to_dense())
    assert factor.logdet() == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-12)
    rng = np.random.default_rng(2)
    g = rng.normal(size=matrix.rows.shape[:2]), rng.normal(size=matrix.border_shape)
    solved = inverse @ np.concatenate([part.ravel() for part in g])
    np.testing.assert_allclose(np.concatenate([x.ravel() for x in factor.solve(*g)]), solved,
                               atol=1e-10)
    found, expected = factor.selected_inverse(), whole.selected_inverse()
    carried = matrix.carried[:, :, None]
    np.testing.assert_allclose(found.rows, expected.rows, atol=1e-12)
    np.testing.assert_allclose(found.jac_cross * carried, expected.jac_cross * carried, atol=1e-12)
    np.testing.assert_allclose(found.border_trace, expected.border_trace, atol=1e-12)
    # nothing asks for what a row has on a feature that it lacks
    met = matrix.met
    np.testing.assert_allclose(found.feature_cross[met], expected.feature_cross[met], atol=1e-12)


def test_rows_that_meet_most_of_the_border_have_no_supports():
    matrix = system(0, 5)
    assert supports_of(matrix.met) == []
    assert not isinstance(matrix.factorize()._base._rows, SupportedRows)


def test_blocks_of_an_inverse():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(9, 9))
    factor = DenseCholesky.of(root @ root.T + np.eye(9), "a matrix")
    inverse = np.linalg.inv(root @ root.T + np.eye(9))
    for start, stop in ((0, 9), (2, 5), (8, 9), (4, 4)):
        np.testing.assert_allclose(factor.inverse_block(start, stop),
                                   inverse[start:stop, start:stop], rtol=1e-10, atol=1e-12)
