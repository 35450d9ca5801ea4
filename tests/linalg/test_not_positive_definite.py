"""Property: a matrix that is not positive definite is refused, and the first bad row is named."""

from dataclasses import replace

import numpy as np
import pytest

from reml_sae.errors import NotPositiveDefiniteError
from reml_sae.linalg import ArrowMatrix, batched_cholesky, batched_inverse, batched_logdet

from .systems import ArrowShape, SpanShape

SPAN = SpanShape(7, 2, 3, 2, 5)


def negate(rows, bad):
    rows = rows.copy()
    rows[list(bad)] *= -1.0
    return rows


@pytest.mark.parametrize("q", [1, 2, 5])
@pytest.mark.parametrize("bad", [(0,), (6,), (3, 5), (2, 3, 6)], ids=str)
def test_arrow_names_the_first_bad_row(bad, q):
    matrix = ArrowShape(((7, q),), 2).build()
    broken = ArrowMatrix(negate(matrix.rows, bad), matrix.coupling, matrix.border)
    with pytest.raises(NotPositiveDefiniteError, match=f"row block {bad[0]} ") as error:
        broken.factorize()
    assert error.value.row == bad[0]


def test_rows_are_numbered_through_ragged_groups():
    matrix = ArrowShape(((4, 3), (3, 1)), 2, ragged=True).build()
    first, second = matrix.rows
    broken = ArrowMatrix([first, negate(second, [1])], matrix.coupling, matrix.border)
    with pytest.raises(NotPositiveDefiniteError) as error:
        broken.factorize()
    assert error.value.row == 5


def test_arrow_schur_complement():
    matrix = ArrowShape(((4, 3),), 2).build()
    broken = ArrowMatrix(matrix.rows, matrix.coupling, -matrix.border)
    with pytest.raises(NotPositiveDefiniteError, match="Schur complement") as error:
        broken.factorize()
    assert error.value.row is None


def test_blocks_may_be_definite_while_the_matrix_is_not():
    matrix = ArrowShape(((4, 3),), 2).build()
    broken = ArrowMatrix(matrix.rows, 10 * matrix.coupling, matrix.border)
    assert np.linalg.eigvalsh(broken.to_dense())[0] < 0
    with pytest.raises(NotPositiveDefiniteError):
        broken.factorize()


@pytest.mark.parametrize("bad", [(0,), (4, 6)], ids=str)
def test_span_names_the_first_bad_row(bad):
    matrix = SPAN.build()
    with pytest.raises(NotPositiveDefiniteError) as error:
        replace(matrix, rows=negate(matrix.rows, bad)).factorize()
    assert error.value.row == bad[0]


@pytest.mark.parametrize("sign", [-1.0, np.nan])
def test_span_gram(sign):
    matrix = SPAN.build()
    with pytest.raises(NotPositiveDefiniteError, match="Gram") as error:
        replace(matrix, gram=sign * matrix.gram).factorize()
    assert error.value.row is None


def test_span_schur_complement():
    matrix = SPAN.build()
    with pytest.raises(NotPositiveDefiniteError, match="Schur complement") as error:
        replace(matrix, scale=10 * matrix.scale).factorize()
    assert error.value.row is None


def test_a_singular_gram_is_enough_where_the_span_is_everything():
    # with r = p only the Schur complement must be definite; border columns may make it so
    parts = SpanShape(2, 1, 2, 2, 2, c=4).build()
    matrix = replace(parts, features=np.zeros((2, 2)), gram=np.zeros((2, 2)))
    expected = np.linalg.slogdet(matrix.to_dense())[1]
    assert matrix.factorize().logdet() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("function", [batched_cholesky, batched_inverse, batched_logdet])
@pytest.mark.parametrize("q", [1, 3])
def test_batched_first_bad_row_is_first_whatever_is_wrong_with_it(function, q):
    blocks = np.tile(np.eye(q), (8, 1, 1))
    blocks[3] *= -1.0
    blocks[5] = np.nan
    with pytest.raises(NotPositiveDefiniteError) as error:
        function(blocks)
    assert error.value.row == 3
    blocks[3] *= -1.0
    with pytest.raises(NotPositiveDefiniteError) as error:
        function(blocks)
    assert error.value.row == 5
