"""Property: solve is as accurate as the condition number of the whole matrix allows.

The systems are H = [D, D R; (D R)^T, S + R^T D R]: D and S have condition numbers up to 1e10 while
H has not much more than the larger of them, so that a loss of digits is the factor's own. The
reference is elimination in decimals of 80 digits, on the matrix that the structure stands for.
"""

from dataclasses import replace
from decimal import Decimal, localcontext

import numpy as np
import pytest

from reml_sae.linalg import (
    ArrowMatrix,
    LowRankUpdate,
    PackedFactor,
    PackedRows,
    SpanArrowFactor,
    SpanArrowMatrix,
    SparseSpanFactor,
)

DIGITS = 80
CONDITIONS = [(1e4, 1.0), (1e8, 1.0), (1e10, 1.0), (1.0, 1e4), (1.0, 1e8), (1.0, 1e10),
              (1e4, 1e4), (1e8, 1e8), (1e10, 1e10), (1e10, 1e4), (1e4, 1e10)]
N, Q, M, P = 5, 3, 2, 3
ALLOWED = 10.0
"""Error of a solve, in units of rounding times the condition number of H."""

conditions = pytest.mark.parametrize(("rows", "schur"), CONDITIONS)


def definite(rng, size, condition):
    """Symmetric, with eigenvalues from 1 down to 1 / condition."""
    turn = np.linalg.qr(rng.normal(size=(size, size)))[0]
    out = (turn * np.logspace(0, -np.log10(condition), size)) @ turn.T
    return 0.5 * (out + out.T)


def exact(values):
    return np.vectorize(lambda x: Decimal(float(x)), otypes=[object])(values)


def exact_solution(matrix, rhs):
    """Elimination without pivots, which a positive definite matrix does not need."""
    a, x = matrix.copy(), exact(rhs)
    n = len(x)
    for k in range(n):
        for i in range(k + 1, n):
            share = a[i, k] / a[k, k]
            a[i, k:] -= share * a[k, k:]
            x[i] -= share * x[k]
    for k in reversed(range(n)):
        x[k] = (x[k] - a[k, k + 1:] @ x[k + 1:]) / a[k, k]
    return x.astype(float)


def exact_span(matrix, columns=None, core=None):
    """H of a span arrowhead, entry by entry in decimals."""
    n, q, _ = matrix.rows.shape
    m, p = matrix.border_shape
    out = exact(np.zeros((n * q + m * p,) * 2))
    row = [slice(i * q, (i + 1) * q) for i in range(n)]
    jacobians, features = exact(matrix.jacobians) @ exact(matrix.span.T), exact(matrix.features)
    for i, block in enumerate(matrix.rows):
        out[row[i], row[i]] = exact(block)
        coupling = exact(matrix.scale) * np.kron(features[i], jacobians[i])
        out[row[i], n * q:], out[n * q:, row[i]] = coupling, coupling.T
    for head, tail, block in zip(matrix.heads, matrix.tails, matrix.edges, strict=True):
        out[row[head], row[tail]] += exact(block)
        out[row[tail], row[head]] += exact(block.T)
    out[n * q:, n * q:] = np.kron(exact(matrix.gram), exact(np.eye(p)))
    if matrix.dense_border.size:
        out[n * q:, n * q:] += exact(matrix.dense_border)
    if columns is not None:
        flat = exact(columns.reshape(len(columns), n * q))
        out[: n * q, : n * q] += flat.T @ exact(core) @ flat
    return out


def arrow_system(seed, rows, schur):
    rng = np.random.default_rng(seed)
    d = np.stack([definite(rng, Q, rows) for _ in range(N)])
    spread = rng.normal(size=(N, Q, P))
    border = definite(rng, P, schur) + np.einsum("nap,nab,nbs->ps", spread, d, spread)
    return ArrowMatrix(d, d @ spread, 0.5 * (border + border.T))


def span_system(seed, rows, schur, *, edges=False, carried=None, outside=False):
    """A span arrowhead; its Schur complement is set by a dense border, or by the Gram matrix."""
    rng = np.random.default_rng(seed)
    one = definite(rng, Q, rows)
    d = np.stack([one] * N if edges else [definite(rng, Q, rows) for _ in range(N)])
    scale, features = 0.5, rng.normal(size=(N, M))
    spread = rng.normal(size=(N, Q, P - outside))
    if carried is not None:
        d = d * (carried[:, :, None] & carried[:, None, :]) + np.eye(Q) * ~carried[:, None, :]
        spread = spread * carried[:, :, None]
    jacobians = d @ spread
    span = np.eye(P)[:, : P - outside]
    matrix = SpanArrowMatrix(d, features, jacobians, span, np.zeros((M, M)),
                             np.zeros((0, M, P - outside)), scale)
    if edges:
        heads, tails = np.arange(N - 1), np.arange(1, N)
        matrix = replace(matrix, heads=heads, tails=tails, edges=-0.3 * np.stack([one] * (N - 1)))
    dense = matrix.to_dense()
    pulled = dense[N * Q:, : N * Q] @ np.linalg.solve(dense[: N * Q, : N * Q],
                                                      dense[: N * Q, N * Q:])
    if outside:
        # the same in every output, and above what the rows take away
        gram = definite(rng, M, schur) + np.eye(M) * np.linalg.norm(pulled, 2)
        return replace(matrix, gram=0.5 * (gram + gram.T))
    border = definite(rng, M * P, schur) + pulled
    return replace(matrix, dense_border=0.5 * (border + border.T))


def assert_accurate(found, matrix, rhs):
    expected = exact_solution(matrix, rhs)
    condition = np.linalg.cond(matrix.astype(float))
    bound = ALLOWED * np.finfo(float).eps * condition
    assert bound < 0.1, "the system is too ill-conditioned for doubles to say anything"
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error <= bound, f"error {error:.1e}, allowed {bound:.1e}"


def assert_span_accurate(factor, matrix, seed, columns=None, core=None):
    dense = exact_span(matrix, columns, core)
    # a right-hand side whose solution is not ruled by the smallest eigenvalue, and one whose is
    rng = np.random.default_rng(seed + 1000)
    for rhs in (dense.astype(float) @ rng.normal(size=len(dense)), rng.normal(size=len(dense))):
        found = factor.solve(rhs[: N * Q].reshape(N, Q), rhs[N * Q:].reshape(M, P))
        assert_accurate(np.concatenate([part.ravel() for part in found]), dense, rhs)


@pytest.fixture(autouse=True)
def _many_digits():
    with localcontext() as context:
        context.prec = DIGITS
        yield


@conditions
@pytest.mark.parametrize("seed", range(3))
def test_arrow(rows, schur, seed):
    matrix = arrow_system(seed, rows, schur)
    dense, rng = exact(matrix.to_dense()), np.random.default_rng(seed + 1000)
    for rhs in (matrix.to_dense() @ rng.normal(size=matrix.dim), rng.normal(size=matrix.dim)):
        found = matrix.factorize().solve(rhs[: N * Q].reshape(N, Q), rhs[N * Q:])
        assert_accurate(np.concatenate([part.ravel() for part in found]), dense, rhs)


@conditions
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("outside", [False, True], ids=["whole space", "span"])
def test_span(rows, schur, seed, outside):
    matrix = span_system(seed, rows, schur, outside=outside)
    factor = matrix.factorize()
    assert isinstance(factor, SpanArrowFactor)
    assert_span_accurate(factor, matrix, seed)


@conditions
@pytest.mark.parametrize("seed", range(3))
def test_packed(rows, schur, seed):
    carried = np.random.default_rng(seed).permuted(np.arange(N * Q).reshape(N, Q) % Q > 0, axis=1)
    matrix = span_system(seed, rows, schur, carried=carried)
    packed = PackedRows(carried)
    assert not packed.is_whole
    assert_span_accurate(PackedFactor(matrix, packed), matrix, seed)


@conditions
@pytest.mark.parametrize("seed", range(3))
def test_edges(rows, schur, seed):
    matrix = span_system(seed, rows, schur, edges=True)
    factor = matrix.factorize()
    assert isinstance(factor, SparseSpanFactor)
    assert_span_accurate(factor, matrix, seed)


@pytest.mark.parametrize(("rows", "schur", "strength"), [
    *((rows, schur, strength) for rows, schur in CONDITIONS for strength in (1.0, 100.0)),
    (1.0, 1.0, 1e8), (1e4, 1.0, 1e8), (1.0, 1e4, 1e8), (1e8, 1.0, 1e4), (1.0, 1e8, 1e4)])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("edges", [False, True], ids=["rows", "edges"])
def test_low_rank(rows, schur, seed, edges, strength):
    matrix = span_system(seed, rows, schur, edges=edges)
    rng = np.random.default_rng(seed + 2000)
    columns = np.einsum("nab,cnb->cna", matrix.rows, rng.normal(size=(2, N, Q)))
    core = strength * definite(rng, 2, 10.0)
    assert_span_accurate(LowRankUpdate(matrix.factorize(), columns, core), matrix, seed,
                         columns, core)
