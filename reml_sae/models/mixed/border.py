"""How the coefficients of a mixed model are split into inner and outer parameters.

    coefficients = R beta + N gamma

By "REML" and "ML" all of them are inner, R = I. By "Laplace" gamma holds the directions that no
smooth penalises: N spans the null space of all penalties, R its orthogonal complement. The columns
of X N are orthogonal, their entries of the typical size of eta, so that steps in gamma have one
scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.linalg import solve_triangular

from reml_sae.errors import InputError
from reml_sae.models.mixed.design import redundant_columns
from reml_sae.models.mixed.smooths import BoundSmooth
from reml_sae.typing import Array


@dataclass(frozen=True, eq=False)
class Border:
    """Coefficients as ``inner @ beta + outer @ gamma``.

    Attributes
    ----------
    inner : (P, r) array
        R.
    outer : (P, m) array
        N.
    smooths : tuple of BoundSmooth
        The smooths on beta.
    """

    inner: Array
    outer: Array
    smooths: tuple[BoundSmooth, ...]

    @classmethod
    def whole(cls, smooths: tuple[BoundSmooth, ...], n_columns: int) -> Border:
        """All coefficients are inner parameters."""
        return cls(np.eye(n_columns), np.zeros((n_columns, 0)), smooths)

    @classmethod
    def split(cls, smooths: tuple[BoundSmooth, ...], X: Array, eta_scale: float) -> Border:
        """The unpenalised directions are outer parameters."""
        p = X.shape[1]
        null = unpenalised(smooths, p)
        # Q of X N = Q T is X times N T^-1, with columns of norm 1
        triangle = np.linalg.qr(X @ null)[1] / np.sqrt(len(X))
        outer = eta_scale * solve_triangular(triangle, null.T, trans="T").T if null.size else null
        inner, kept = [np.zeros((p, 0))], []
        begin = 0
        for smooth in smooths:
            proper = smooth.range_basis
            block = np.zeros((p, proper.shape[1]))
            block[smooth.columns] = proper
            inner.append(block)
            columns = begin + np.arange(proper.shape[1])
            kept.append(replace(smooth, columns=columns,
                                matrices=proper.T @ smooth.matrices @ proper))
            begin += proper.shape[1]
        return cls(np.hstack(inner), outer, tuple(kept))

    def outer_covariance(self, covariance: Array) -> Array:
        """Covariance (m, m) of gamma, given that of the coefficients (P, P)."""
        gamma = self._inverse[self.inner.shape[1]:]
        return gamma @ covariance @ gamma.T

    def outer_of(self, coefficients: Array) -> Array:
        """Gamma (m,) of coefficients (P,)."""
        return self._inverse[self.inner.shape[1]:] @ coefficients

    @cached_property
    def _inverse(self) -> Array:
        """Coordinates (beta, gamma) of the coefficients' unit vectors, (P, P)."""
        return np.asarray(np.linalg.inv(np.hstack([self.inner, self.outer])), float)


def unpenalised(smooths: tuple[BoundSmooth, ...], n_columns: int) -> Array:
    """Basis (P, m) of the directions that no smooth penalises; unit vectors come first."""
    owned = np.concatenate([np.zeros(0, np.intp), *(smooth.columns for smooth in smooths)])
    blocks = [np.delete(np.eye(n_columns), owned, axis=1)]
    for smooth in smooths:
        null = np.zeros((n_columns, smooth.null_basis.shape[1]))
        null[smooth.columns] = smooth.null_basis
        blocks.append(null)
    return np.hstack(blocks)


def unpenalised_names(smooths: tuple[BoundSmooth, ...], names: Sequence[str]) -> list[str]:
    """What the columns of `unpenalised` are: columns of X, or the null space of a smooth."""
    owned = {int(column) for smooth in smooths for column in smooth.columns}
    out = [name for column, name in enumerate(names) if column not in owned]
    for smooth in smooths:
        out += [f"the unpenalised part of {smooth.name}"] * smooth.null_basis.shape[1]
    return out


def check_rank(X: Array, smooths: tuple[BoundSmooth, ...], names: Sequence[str]) -> None:
    """Refuse coefficients that neither data nor penalties determine.

    Raises
    ------
    InputError
        Naming the redundant columns of X.
    """
    roots = []
    for smooth in smooths:
        balanced = sum(S / np.linalg.norm(S, 2) for S in smooth.matrices)
        values, vectors = np.linalg.eigh(balanced)
        root = np.zeros((len(values), X.shape[1]))
        root[:, smooth.columns] = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
        roots.append(root)
    redundant = redundant_columns(X, roots, names)
    if redundant:
        raise InputError(
            f"X is rank deficient: {', '.join(redundant[:5])}"
            f"{' and others' if len(redundant) > 5 else ''} can be computed from the columns "
            "before; drop them, or penalise them"
        )
