"""Quadratic smooths on the fixed-effect coefficients, and their determinant.

A smooth puts (1/2) beta_s^T S_lambda beta_s, S_lambda = sum_j lambda_j S_j, on some coefficients
beta_s. Its prior is proper on the range of sum_j S_j, of dimension r, and flat on the null space:

    log C = (r / 2) log 2 pi - (1 / 2) log |S_lambda|_+,
    d log |S_lambda|_+ / d log lambda_j = lambda_j tr(S_lambda^+ S_j).

The coefficients are turned into the graded basis of `linalg.graded_sum`, in which a Cholesky factor
is accurate whatever the ratios of the strengths are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reml_sae.errors import InputError
from reml_sae.linalg import RANK_TOLERANCE, GradedSum, graded_sum
from reml_sae.typing import Array

SYMMETRY_TOLERANCE = 1e-8
LOG_STRENGTH_SPAN = 25.0
"""Half width of the box of a log strength around the balance of data and penalty."""


@dataclass(frozen=True, eq=False)
class Smooth:
    """A quadratic penalty with one or several strengths on some columns of X.

    Parameters
    ----------
    columns : slice, or sequence of int
        Columns of X whose k coefficients are penalised.
    matrices : sequence of (k, k) arrays
        S_1 .. S_m: symmetric, positive semidefinite, not zero. A crossed random effect is the
        identity on its indicator columns.
    name : str, optional
        Its name in results; by default ``s0``, ``s1``, .. in the order of the model.
    """

    columns: slice | Sequence[int] | NDArray[np.intp]
    matrices: Sequence[ArrayLike]
    name: str | None = None


@dataclass(frozen=True, eq=False)
class BoundSmooth:
    """A checked `Smooth` with its place in the model.

    Attributes
    ----------
    columns : (k,) int array
    matrices : (m, k, k) array
    name : str
    where : slice
        Its log strengths among those of all smooths.
    """

    columns: NDArray[np.intp]
    matrices: Array
    name: str
    where: slice

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its log strengths."""
        if len(self.matrices) == 1:
            return (f"log_lambda[{self.name}]",)
        return tuple(f"log_lambda[{self.name}.{j}]" for j in range(len(self.matrices)))

    @property
    def null_basis(self) -> Array:
        """Orthonormal basis of the null space common to all matrices, (k, k - r)."""
        return self._balanced.basis[:, self._balanced.rank:]

    @property
    def range_basis(self) -> Array:
        """Orthonormal basis of its complement, (k, r)."""
        return self._balanced.basis[:, : self._balanced.rank]

    @cached_property
    def _balanced(self) -> GradedSum:
        return graded_sum(self.matrices, -np.log(np.linalg.norm(self.matrices, 2, axis=(1, 2))))


def bind_smooths(smooths: Sequence[Smooth], n_columns: int) -> tuple[BoundSmooth, ...]:
    """Check the smooths of a model against its X of ``n_columns`` columns.

    Raises
    ------
    InputError
        Naming the entry of ``penalties`` that is wrong.
    """
    if isinstance(smooths, Smooth) or not isinstance(smooths, Sequence):
        raise InputError(f"penalties must be a sequence of Smooth, got {smooths!r}")
    bound: list[BoundSmooth] = []
    owner: dict[int, str] = {}
    begin = 0
    for i, smooth in enumerate(smooths):
        path = f"penalties[{i}]"
        if not isinstance(smooth, Smooth):
            raise InputError(f"{path} must be a Smooth(columns, matrices), got {smooth!r}")
        columns = _columns(smooth.columns, n_columns, path)
        matrices = _matrices(smooth.matrices, len(columns), path)
        name = f"s{i}" if smooth.name is None else smooth.name
        if name in {other.name for other in bound}:
            raise InputError(f"{path}.name is {name!r}, the name of another smooth; names must "
                             "differ")
        for column in columns.tolist():
            if column in owner:
                raise InputError(f"{path}.columns holds column {column}, which {owner[column]} "
                                 "penalises already; give one Smooth all matrices of its columns")
            owner[column] = path
        bound.append(BoundSmooth(columns, matrices, name, slice(begin, begin + len(matrices))))
        begin += len(matrices)
    return tuple(bound)


def _columns(columns: object, n_columns: int, path: str) -> NDArray[np.intp]:
    if isinstance(columns, slice):
        index = np.arange(n_columns)[columns]
    else:
        index = np.atleast_1d(np.asarray(columns))
        if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
            raise InputError(f"{path}.columns must be a slice or column numbers, got {columns!r}")
    if not index.size:
        raise InputError(f"{path}.columns {columns!r} selects none of the {n_columns} columns of X")
    outside = index[(index < 0) | (index >= n_columns)]
    if outside.size or len(set(index.tolist())) < len(index):
        raise InputError(f"{path}.columns must be distinct and within 0..{n_columns - 1}, "
                         f"got {index.tolist()}")
    return index.astype(np.intp)


def _matrices(matrices: object, k: int, path: str) -> Array:
    if not isinstance(matrices, Sequence | np.ndarray) or not len(matrices):
        raise InputError(f"{path}.matrices must be a list of ({k}, {k}) arrays, got {matrices!r}")
    out = []
    for j, value in enumerate(matrices):
        name = f"{path}.matrices[{j}]"
        S = np.asarray(value, float)
        if S.shape != (k, k):
            raise InputError(f"{name} must have shape ({k}, {k}), one row for each of its columns "
                             f"of X, got {S.shape}")
        if not np.isfinite(S).all():
            raise InputError(f"{name} has entries that are not finite")
        size = float(np.abs(S).max())
        if size == 0.0:
            raise InputError(f"{name} is zero; leave it out")
        if np.abs(S - S.T).max() > SYMMETRY_TOLERANCE * size:
            raise InputError(f"{name} is not symmetric")
        S = 0.5 * (S + S.T)
        lowest = float(np.linalg.eigvalsh(S)[0])
        if lowest < -RANK_TOLERANCE * k * size:
            raise InputError(f"{name} must be positive semidefinite, its lowest eigenvalue is "
                             f"{lowest:.3g}")
        out.append(S)
    return np.stack(out)


class SmoothPrior:
    """All smooths of a model at given log strengths.

    Parameters
    ----------
    smooths : tuple of BoundSmooth
    n_columns : int
        P.
    log_strengths : (m,) array
        Those of all smooths, in order.
    """

    def __init__(self, smooths: tuple[BoundSmooth, ...], n_columns: int, log_strengths: Array):
        self.smooths, self.n_columns = smooths, n_columns
        self.strengths = np.exp(log_strengths)
        self.graded = [graded_sum(s.matrices, log_strengths[s.where]) for s in smooths]
        self.basis: Array = np.eye(n_columns)
        """Orthogonal T (P, P): graded coordinates of the border are T^T beta."""
        self.penalised = np.zeros(n_columns, bool)
        """Which graded coordinates have a proper prior, (P,)."""
        for smooth, graded in zip(smooths, self.graded, strict=True):
            self.basis[np.ix_(smooth.columns, smooth.columns)] = graded.basis
            self.penalised[smooth.columns[: graded.rank]] = True

    def energies(self, left: Array, right: Array) -> Array:
        """lambda_j left^T S_j right for every strength, (m,)."""
        # in graded coordinates the null space, where beta is large, adds no rounding times lambda
        left, right = self.basis.T @ left, self.basis.T @ right
        found = [np.einsum("a,jab,b->j", left[s.columns], graded.parts, right[s.columns])
                 for s, graded in zip(self.smooths, self.graded, strict=True)]
        return np.concatenate(found) if found else np.zeros(0)

    def apply(self, beta: Array) -> Array:
        """S_lambda beta, (P,)."""
        graded, out = self.basis.T @ beta, np.zeros_like(beta)
        for s, part in zip(self.smooths, self.graded, strict=True):
            out[s.columns] = part.parts.sum(axis=0) @ graded[s.columns]
        return self.basis @ out

    def matrix(self) -> Array:
        """S_lambda, (P, P)."""
        return self.basis @ self.graded_matrix() @ self.basis.T

    def graded_matrix(self) -> Array:
        """T^T S_lambda T, (P, P)."""
        out = np.zeros((self.n_columns, self.n_columns))
        for s, graded in zip(self.smooths, self.graded, strict=True):
            out[np.ix_(s.columns, s.columns)] = graded.parts.sum(axis=0)
        return out

    def traces(self, inverse: Array) -> Array:
        """lambda_j tr(G S_j) for every strength; G (P, P) in graded coordinates."""
        found = [np.einsum("jab,ba->j", graded.parts, inverse[np.ix_(s.columns, s.columns)])
                 for s, graded in zip(self.smooths, self.graded, strict=True)]
        return np.concatenate(found) if found else np.zeros(0)

    def log_normalizer(self) -> tuple[float, Array]:
        """Sum of log C and its gradient in the log strengths."""
        value = sum(0.5 * (g.rank * np.log(2.0 * np.pi) - g.log_det) for g in self.graded)
        slopes = [-0.5 * g.log_det_gradient for g in self.graded]
        return float(value), np.concatenate(slopes) if slopes else np.zeros(0)
