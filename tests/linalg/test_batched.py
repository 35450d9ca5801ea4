"""Property: batched helpers agree with the single-matrix routines, empty stacks included."""

import numpy as np
import pytest

from reml_sae.linalg import (
    batched_cholesky,
    batched_cholesky_solve,
    batched_inverse,
    batched_is_definite,
    batched_logdet,
    batched_solve_lower,
    batched_solve_psd,
    batched_solve_upper,
)

from .systems import assert_close

SHAPES = [(6, 3), (1, 4), (3, 9), (5, 1), (0, 3), (4, 0), (0, 0)]


@pytest.fixture(params=SHAPES, ids=str)
def blocks(request):
    n, q = request.param
    factor = np.random.default_rng(6).normal(size=(n, q, q + 2))
    return factor @ factor.transpose(0, 2, 1)


def test_cholesky(blocks):
    lower = batched_cholesky(blocks)
    assert_close(lower @ lower.transpose(0, 2, 1), blocks, 1e-12)
    assert not np.triu(lower, 1).any()


@pytest.mark.parametrize("with_factors", [False, True])
def test_inverse(blocks, with_factors):
    inverse = batched_inverse(blocks, batched_cholesky(blocks) if with_factors else None)
    identity = np.broadcast_to(np.eye(blocks.shape[1]), blocks.shape)
    assert_close(inverse @ blocks, identity)


def test_solve(blocks):
    rhs = np.random.default_rng(7).normal(size=blocks.shape[:2])
    assert_close(np.einsum("nab,nb->na", blocks, batched_solve_psd(blocks, rhs)), rhs)


def test_definite(blocks):
    for shift in (0.0, 1.0, 4.0):
        moved = blocks - shift * np.eye(blocks.shape[1])
        lowest = [np.linalg.eigvalsh(block).min(initial=1.0) for block in moved]
        np.testing.assert_array_equal(batched_is_definite(moved), np.array(lowest) > 0.0)


@pytest.mark.parametrize("k", [0, 1, 4])
def test_triangular_solves(blocks, k):
    rhs = np.random.default_rng(8).normal(size=(*blocks.shape[:2], k))
    given, lower = rhs.copy(), batched_cholesky(blocks)
    assert_close(lower @ batched_solve_lower(lower, rhs), rhs)
    assert_close(lower.transpose(0, 2, 1) @ batched_solve_upper(lower, rhs), rhs)
    assert_close(blocks @ batched_cholesky_solve(lower, rhs), rhs)
    assert (rhs == given).all()


def test_logdet(blocks):
    assert_close(batched_logdet(blocks), [np.linalg.slogdet(b)[1] for b in blocks], 1e-12)


def test_first_row_is_added_to_the_row_that_an_error_names():
    with pytest.raises(ArithmeticError, match="row block 12 ") as error:
        batched_cholesky(np.stack([np.eye(2), np.eye(2), -np.eye(2)]), first_row=10)
    assert error.value.row == 12
