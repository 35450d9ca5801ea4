"""Cholesky factor of one sparse symmetric positive definite matrix.

    P A P^T = L D L^T,    log|A| = sum_j log d_j,    A^-1 on the pattern of L (`_takahashi`)

The ordering and the schedule of the selected inverse depend on the pattern only; they are kept for
the last few patterns, since an outer loop factors one pattern many times.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from reml_sae.errors import InputError, NotPositiveDefiniteError
from reml_sae.linalg._cholmod import (
    Analysis,
    Backend,
    Factored,
    LowerPattern,
    choose,
    positive,
    with_sorted_indices,
)
from reml_sae.linalg._takahashi import Schedule, closed_pattern, contains, merged
from reml_sae.typing import Array

Index = NDArray[np.int64]

PATTERNS_KEPT = 4


class SparseCholesky:
    """Factor of a sparse symmetric positive definite matrix; made by `SparseCholesky.of`.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> A = sparse.csc_array([[4.0, 1.0, 0.0], [1.0, 3.0, 1.0], [0.0, 1.0, 2.0]])
    >>> factor = SparseCholesky.of(A, "A")
    >>> round(factor.logdet(), 6) == round(float(np.log(18.0)), 6)
    True
    >>> np.allclose(A @ factor.solve(np.ones(3)), 1.0)
    True
    >>> np.allclose(factor.inverse_at([0, 1], [0, 0]), [5 / 18, -2 / 18])
    True
    """

    def __init__(self, pattern: _Pattern, factored: Factored):
        self._pattern, self._factored = pattern, factored

    @classmethod
    def of(cls, matrix: Any, name: str, backend: str | None = None) -> SparseCholesky:
        """Factor a matrix, of which only the lower triangle is read.

        Parameters
        ----------
        matrix : (n, n) scipy.sparse matrix or array
        name : str
            What the matrix is, for the message of the error.
        backend : {None, "cholmod", "splu"}
            None takes CHOLMOD where scikit-sparse is installed, scipy's SuperLU otherwise.

        Raises
        ------
        NotPositiveDefiniteError
            Where the matrix is not positive definite, or is not finite.
        InputError
            Where it is not sparse, square and real.
        MissingDependencyError
            Where CHOLMOD was asked for and is missing.
        """
        lower, data = _lower_triangle(matrix, name)
        if not np.isfinite(data).all():
            raise NotPositiveDefiniteError(f"{name} has entries that are not finite")
        positive(data[lower.indptr[:-1]], np.arange(lower.n), f"{name}, by its diagonal,")
        pattern = _pattern_of(lower, choose(backend))
        return cls(pattern, pattern.factorize(data, name))

    def __repr__(self) -> str:
        return f"SparseCholesky(n={self.n}, backend={self.backend!r})"

    @property
    def n(self) -> int:
        """Number of rows."""
        return self._pattern.lower.n

    @property
    def backend(self) -> str:
        """What factored: "cholmod" or "splu"."""
        return self._pattern.analysis.backend

    def solve(self, rhs: Array) -> Array:
        """Solve A x = rhs for (n,) or (n, k)."""
        values = np.asarray(rhs, dtype=np.float64)
        if values.ndim not in (1, 2) or len(values) != self.n:
            raise InputError(f"rhs must have shape ({self.n},) or ({self.n}, k), got "
                             f"{values.shape}")
        if values.size == 0:
            return values.copy()
        out = self._factored.solve(np.asfortranarray(values.reshape(self.n, -1)))
        return np.ascontiguousarray(out).reshape(values.shape)

    def logdet(self) -> float:
        """Log-determinant of A."""
        return float(np.log(self._factored.pivots).sum())

    def selected_inverse(self) -> Any:
        """Return A^-1 on the pattern of A.

        Returns
        -------
        (n, n) scipy.sparse.csc_array
            Both triangles and the whole diagonal. Entries that are zero stay in the pattern.
        """
        lower = self._pattern.lower
        row, column = lower.indices, np.repeat(np.arange(self.n), np.diff(lower.indptr))
        values = self.inverse_at(row, column)
        off = row != column
        return sparse.coo_array(
            (np.concatenate([values, values[off]]),
             (np.concatenate([row, column[off]]), np.concatenate([column, row[off]]))),
            shape=(self.n, self.n)).tocsc()

    def inverse_at(self, i: Any, j: Any) -> Array:
        """Return entries of A^-1.

        Parameters
        ----------
        i, j : int arrays of one shape
            Row and column numbers; every pair must be in the pattern of the factor, which holds
            that of A.

        Returns
        -------
        array of that shape

        Raises
        ------
        InputError
            Naming the first pair outside the pattern.
        """
        rows, columns = np.broadcast_arrays(np.asarray(i), np.asarray(j))
        for given in (rows, columns):
            if given.size and given.dtype.kind not in "iu":
                raise InputError(f"i and j must be integers, got dtype {given.dtype}")
            if given.size and (given.min() < 0 or given.max() >= self.n):
                raise InputError(f"i and j must be in [0, {self.n}), got [{given.min()}, "
                                 f"{given.max()}]")
        if rows.size == 0:
            return np.empty(rows.shape)
        keys = self._pattern.keys_of(rows.ravel().astype(np.int64),
                                     columns.ravel().astype(np.int64))
        stored = self._pattern.schedule(self._factored).keys
        inside = contains(stored, keys)
        if not inside.all():
            bad = int(np.argmin(inside))
            raise InputError(f"entry ({rows.ravel()[bad]}, {columns.ravel()[bad]}) is outside the "
                             "pattern of the factor; use solve for it")
        return self._inverse[np.searchsorted(stored, keys)].reshape(rows.shape)

    def inverse_diagonal(self) -> Array:
        """Diagonal of A^-1, (n,)."""
        everything = np.arange(self.n)
        return self.inverse_at(everything, everything)

    @cached_property
    def _inverse(self) -> Array:
        """A^-1 on the closed pattern of the factor, in the order of the schedule's keys."""
        schedule, lower = self._pattern.schedule(self._factored), self._factored.lower()
        keys, own, values = schedule.keys, _keys(lower), lower.data
        if not np.array_equal(own, keys):
            # SuperLU drops zeros; what it stores outside the pattern is zero by structure
            inside = contains(keys, own)
            values = np.zeros(len(keys))
            values[np.searchsorted(keys, own[inside])] = lower.data[inside]
        return schedule.inverse(values, self._factored.pivots)


class _Pattern:
    """What depends on the pattern only: its ordering and the schedule of the selected inverse."""

    def __init__(self, lower: LowerPattern, analysis: Analysis):
        self.lower, self.analysis = lower, analysis
        self._schedule: Schedule | None = None

    def factorize(self, data: Array, name: str) -> Factored:
        if self.lower.n == 0:  # the backends refuse it
            return Factored(np.empty(0), np.copy, lambda: None)
        return self.analysis.factorize(data, name)

    def keys_of(self, row: Index, column: Index) -> Index:
        """Keys, in the factor's lower triangle, of entries of A."""
        a, b = self._place[row], self._place[column]
        keys: Index = np.minimum(a, b) * self.lower.n + np.maximum(a, b)
        return keys

    @cached_property
    def _place(self) -> Index:
        """Row of the factor for every row of A."""
        out = np.empty(self.lower.n, dtype=np.int64)
        out[self.analysis.perm] = np.arange(self.lower.n)
        return out

    def schedule(self, factored: Factored) -> Schedule:
        """Schedule of the selected inverse; made once, from any factor of this pattern."""
        if self._schedule is None:
            n, lower = self.lower.n, self.lower
            keys = _keys(self.analysis.structure(factored))
            given = np.sort(self.keys_of(
                lower.indices.astype(np.int64), np.repeat(np.arange(n), np.diff(lower.indptr))))
            missing = given[~contains(keys, given)]
            self._schedule = Schedule(
                n, closed_pattern(n, merged(keys, missing) if len(missing) else keys))
        return self._schedule


@lru_cache(maxsize=PATTERNS_KEPT)
def _pattern_of(lower: LowerPattern, backend: Backend) -> _Pattern:
    return _Pattern(lower, backend.analyse(lower))


def _keys(lower: Any) -> Index:
    """Keys column n + row of a csc matrix with sorted indices, ascending."""
    n = lower.shape[0]
    keys: Index = np.repeat(np.arange(n), np.diff(lower.indptr)) * n + lower.indices
    return keys


def _lower_triangle(matrix: Any, name: str) -> tuple[LowerPattern, Array]:
    """Pattern and values of the lower triangle; a missing diagonal entry is a stored zero."""
    if not sparse.issparse(matrix):
        raise InputError(f"{name} must be a scipy.sparse matrix, got {type(matrix).__name__}")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"{name} must have shape (n, n), got {matrix.shape}")
    if matrix.dtype.kind not in "fiu":
        raise InputError(f"{name} must hold real numbers, got dtype {matrix.dtype}")
    n, entries = matrix.shape[0], matrix.tocoo()
    below = entries.row >= entries.col
    row = np.concatenate([entries.row[below], np.arange(n)])
    column = np.concatenate([entries.col[below], np.arange(n)])
    data = np.concatenate([entries.data[below].astype(np.float64), np.zeros(n)])
    lower = with_sorted_indices(sparse.csc_matrix((data, (row, column)), shape=(n, n)))
    return LowerPattern(n, lower.indptr, lower.indices), lower.data
