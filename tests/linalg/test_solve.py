"""Property: solve agrees with dense algebra."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .systems import ARROWS, SPANS, ArrowShape, assert_close, join, split

CHUNKS = [None, 1, 2]


@pytest.mark.parametrize("chunk_rows", CHUNKS)
@pytest.mark.parametrize("shape", ARROWS, ids=str)
@pytest.mark.parametrize("trailing", [(), (1,), (3,), (0,)], ids=str)
def test_arrow_solve(shape, trailing, chunk_rows):
    matrix = shape.build()
    g = np.random.default_rng(2).normal(size=(matrix.dim, *trailing))
    solution = matrix.factorize(chunk_rows).solve(*split(matrix, g))
    assert_close(join(matrix, *solution), np.linalg.solve(matrix.to_dense(), g))


@pytest.mark.parametrize("shape", ARROWS, ids=str)
def test_arrow_solve_keeps_the_form_of_the_rows(shape):
    matrix = shape.build()
    rows, border = matrix.factorize().solve(*split(matrix, np.ones(matrix.dim)))
    assert isinstance(rows, list) == shape.ragged
    assert border.shape == (shape.border,)


def test_arrow_solve_leaves_the_right_hand_side_alone():
    matrix = ARROWS[0].build()
    rows, border = split(matrix, np.ones(matrix.dim))
    matrix.factorize().solve(rows, border)
    assert (rows == 1).all() and (border == 1).all()


@settings(max_examples=40, deadline=None)
@given(
    groups=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=4),
    border=st.integers(0, 6),
    seed=st.integers(0, 2**16),
)
def test_arrow_solve_undoes_matvec(groups, border, seed):
    matrix = ArrowShape(tuple(groups), border, ragged=True).build(seed)
    x = np.random.default_rng(seed).normal(size=matrix.dim)
    out = matrix.factorize().solve(*matrix.matvec(*split(matrix, x)))
    assert_close(join(matrix, *out), x)


@pytest.mark.parametrize("chunk_rows", CHUNKS)
@pytest.mark.parametrize("shape", SPANS, ids=str)
def test_span_solve(shape, chunk_rows):
    matrix = shape.build()
    rng = np.random.default_rng(2)
    g_rows, g_border = rng.normal(size=(shape.n, shape.q)), rng.normal(size=(shape.m, shape.p))
    rows, border = matrix.factorize(chunk_rows).solve(g_rows, g_border)
    expected = np.linalg.solve(
        matrix.to_dense(), np.concatenate([g_rows.ravel(), g_border.ravel()]))
    assert_close(np.concatenate([rows.ravel(), border.ravel()]), expected)
