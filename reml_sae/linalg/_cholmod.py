"""Sparse factorisations P A P^T = L D L^T behind one interface: CHOLMOD, or scipy's SuperLU.

A backend is asked once for a pattern (`analyse`), then factors any matrix of that pattern: the
fill-reducing ordering costs more than one factorisation. CHOLMOD comes through scikit-sparse, whose
interface changed between 0.4 and 0.5; both are served. SuperLU is an LU factorisation, and that of
a symmetric positive definite matrix with pivots on the diagonal is L (D L^T).

The selected inverse runs level by level of the elimination tree, so shallow trees are preferred to
the last per cent of fill: nested dissection (METIS) instead of minimum degree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from reml_sae.errors import InputError, NotPositiveDefiniteError, require
from reml_sae.linalg._ordering import dissection_of_band, postorder
from reml_sae.typing import Array

Index = NDArray[np.int64]

LAPLACIAN_SHIFT = 1e-9
"""Makes the Laplacian by which SuperLU orders a pattern positive definite."""


@dataclass(frozen=True, eq=False)
class LowerPattern:
    """Pattern of the lower triangle of a symmetric matrix; it can be the key of a cache.

    Attributes
    ----------
    n : int
    indptr, indices : int32 arrays
        Compressed columns, sorted, with every diagonal entry present.
    """

    n: int
    indptr: NDArray[np.int32]
    indices: NDArray[np.int32]

    def __hash__(self) -> int:
        return hash((self.n, len(self.indices), int(self.indices[:: 1 + self.n // 64].sum())))

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, LowerPattern) and self.n == other.n
                and np.array_equal(self.indptr, other.indptr)
                and np.array_equal(self.indices, other.indices))

    def matrix(self, data: Array) -> Any:
        """The lower triangle as a csc matrix."""
        out = sparse.csc_matrix((data, self.indices, self.indptr), shape=(self.n, self.n))
        out.has_canonical_format = True
        return out


@dataclass(frozen=True)
class Factored:
    """One numerical factorisation, P A P^T = L D L^T.

    Attributes
    ----------
    pivots : (n,) array
        D, all positive.
    solve : callable
        A^-1 on an (n, k) array, k >= 1.
    lower : callable
        L as a csc matrix with sorted indices; its diagonal holds ones, or D.
    """

    pivots: Array
    solve: Callable[[Array], Array]
    lower: Callable[[], Any]


class Analysis(Protocol):
    """Ordering of one pattern; factors matrices of that pattern."""

    @property
    def backend(self) -> str:
        """Its name, "cholmod" or "splu"."""

    @property
    def perm(self) -> Index:
        """Order of the rows: row k of the factor is row perm[k] of A."""

    def factorize(self, data: Array, name: str) -> Factored:
        """Factor the matrix with these values, or raise NotPositiveDefiniteError."""

    def structure(self, factored: Factored) -> Any:
        """A csc matrix that holds most of the factor's pattern, and depends on A's pattern only."""


def cholmod_module() -> ModuleType | None:
    """Return scikit-sparse's module, or None where it is missing."""
    try:
        return import_module("sksparse.cholmod")
    except ImportError:
        return None


@dataclass(frozen=True)
class Backend:
    """A way to factor, and scikit-sparse's module where it needs one; can be a key of a cache."""

    kind: type
    module: ModuleType | None = None

    def analyse(self, pattern: LowerPattern) -> Analysis:
        """Order a pattern; the work is done at first use."""
        analysis: Analysis = (
            self.kind(pattern) if self.module is None else self.kind(pattern, self.module))
        return analysis


def choose(name: str | None = None) -> Backend:
    """Find a backend.

    Parameters
    ----------
    name : {None, "cholmod", "splu"}
        None takes CHOLMOD where it is installed.

    Raises
    ------
    MissingDependencyError
        Where CHOLMOD was asked for and is missing.
    """
    if name not in (None, "cholmod", "splu"):
        raise InputError(f"backend must be 'cholmod', 'splu' or None, got {name!r}")
    module = None if name == "splu" else cholmod_module()
    if module is None and name == "cholmod":
        module = require("sksparse.cholmod", "cholmod", "the backend 'cholmod'")
    if module is None:
        return Backend(SuperLUAnalysis)
    # 0.5 renamed Factor to CholeskyFactor; both have a `cholesky`, which does different things
    return Backend(
        Cholmod05Analysis if hasattr(module, "CholeskyFactor") else Cholmod04Analysis, module)


def positive(pivots: Array, perm: Index, name: str) -> Array:
    """Check D > 0; an L D L^T factorisation itself goes through with negative pivots."""
    bad = ~(pivots > 0) | ~np.isfinite(pivots)
    if bad.any():
        where = int(np.argmax(bad))
        raise NotPositiveDefiniteError(
            f"{name} is not positive definite: the pivot of its row {perm[where]} is "
            f"{pivots[where]:.3g}")
    return pivots


@dataclass(frozen=True)
class _CholmodAnalysis(ABC):
    """What the two interfaces of scikit-sparse share."""

    pattern: LowerPattern
    module: ModuleType
    backend: str = field(default="cholmod", init=False)

    @cached_property
    def symbolic(self) -> Any:
        """Symbolic factor; values do not matter, but 0.5 refuses a matrix without entries."""
        ones = self.pattern.matrix(np.ones(len(self.pattern.indices)))
        try:
            return self._symbolic(ones, "metis")
        except self.module.CholmodNotInstalledError:  # a CHOLMOD built without METIS
            return self._symbolic(ones, "amd")

    @abstractmethod
    def _symbolic(self, matrix: Any, order: str) -> Any:
        """Symbolic factor by an ordering."""

    @abstractmethod
    def _numeric(self, matrix: Any) -> tuple[Array, Callable[[Array], Array], Callable[[], Any]]:
        """Pivots D, the solver, and what makes L."""

    @property
    @abstractmethod
    def perm(self) -> Index:
        """Row of the matrix at each place of the factor."""

    def factorize(self, data: Array, name: str) -> Factored:
        try:
            pivots, solve, lower = self._numeric(self.pattern.matrix(data))
        except self.module.CholmodNotPositiveDefiniteError as error:
            raise NotPositiveDefiniteError(
                f"{name} is not positive definite: CHOLMOD found a pivot that is not positive"
            ) from error
        return Factored(positive(pivots, self.perm, name), solve, lower)

    def structure(self, factored: Factored) -> Any:
        return factored.lower()


class Cholmod04Analysis(_CholmodAnalysis):
    """scikit-sparse 0.4: `analyze`, and a `Factor` that is called to solve."""

    @cached_property
    def perm(self) -> Index:
        return np.asarray(self.symbolic.P(), dtype=np.int64)

    def _symbolic(self, matrix: Any, order: str) -> Any:
        return self.module.analyze(matrix, ordering_method=order)

    def _numeric(self, matrix: Any) -> tuple[Array, Callable[[Array], Array], Callable[[], Any]]:
        factor = self.symbolic.cholesky(matrix)  # a new factor; the symbolic one is left alone
        return np.array(factor.D()), factor, lambda: with_sorted_indices(factor.LD())


class Cholmod05Analysis(_CholmodAnalysis):
    """scikit-sparse 0.5: `CholeskyFactor` with `factorize`, `solve`, `factor` and `perm`."""

    @cached_property
    def perm(self) -> Index:
        return np.array(self.symbolic.perm, dtype=np.int64)

    def _symbolic(self, matrix: Any, order: str) -> Any:
        return self.module.CholeskyFactor(matrix, lower=True, order=order)

    def _numeric(self, matrix: Any) -> tuple[Array, Callable[[Array], Array], Callable[[], Any]]:
        factor = self.symbolic.copy().factorize(matrix, ldl=True)
        # `factor.factor` is a view of L with D on its diagonal. get_factor() is no substitute:
        # it drops entries that happen to be zero, and with them the pattern.
        return np.array(factor.factor.diagonal()), factor.solve, lambda: with_sorted_indices(
            factor.factor.copy())


@dataclass(frozen=True)
class SuperLUAnalysis:
    """scipy's SuperLU with its pivots held on the diagonal."""

    pattern: LowerPattern
    backend: str = field(default="splu", init=False)

    @cached_property
    def _ordered(self) -> tuple[Index, Any]:
        """Order of the rows, and the pattern of L, from a matrix of the same pattern.

        That matrix is nearly a graph Laplacian: elimination adds numbers of one sign, so that no
        fill cancels, and they decay too slowly to underflow. SuperLU drops entries that are zero.
        """
        n = self.pattern.n
        matrix = _both_triangles(self.pattern.matrix(np.full(len(self.pattern.indices), -1.0)))
        matrix.setdiag((np.diff(matrix.indptr) - 1) * (1 + LAPLACIAN_SHIFT) + LAPLACIAN_SHIFT)
        order = dissection_of_band(matrix)
        if order is None:
            order, how = np.arange(n), "MMD_AT_PLUS_A"
        else:
            matrix, how = _permuted(matrix, order), "NATURAL"
        lu = _splu(matrix, how)
        order = order[np.argsort(lu.perm_c)]
        # in its symmetric mode SuperLU leaves columns of one supernode apart
        post = postorder(with_sorted_indices(lu.L.copy()))
        return order[post], _permuted(lu.L, post)

    @property
    def perm(self) -> Index:
        return self._ordered[0]

    def factorize(self, data: Array, name: str) -> Factored:
        perm = self.perm
        matrix = _permuted(_both_triangles(self.pattern.matrix(data)), perm)
        try:
            lu = _splu(matrix, "NATURAL")
        except RuntimeError as error:
            raise NotPositiveDefiniteError(f"{name} is not positive definite: it is singular"
                                           ) from error
        natural = np.arange(self.pattern.n)
        if not (np.array_equal(lu.perm_r, natural) and np.array_equal(lu.perm_c, natural)):
            # SuperLU leaves the diagonal only where the pivot on it is exactly zero
            raise NotPositiveDefiniteError(f"{name} is not positive definite: it has a zero pivot")
        pivots = positive(lu.U.diagonal(), perm, name)

        def solve(rhs: Array) -> Array:
            out = np.empty_like(rhs)
            out[perm] = lu.solve(rhs[perm])
            return out

        return Factored(pivots, solve, lambda: with_sorted_indices(lu.L.copy()))

    def structure(self, factored: Factored) -> Any:
        return self._ordered[1]


def _splu(matrix: Any, order: str) -> Any:
    return splu(matrix, permc_spec=order, diag_pivot_thresh=0.0,
                options={"SymmetricMode": True})


def _permuted(matrix: Any, order: Index) -> Any:
    return with_sorted_indices(matrix[order][:, order].tocsc())


def _both_triangles(lower: Any) -> Any:
    return with_sorted_indices((lower + sparse.tril(lower, -1).T).tocsc())


def with_sorted_indices(matrix: Any) -> Any:
    """Sort the indices of a compressed matrix in place, and return it."""
    matrix.sort_indices()
    return matrix
