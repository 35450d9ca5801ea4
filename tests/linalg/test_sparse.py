"""SparseCholesky agrees with dense algebra, for every backend."""

import os
import sys
from contextlib import nullcontext
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from reml_sae.errors import InputError, MissingDependencyError, NotPositiveDefiniteError
from reml_sae.linalg import SparseCholesky, _cholmod, _sparse, _takahashi

from . import scikit_sparse_05
from .systems import assert_close

MISSING = _cholmod.cholmod_module() is None
BACKENDS = [
    pytest.param("cholmod", marks=pytest.mark.skipif(
        MISSING, reason="scikit-sparse is not installed")),
    "splu",
    "fake-0.5",
]
WITHOUT_CHOLMOD = {"sksparse": None, "sksparse.cholmod": None}


def factor_of(matrix, backend=None, name="the matrix"):
    fake = backend == "fake-0.5"
    with patch.object(_cholmod, "cholmod_module", lambda: scikit_sparse_05.module) if fake else (
            nullcontext()):
        return SparseCholesky.of(matrix, name, "cholmod" if fake else backend)


def dominant(pattern, seed=0):
    """Symmetric, diagonally dominant, with the pattern of pattern + its transpose."""
    values = sparse.csc_array(pattern, dtype=float)
    values.data[:] = np.random.default_rng(seed).normal(size=values.nnz)
    values = sparse.csc_array(values + values.T)
    size = np.asarray(abs(values).sum(axis=1)).ravel()
    return sparse.csc_array(values + sparse.diags_array(2 * size + 0.1))


def chain(n, block=1, shift=0.1):
    off = -np.ones(n - 1)
    path = sparse.diags_array([off, np.full(n, 2.0), off], offsets=[-1, 0, 1])
    return sparse.csc_array(sparse.kron(path, np.ones((block, block)))
                            + shift * sparse.eye_array(n * block))


def grid(m):
    path, one = chain(m), sparse.eye_array(m)
    return sparse.csc_array(sparse.kron(path, one) + sparse.kron(one, path))


def arrow(leaves, border, block=1):
    """Independent blocks that all touch a dense border."""
    own = sparse.kron(sparse.eye_array(leaves), np.ones((block, block)))
    cross = np.ones((leaves * block, border))
    return dominant(sparse.block_array([[own, cross], [cross.T, np.ones((border, border))]]))


def forest(seed=0):
    rng = np.random.default_rng(seed)
    trees = []
    for size in (1, 1, 2, 5, 9, 30):
        child = np.arange(1, size)
        parent = (rng.random(size - 1) * child).astype(int)
        trees.append(sparse.coo_array((np.ones(size - 1), (child, parent)), shape=(size, size)))
    return dominant(sparse.block_diag(trees))


def scattered(n, density, seed):
    return dominant(sparse.random_array((n, n), density=density, rng=np.random.default_rng(seed)))


def cancelling():
    """Integers whose elimination produces exact zeros, which SuperLU then drops."""
    rng = np.random.default_rng(4)
    half = rng.integers(-1, 2, size=(40, 30)) * (rng.random((40, 30)) < 0.15)
    return sparse.csc_array(half.T @ half + np.eye(30))


MATRICES = {
    "one": sparse.csc_array([[2.0]]),
    "two": sparse.csc_array([[2.0, 1.0], [1.0, 3.0]]),
    "dense": scattered(12, 1.0, 0),
    "diagonal": sparse.csc_array(sparse.diags_array(np.arange(1.0, 8.0))),
    "chain": chain(300),
    "chain of blocks": chain(100, 3),
    "chain with underflow": chain(400, shift=1e3),
    "grid": grid(17),
    "forest": forest(),
    "arrow": arrow(30, 5, 2),
    "wide arrow": arrow(20, 40),
    "chain under a hub": dominant(sparse.block_array(
        [[chain(250), np.ones((250, 1))], [np.ones((1, 250)), np.ones((1, 1))]])),
    "cancelling": cancelling(),
    **{f"random {n} {density}": scattered(n, density, n)
       for n in (20, 80, 200) for density in (0.004, 0.03, 0.2)},
}
every = [pytest.mark.parametrize("backend", BACKENDS),
         pytest.mark.parametrize("matrix", list(MATRICES.values()), ids=list(MATRICES))]


def on_every_matrix(test):
    for mark in every:
        test = mark(test)
    return test


def assert_inverse(factor, matrix):
    dense = np.linalg.inv(matrix.toarray())
    scale = np.abs(dense).max()
    selected = factor.selected_inverse()
    pattern = sparse.coo_array(matrix)
    expected = np.diag(np.diagonal(dense))
    expected[pattern.row, pattern.col] = dense[pattern.row, pattern.col]
    np.testing.assert_allclose(selected.toarray(), expected, rtol=0, atol=1e-11 * scale)
    assert selected.format == "csc"
    keys = factor._pattern.schedule(factor._factored).keys  # all of the factor's pattern
    perm, n = factor._pattern.analysis.perm, factor.n
    i, j = perm[keys % n], perm[keys // n]
    np.testing.assert_allclose(factor.inverse_at(i, j), dense[i, j], rtol=0, atol=1e-11 * scale)
    np.testing.assert_allclose(factor.inverse_at(j, i), dense[i, j], rtol=0, atol=1e-11 * scale)
    assert_close(factor.inverse_diagonal(), np.diagonal(dense))


@on_every_matrix
def test_solve(matrix, backend):
    factor = factor_of(matrix, backend)
    rhs = np.random.default_rng(1).normal(size=(factor.n, 3))
    expected = np.linalg.solve(matrix.toarray(), rhs)
    assert_close(factor.solve(rhs), expected)
    assert_close(factor.solve(rhs[:, 0]), expected[:, 0])
    assert factor.solve(rhs[:, :0]).shape == (factor.n, 0)


@on_every_matrix
def test_logdet(matrix, backend):
    expected = np.linalg.slogdet(matrix.toarray())[1]
    assert factor_of(matrix, backend).logdet() == pytest.approx(expected, rel=1e-11, abs=1e-11)


@on_every_matrix
def test_inverse(matrix, backend):
    assert_inverse(factor_of(matrix, backend), matrix)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["grid", "wide arrow", "chain of blocks"])
def test_inverse_in_chunks(name, backend):
    with patch.object(_takahashi, "CHUNK_ELEMENTS", 30):
        assert_inverse(factor_of(MATRICES[name], backend), MATRICES[name])


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 40), density=st.floats(0, 0.6), seed=st.integers(0, 2**16))
def test_random_patterns(backend, n, density, seed):
    matrix = scattered(n, density, seed)
    factor = factor_of(matrix, backend)
    assert factor.logdet() == pytest.approx(np.linalg.slogdet(matrix.toarray())[1], abs=1e-10)
    assert_inverse(factor, matrix)


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty(backend):
    factor = factor_of(sparse.csc_array((0, 0)), backend)
    assert factor.logdet() == 0.0
    assert factor.solve(np.empty((0, 2))).shape == (0, 2)
    assert factor.selected_inverse().shape == (0, 0)
    assert factor.inverse_diagonal().shape == (0,)


@pytest.mark.parametrize("backend", BACKENDS)
def test_pattern_is_reused_with_other_values(backend):
    """Also where stored entries are zero in one matrix and not in the next."""
    first = grid(9)
    second = first.copy()
    off = np.flatnonzero(second.data < 0)
    lower = sparse.coo_array(second)
    kept = (lower.row + lower.col) % 3 > 0
    second.data[off] *= kept[off]
    for matrix in (second, first, second):
        assert_inverse(factor_of(matrix, backend), matrix)


@pytest.mark.parametrize("backend", BACKENDS)
def test_same_bits_with_and_without_the_cached_pattern(backend):
    matrix = grid(15)
    results = []
    for fresh in (True, False, True):
        if fresh:
            _sparse._pattern_of.cache_clear()
        factor = factor_of(matrix, backend)
        results.append((factor.logdet(), factor.selected_inverse().data.tobytes(),
                        factor.solve(np.ones(factor.n)).tobytes()))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["csr", "coo", "dia", "lower only", "garbage above", "integers",
                                  "matrix", "duplicates"])
def test_forms_of_the_input(backend, form):
    matrix = chain(9, shift=2.0)
    dense = matrix.toarray()
    entries = matrix.tocoo()
    given_form = {
        "csr": matrix.tocsr(),
        "coo": entries,
        "dia": matrix.todia(),
        "lower only": sparse.tril(matrix),
        "garbage above": sparse.csc_array(matrix + 7 * sparse.triu(np.ones((9, 9)), 1)),
        "integers": matrix.astype(np.int32),
        "matrix": sparse.csc_matrix(matrix),
        "duplicates": sparse.coo_array(
            (np.concatenate([entries.data, entries.data]) / 2,
             (np.tile(entries.row, 2), np.tile(entries.col, 2))), shape=(9, 9)),
    }[form]
    assert_close(factor_of(given_form, backend).solve(np.eye(9)), np.linalg.inv(dense))


@pytest.mark.parametrize("backend", BACKENDS)
def test_input_is_left_alone(backend):
    matrix = sparse.csc_array(grid(5))
    before = matrix.data.copy()
    factor = factor_of(matrix, backend)
    rhs = np.ones(25)
    factor.solve(rhs)
    first = factor.selected_inverse()
    first.data[:] = 0
    assert (matrix.data == before).all() and (rhs == 1).all()
    assert_inverse(factor, matrix)


BAD = {
    "indefinite": [[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    "negative": -np.eye(3),
    "one negative": np.diag([1.0, -1.0, 2.0]),
    "singular": np.ones((3, 3)),
    "zero": np.zeros((3, 3)),
    "zero on the diagonal": [[1.0, 1.0], [1.0, 0.0]],
    "nan": [[np.nan, 0.0], [0.0, 1.0]],
    "infinite": [[np.inf, 0.0], [0.0, 1.0]],
    "indefinite grid": grid(8).toarray() - 3.9 * np.eye(64),
    "indefinite chain": chain(300, shift=-0.5).toarray(),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("values", list(BAD.values()), ids=list(BAD))
def test_not_positive_definite(values, backend):
    with pytest.raises(NotPositiveDefiniteError, match="the border") as caught:
        factor_of(sparse.csc_array(np.asarray(values)), backend, "the border")
    assert caught.value.row is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_error_names_the_row(backend):
    with pytest.raises(NotPositiveDefiniteError, match="row 2 is -5"):
        factor_of(sparse.csc_array(np.diag([1.0, 2.0, -5.0, 3.0])), backend)


@pytest.mark.parametrize(("matrix", "message"), [
    (np.eye(2), "A must be a scipy.sparse matrix, got ndarray"),
    (sparse.csc_array((2, 3)), r"A must have shape \(n, n\), got \(2, 3\)"),
    (sparse.csc_array(1j * np.eye(2)), "A must hold real numbers"),
])
def test_input_errors(matrix, message):
    with pytest.raises(InputError, match=message):
        SparseCholesky.of(matrix, "A")


@pytest.mark.parametrize(("call", "message"), [
    (lambda f: f.solve(np.ones(3)), r"rhs must have shape \(4,\)"),
    (lambda f: f.solve(np.ones((4, 1, 1))), "rhs must have shape"),
    (lambda f: f.inverse_at([0, 3], [0, 0]), r"entry \(3, 0\) is outside"),
    (lambda f: f.inverse_at([0], [4]), r"must be in \[0, 4\)"),
    (lambda f: f.inverse_at([-1], [0]), r"must be in \[0, 4\)"),
    (lambda f: f.inverse_at([0.5], [0]), "must be integers"),
])
def test_argument_errors(call, message):
    factor = factor_of(sparse.block_diag([chain(2), chain(2)]), "splu")
    with pytest.raises(InputError, match=message):
        call(factor)


@pytest.mark.parametrize("backend", BACKENDS)
def test_inverse_at_takes_any_shape(backend):
    factor = factor_of(chain(5), backend)
    dense = np.linalg.inv(chain(5).toarray())
    assert_close(factor.inverse_at(2, 3), dense[2, 3])
    i, j = np.array([[0, 1], [2, 3]]), np.array([[0], [3]])
    assert_close(factor.inverse_at(i, j), dense[i, j])
    assert factor.inverse_at([], []).shape == (0,)


@pytest.mark.parametrize("backend", BACKENDS[:2])
@pytest.mark.parametrize("matrix", [
    chain(4096), chain(2048, 2), MATRICES["chain under a hub"], grid(64), arrow(500, 3)],
    ids=["chain", "blocks", "hub", "grid", "arrow"])
def test_levels_are_few(matrix, backend):
    """The recursion loops in Python over levels, so a deep tree would be slow."""
    factor = factor_of(matrix, backend)
    assert len(factor._pattern.schedule(factor._factored).levels) < 60


def test_equal_rows_are_gathered_once():
    factor = factor_of(MATRICES["wide arrow"], "splu")
    levels = factor._pattern.schedule(factor._factored).levels
    assert any(batch.shared and len(batch.nodes) > 1 for level in levels for batch in level)


@pytest.mark.parametrize("backend", BACKENDS[:2])
def test_columns_of_a_block_form_one_supernode(backend):
    factor = factor_of(arrow(300, 70, 3), backend)
    levels = factor._pattern.schedule(factor._factored).levels
    assert len(levels) == 2 and {batch.width for batch in levels[1]} == {3}


def test_depth_of_a_forest():
    parent = np.array([1, 4, 4, -1, -1, 3])
    assert _takahashi.depth(parent).tolist() == [2, 1, 1, 0, 0, 1]


def test_falls_back_to_splu():
    with patch.dict(sys.modules, WITHOUT_CHOLMOD):
        assert SparseCholesky.of(chain(4), "A").backend == "splu"
        with pytest.raises(MissingDependencyError, match=r"reml-sae\[cholmod\]"):
            SparseCholesky.of(chain(4), "A", "cholmod")


def test_unknown_backend():
    with pytest.raises(InputError, match="backend must be"):
        SparseCholesky.of(chain(4), "A", "umfpack")


def test_cholmod_runs_where_it_is_required():
    backend = SparseCholesky.of(chain(4), "A").backend
    if os.environ.get("REML_SAE_REQUIRE_CHOLMOD") == "1":
        assert backend == "cholmod", "REML_SAE_REQUIRE_CHOLMOD=1, but scikit-sparse is missing"
    elif backend != "cholmod":
        pytest.skip("scikit-sparse is not installed; scipy's splu ran instead")
