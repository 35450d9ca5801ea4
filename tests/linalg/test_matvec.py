"""Property: matvec is the product with the dense matrix, and the dense matrix is what it says."""

import numpy as np
import pytest
from scipy import sparse

from reml_sae.linalg import ArrowMatrix

from .systems import ARROWS, SPANS, as_groups, assert_close, join, split


@pytest.mark.parametrize("shape", ARROWS, ids=str)
@pytest.mark.parametrize("trailing", [(), (3,)], ids=["one", "several"])
def test_arrow_matvec(shape, trailing):
    matrix = shape.build()
    x = np.random.default_rng(1).normal(size=(matrix.dim, *trailing))
    out = matrix.matvec(*split(matrix, x))
    assert_close(join(matrix, *out), matrix.to_dense() @ x)


@pytest.mark.parametrize("shape", ARROWS, ids=str)
def test_arrow_dense_has_its_blocks(shape):
    matrix = shape.build()
    dense, split_at, start = matrix.to_dense(), matrix.dim - matrix.border_dim, 0
    expected = np.zeros_like(dense)
    for blocks, couplings in zip(
            as_groups(matrix.rows), as_groups(matrix.coupling), strict=True):
        for d, c in zip(blocks, couplings, strict=True):
            here = slice(start, start + len(d))
            expected[here, here], expected[here, split_at:] = d, c
            expected[split_at:, here] = c.T
            start += len(d)
    expected[split_at:, split_at:] = matrix.border
    np.testing.assert_array_equal(dense, expected)


@pytest.mark.parametrize("shape", ARROWS, ids=str)
def test_arrow_dimensions(shape):
    matrix = shape.build()
    assert matrix.row_groups == shape.groups
    assert matrix.n_rows == sum(n for n, _ in shape.groups)
    assert matrix.border_dim == shape.border
    assert matrix.to_dense().shape == (matrix.dim, matrix.dim)


def test_sparse_border_is_the_dense_one():
    matrix = ARROWS[0].build()
    other = ArrowMatrix(matrix.rows, matrix.coupling, sparse.csc_matrix(matrix.border))
    np.testing.assert_array_equal(other.to_dense(), matrix.to_dense())


@pytest.mark.parametrize("dtype", [np.float32, np.int64, ">f8"])
def test_other_dtypes_become_float64(dtype):
    rows = np.tile(4 * np.eye(2), (3, 1, 1)).astype(dtype)
    matrix = ArrowMatrix(rows, np.ones((3, 2, 1), dtype), np.array([[9]], dtype))
    assert matrix.to_dense().dtype == np.float64
    assert matrix.factorize().solve(np.ones((3, 2)), np.ones(1))[0].dtype == np.float64


def test_read_only_fortran_input_is_left_alone():
    matrix = ARROWS[0].build()
    parts = [np.asfortranarray(a) for a in (matrix.rows, matrix.coupling, matrix.border)]
    for part in parts:
        part.setflags(write=False)
    factor = ArrowMatrix(*parts).factorize()
    factor.selected_inverse()
    assert factor.logdet() == pytest.approx(matrix.factorize().logdet(), rel=1e-13)


@pytest.mark.parametrize("shape", SPANS, ids=str)
def test_span_matvec(shape):
    matrix = shape.build()
    rng = np.random.default_rng(1)
    x_rows, x_border = rng.normal(size=(shape.n, shape.q)), rng.normal(size=(shape.m, shape.p))
    rows, border = matrix.matvec(x_rows, x_border)
    expected = matrix.to_dense() @ np.concatenate([x_rows.ravel(), x_border.ravel()])
    assert_close(np.concatenate([rows.ravel(), border.ravel()]), expected)


@pytest.mark.parametrize("shape", SPANS, ids=str)
def test_span_dense_is_the_formula(shape):
    parts = shape.parts()
    matrix = shape.build()
    full = parts["jacobians"] @ parts["span"].T
    width, n_row = shape.m * shape.p, shape.n * shape.q
    # rows of the joint Jacobian: every observed entry (i, o) against (xi, beta)
    joint = np.zeros((shape.n, shape.p, n_row + width))
    for i in range(shape.n):
        joint[i, :, i * shape.q : (i + 1) * shape.q] = full[i].T
        joint[i, :, n_row:] = np.kron(parts["features"][i], np.eye(shape.p))
    joint = joint.reshape(shape.n * shape.p, n_row + width)
    expected = parts["scale"] * joint.T @ joint
    # the data part of D is s j j^T because Q has orthonormal columns
    for i in range(shape.n):
        here = slice(i * shape.q, (i + 1) * shape.q)
        expected[here, here] += parts["row_prior"][i]
    expected[n_row:, n_row:] += np.kron(parts["border_prior"], np.eye(shape.p))
    for column in parts["border_columns"]:
        flat = (column @ parts["span"].T).ravel()
        expected[n_row:, n_row:] += np.outer(flat, flat)
    assert_close(matrix.to_dense(), expected, 1e-13)
