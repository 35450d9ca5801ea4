"""Data of a mixed model: checked arrays, and sums over the observations of each group.

    eta = offset + X beta + Z b_g,   J = [Z-block of the group, X]

Groups are the rows of the arrowhead. With one weight an observation, J^T W J has the parts

    D_g = sum_{i in g} w_i z_i z_i^T,   C_g = sum_{i in g} w_i z_i x_i^T,   A = X^T W X,

and an inverse G on that pattern the leverages

    h_i = z_i^T G_gg z_i + 2 z_i^T G_gb x_i + x_i^T G_bb x_i.

No array of size n q P is formed: C is q products of a sparse (groups, n) matrix with X.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr
from scipy.sparse import csr_matrix

from reml_sae.errors import InputError
from reml_sae.typing import Array

CHUNK_ELEMENTS = 4_000_000
ALIAS_TOLERANCE = 1e-9
"""A column whose part outside the others' span is a smaller share of it is redundant."""


@dataclass(frozen=True, eq=False)
class Design:
    """Observations in the order in which they were given, and the groups that they belong to.

    Attributes
    ----------
    y : (n,) array
    X : (n, P) array
    Z : (n, q) array
        Columns of all random-effect terms, one after another.
    offset : (n,) array
    group : (n,) int array
        Number of each observation's group.
    labels : (G,) array
        The group labels, sorted; empty where there are no random effects.
    """

    y: Array
    X: Array
    Z: Array
    offset: Array
    group: NDArray[np.intp]
    labels: NDArray[Any]

    @property
    def n_groups(self) -> int:
        """G."""
        return len(self.labels)

    @cached_property
    def _by_group(self) -> csr_matrix:
        """Sparse (G, n) matrix with a one for each observation in the row of its group."""
        order = np.argsort(self.group, kind="stable")[: len(self.y) if self.n_groups else 0]
        counts = np.bincount(self.group[order], minlength=self.n_groups)
        return csr_matrix((np.ones(len(order)), order, np.concatenate([[0], np.cumsum(counts)])),
                          shape=(self.n_groups, len(self.y)))

    def _weighted(self, weights: Array) -> csr_matrix:
        """The same with the weight of each observation; indices are of scipy's own type."""
        one = self._by_group
        return csr_matrix((weights[one.indices], one.indices, one.indptr), shape=one.shape)

    def predictor(self, b: Array, beta: Array) -> Array:
        """X beta + Z b, (n,), for effects (G, q) and coefficients (P,)."""
        eta: Array = self.X @ beta
        for a in range(self.Z.shape[1]):
            eta += self.Z[:, a] * b[self.group, a]
        return eta

    def pull_back(self, v: Array) -> tuple[Array, Array]:
        """J^T v as group parts (G, q) and border part (P,)."""
        rows = np.empty((self.n_groups, self.Z.shape[1]))
        for a in range(self.Z.shape[1]):
            rows[:, a] = self.group_sums(self.Z[:, a] * v)
        return rows, self.X.T @ v

    def group_sums(self, v: Array) -> Array:
        """Sums of v (n,) over the observations of every group, (G,)."""
        if not self.n_groups:
            return np.zeros(0)
        return np.bincount(self.group, v, self.n_groups).astype(np.float64, copy=False)

    def gram(self, weights: Array) -> tuple[Array, Array, Array]:
        """J^T W J: D (G, q, q), C (G, q, P) and A (P, P)."""
        q, p = self.Z.shape[1], self.X.shape[1]
        D, C = np.empty((self.n_groups, q, q)), np.empty((self.n_groups, q, p))
        for a in range(q):
            weighted = weights * self.Z[:, a]
            C[:, a] = self._weighted(weighted) @ self.X
            for b in range(a + 1):
                D[:, a, b] = D[:, b, a] = self.group_sums(weighted * self.Z[:, b])
        A = np.zeros((p, p))
        for where in self._chunks():
            A += (weights[where, None] * self.X[where]).T @ self.X[where]
        return D, C, 0.5 * (A + A.T)

    def leverages(self, rows: Array, coupling: Array, border: Array) -> Array:
        """h_i = j_i^T G j_i, (n,), from the blocks of G: (G, q, q), (G, q, P) and (P, P)."""
        h = np.zeros(len(self.y))
        for where in self._chunks():
            X, Z, group = self.X[where], self.Z[where], self.group[where]
            h[where] = np.einsum("np,np->n", X @ border, X)
            for a in range(Z.shape[1]):
                cross = 2.0 * np.einsum("np,np->n", X, coupling[group, a])
                cross += np.einsum("nb,nb->n", Z, rows[group, a])
                h[where] += Z[:, a] * cross
        return h

    def _chunks(self) -> list[slice]:
        step = max(1, CHUNK_ELEMENTS // max(1, self.X.shape[1]))
        return [slice(start, start + step) for start in range(0, len(self.y), step)]


def make_design(y: Any, X: Any, groups: Any, Z: Any, offset: Any) -> tuple[Design, list[int]]:
    """Check the arrays of a mixed model.

    Returns
    -------
    Design
    list of int
        Number of columns of each random-effect term.

    Raises
    ------
    InputError
        Naming the argument, and the first bad entry.
    """
    y = finite(y, "y")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or not len(y):
        raise InputError(f"y must be a vector of at least one observation, got shape {y.shape}")
    n = len(y)
    X = matrix(X, "X", n)
    blocks: list[Array] = []
    if Z is not None:
        terms = list(Z) if isinstance(Z, list | tuple) else [Z]
        many = isinstance(Z, list | tuple)
        blocks = [matrix(term, f"Z[{t}]" if many else "Z", n) for t, term in enumerate(terms)]
    if (groups is None) != (Z is None):
        raise InputError("groups and Z belong together: give both for random effects, or neither; "
                         "Z of ones is a random intercept")
    for t, block in enumerate(blocks):
        if not block.shape[1]:
            raise InputError(f"Z[{t}] has no columns; leave the term out")
        empty = np.flatnonzero(~block.any(axis=0))
        if empty.size:
            raise InputError(f"column {int(empty[0])} of Z[{t}] is zero everywhere, so its "
                             "variance has no meaning; leave it out")
    group, labels = group_numbers(groups, n)
    shift = np.zeros(n) if offset is None else finite(offset, "offset")
    if shift.shape not in ((), (n,)):
        raise InputError(f"offset must be one number, or one for each of the {n} observations, "
                         f"got shape {shift.shape}")
    design = Design(y, X, np.hstack([np.zeros((n, 0)), *blocks]),
                    np.broadcast_to(shift, (n,)), group, labels)
    return design, [block.shape[1] for block in blocks]


def finite(value: Any, name: str) -> Array:
    """Convert to float64; InputError where an entry is not a finite number."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} must hold real numbers, got dtype {array.dtype}")
    array = array.astype(np.float64)
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        raise InputError(f"{name} has the non-finite value {array[where]} at index {where}; "
                         "remove or impute such observations")
    return array


def matrix(value: Any, name: str, n: int) -> Array:
    """A finite (n, k) array; a vector is one column."""
    array = finite(value, name)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or len(array) != n:
        raise InputError(f"{name} must have shape ({n}, k), one row for each entry of y, "
                         f"got {array.shape}")
    return array


def group_numbers(groups: Any, n: int) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Number of each observation's group, and the sorted labels."""
    if groups is None:
        return np.zeros(n, np.intp), np.zeros(0)
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise InputError(f"groups must have one label for each of the {n} observations, "
                         f"got shape {labels.shape}")
    if labels.dtype.kind == "O":
        labels = labels.astype(str)
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise InputError(f"groups has a missing label at index {int(np.isnan(labels).argmax())}")
    unique, number = np.unique(labels, return_inverse=True)
    return number.reshape(n).astype(np.intp), unique


def redundant_columns(X: Array, penalty_roots: Sequence[Array], names: Sequence[str]) -> list[str]:
    """Names of columns of X that neither data nor penalties tell from the columns before them.

    Parameters
    ----------
    X : (n, P) array
    penalty_roots : sequence of (k, P) arrays
        R, where R^T R is the sum of the normalised penalty matrices of a smooth.
    names : sequence of str
    """
    scale = max(float(np.linalg.norm(X)), 1e-300)
    stacked = np.vstack([X, *(scale * root for root in penalty_roots)])
    norms = np.linalg.norm(stacked, axis=0)
    # entry j of the diagonal is the norm of column j outside the span of the ones before
    R = qr(stacked / np.where(norms > 0, norms, 1.0), mode="r")[0]
    diagonal = np.zeros(X.shape[1])
    diagonal[: min(R.shape)] = np.abs(np.diagonal(R))
    return [names[j] for j in np.flatnonzero(diagonal <= ALIAS_TOLERANCE).tolist()]
