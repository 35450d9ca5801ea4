"""Property: unusable input is refused with the argument's name and what is wrong with it."""

from dataclasses import replace

import numpy as np
import pytest

from reml_sae.errors import InputError
from reml_sae.linalg import ArrowMatrix

from .systems import ArrowShape, SpanShape

D, C, A = np.tile(np.eye(3), (4, 1, 1)), np.zeros((4, 3, 2)), np.eye(2)
SKEW = D.copy()
SKEW[2, 0, 1] = 0.5


def with_value(array, index, value):
    array = array.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("rows", "coupling", "border", "match"),
    [
        (D[0], C, A, r"rows must have shape \(n, q, q\), got \(3, 3\)"),
        (D[:, :2], C, A, r"rows must have shape \(n, q, q\), got \(4, 2, 3\)"),
        (D, C[:3], A, r"coupling must have shape \(4, 3, 2\).*got \(3, 3, 2\)"),
        (D, C[:, :2], A, r"coupling must have shape \(4, 3, 2\)"),
        (D, C, np.eye(3), r"coupling must have shape \(4, 3, 3\)"),
        (D, C, A[:1], r"border must have shape \(P, P\), got \(1, 2\)"),
        (D, C, np.ones(2), r"border must have shape \(P, P\)"),
        (SKEW, C, A, r"block 2 of rows is not symmetric.*0\.5"),
        (D, C, np.array([[1.0, 0.3], [0.0, 1.0]]), "border is not symmetric"),
        (with_value(D, (1, 2, 2), np.nan), C, A, r"rows.*nan at index \(1, 2, 2\)"),
        (D, with_value(C, (3, 0, 1), np.inf), A, r"coupling.*inf at index \(3, 0, 1\)"),
        (D, C, with_value(A, (0, 1), -np.inf), r"border.*-inf at index \(0, 1\)"),
        (D.astype(complex), C, A, "rows must hold real numbers, got dtype complex128"),
        (D, C, np.array([["a", "b"], ["c", "d"]]), "border must hold real numbers"),
        ([D], C, A, "rows and coupling must both be"),
        ([D, D], [C], A, "rows has 2 groups but coupling has 1"),
        ([D, SKEW], [C, C], A, r"block 2 of rows\[1\]"),
        ([D, D], [C, C[:1]], A, r"coupling\[1\] must have shape"),
        (D, C, [[1.0, 2.0], [3.0]], "border is not an array"),
    ],
)
def test_arrow_matrix(rows, coupling, border, match):
    with pytest.raises(InputError, match=match):
        ArrowMatrix(rows, coupling, border)


def test_rounding_asymmetry_is_averaged_away():
    rows = with_value(D, (0, 0, 1), 1e-15)
    matrix = ArrowMatrix(rows, C, A)
    assert matrix.rows[0, 0, 1] == matrix.rows[0, 1, 0] == 0.5e-15
    assert rows[0, 1, 0] == 0.0


@pytest.mark.parametrize(
    ("g_rows", "g_border", "match"),
    [
        (np.ones((4, 2)), np.ones(2), r"g_rows must have shape \(4, 3\), got \(4, 2\)"),
        (np.ones((4, 3)), np.ones(3), r"g_border must have shape \(2,\)"),
        (np.ones((4, 3)), np.ones((2, 5)), r"g_rows must have shape \(4, 3, 5\)"),
        (np.ones((4, 3, 5)), np.ones(2), r"g_rows must have shape \(4, 3\)"),
        (np.ones((4, 3)), np.array([1.0, np.nan]), "g_border.*nan"),
        ([np.ones((4, 3))], np.ones(2), "g_rows must be one array"),
    ],
)
def test_arrow_solve(g_rows, g_border, match):
    with pytest.raises(InputError, match=match):
        ArrowMatrix(D, C, A).factorize().solve(g_rows, g_border)


def test_ragged_solve():
    factor = ArrowShape(((4, 3), (2, 1)), 2, ragged=True).build().factorize()
    with pytest.raises(InputError, match="g_rows must be a list of groups"):
        factor.solve(np.ones((4, 3)), np.ones(2))
    with pytest.raises(InputError, match="g_rows has 1 groups, the matrix has 2"):
        factor.solve([np.ones((4, 3))], np.ones(2))
    with pytest.raises(InputError, match=r"g_rows\[1\] must have shape \(2, 1\)"):
        factor.solve([np.ones((4, 3)), np.ones((2, 2))], np.ones(2))


@pytest.mark.parametrize("build", [ArrowShape(((4, 3),), 2).build, SpanShape(4, 2, 3, 2, 5).build])
@pytest.mark.parametrize("chunk_rows", [0, -3])
def test_chunk_rows(build, chunk_rows):
    with pytest.raises(InputError, match=f"chunk_rows must be at least 1, got {chunk_rows}"):
        build().factorize(chunk_rows)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("features", (5, 3)), ("jacobians", (4, 2, 3)), ("gram", (2, 2)), ("span", (5, 3)),
     ("rows", (4, 3, 3)), ("border_columns", (1, 3, 5))],
)
def test_span_matrix(name, shape):
    with pytest.raises(InputError, match=r"must have shape .*got"):
        replace(SpanShape(4, 2, 3, 2, 5).build(), **{name: np.ones(shape)})


def test_span_wider_than_the_outputs():
    matrix = SpanShape(4, 2, 3, 2, 5).build()
    with pytest.raises(InputError, match="2 columns of length 1"):
        replace(matrix, span=np.ones((1, 2)))
