"""Cholesky factor of one dense border matrix; a matrix of size 0 is a legal border."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from reml_sae.errors import NotPositiveDefiniteError
from reml_sae.typing import Array

MIRRORED = 256


@dataclass(frozen=True)
class DenseCholesky:
    """Lower Cholesky factor of a symmetric positive definite matrix.

    Attributes
    ----------
    lower : (P, P) array
        The factor; its strict upper triangle is zero.
    """

    lower: Array

    @classmethod
    def of(cls, matrix: Array, name: str, overwrite: bool = False) -> DenseCholesky:
        """Factor a matrix, of which only the lower triangle is read.

        Parameters
        ----------
        matrix : (P, P) array
        name : str
            What the matrix is, for the message of the error.
        overwrite : bool
            Whether the factor may take the memory of the matrix, which then must have both
            triangles.

        Raises
        ------
        NotPositiveDefiniteError
            Where the matrix is not positive definite, or is not finite.
        """
        if matrix.shape[0] == 0:
            return cls(matrix.copy())
        if not np.isfinite(matrix).all():
            raise NotPositiveDefiniteError(f"{name} has entries that are not finite")
        lower, info = (lapack.dpotrf(matrix.T, lower=True, clean=True, overwrite_a=True)
                       if overwrite else lapack.dpotrf(matrix, lower=True, clean=True))
        if info != 0:
            raise NotPositiveDefiniteError(
                f"{name} is not positive definite: its leading minor of order {info} fails"
            )
        return cls(lower)

    def solve(self, rhs: Array) -> Array:
        """Solve A x = rhs for (P,) or (P, k)."""
        if rhs.size == 0:
            return rhs.copy()
        out: Array = lapack.dpotrs(self.lower, rhs, lower=True)[0]
        return out

    def inverse_block(self, start: int, stop: int) -> Array:
        """Rows and columns ``start`` to ``stop`` of A^-1."""
        # columns of L^-1 are zero above their places
        unit = np.eye(len(self.lower) - start, stop - start)
        if not unit.size:
            return np.zeros((stop - start,) * 2)
        columns, _ = lapack.dtrtrs(self.lower[start:, start:], unit, lower=True)
        return np.asarray(columns.T @ columns, float)

    def logdet(self) -> float:
        """Log-determinant of A."""
        return 2.0 * float(np.log(np.diagonal(self.lower)).sum())

    def inverse(self) -> Array:
        """A^-1, exactly symmetric, (P, P)."""
        if self.lower.size == 0:
            return self.lower.copy()
        out, _ = lapack.dpotri(self.lower, lower=True)
        # blocks: a triangle of a large matrix, transposed at once, misses the cache at every entry
        for start in range(0, len(out), MIRRORED):
            stop = start + MIRRORED
            corner = np.tril(out[start:stop, start:stop])
            out[start:stop, start:stop] = corner + np.tril(corner, -1).T
            out[start:stop, stop:] = out[stop:, start:stop].T
        return np.asarray(out, float)
