"""Covariances of random effects by their Cholesky factors.

A term's effects have b_i ~ N(0, Psi), Psi = L L^T with L lower triangular. Outer parameters are

    l_j  = -2 log L_jj           the log precision of b_j given b_1 .. b_{j-1}
    t_jk = L_jk / s_j,  k < j    only where the covariance is full; s_j is a fixed scale of b_j

(the log-Cholesky parametrization of Pinheiro and Bates 1996, with the diagonal as a log precision,
so that it is the log strength of a quadratic prior where Psi is diagonal). Any value of them is a
legal covariance. A variance that runs to zero, or a correlation to 1, is l_j -> infinity with the
rest finite.

Effects are worked with in spherical coordinates c = L^-1 b, whose prior is N(0, I) (Bates et al.
2015, J. Stat. Softw. 67): with G' the inverse Hessian there,

    log C = (q / 2) log 2 pi + log |L|  for every group,
    tr(G dPsi^-1 / drho_m) = -2 tr(G' L^-1 dL/drho_m)

and nothing cancels where L is singular to working precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from reml_sae.errors import InputError
from reml_sae.typing import Array, Mask

COVARIANCES = ("diagonal", "full")
LOG_PRECISION_BOX = (-23.0, 23.0)
"""Box of a log precision around that of the scale: sds from 1e-5 to 1e5 times the scale.

Effects are stored to 16 digits, so L^-1 b has an error of 1e-16 |b| / L, and the gradient in an
entry below the diagonal one of 1e-16 (|b| / L)^2: 1e-6 at the end of the box.
"""
LARGEST_STEP = 2.0
"""Largest change of the log of a variance in one Fellner-Schall step."""
REACH = 10.0
"""A step in a parameter that is no log reaches this many of its deviations, at most its scale."""
FACTOR_BOX = (-1e5, 1e5)


@dataclass(frozen=True, eq=False)
class Covariance:
    """Covariance of one random-effect term.

    Parameters
    ----------
    kind : "diagonal" or "full"
    names : tuple of str
        Names of the q effects.
    scales : (q,) array
        s_j, a typical size of each effect.
    """

    kind: str
    names: tuple[str, ...]
    scales: Array

    def __post_init__(self) -> None:
        if self.kind not in COVARIANCES:
            raise InputError(f"covariance must be one of {', '.join(COVARIANCES)}, "
                             f"got {self.kind!r}")

    @property
    def size(self) -> int:
        """Number q of effects."""
        return len(self.names)

    @cached_property
    def _below(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns of the free entries below the diagonal of L."""
        rows, columns = np.tril_indices(self.size, -1)
        stop = len(rows) if self.kind == "full" else 0
        return rows[:stop].astype(np.intp), columns[:stop].astype(np.intp)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outer parameters."""
        below = [f"factor[{self.names[j]},{self.names[k]}]"
                 for j, k in zip(*self._below, strict=True)]
        return (*(f"log_precision[{name}]" for name in self.names), *below)

    @property
    def bounds(self) -> Array:
        """Box of the outer parameters, (n, 2)."""
        centre = -2.0 * np.log(self.scales)
        diagonal = centre[:, None] + np.array(LOG_PRECISION_BOX)
        return np.concatenate([diagonal, np.tile(FACTOR_BOX, (len(self._below[0]), 1))])

    @property
    def is_quadratic(self) -> Mask:
        """Which outer parameters scale a quadratic form of their own: all, where it is diagonal."""
        return np.full(len(self.labels), self.kind == "diagonal")

    def start(self, share: float) -> Array:
        """Outer parameters at which every effect has ``share`` of the variance of its scale."""
        out = np.zeros(len(self.labels))
        out[: self.size] = -2.0 * np.log(self.scales) - np.log(share)
        return out

    def factor(self, rho: Array) -> Array:
        """L, (q, q)."""
        L = np.diag(np.exp(-0.5 * rho[: self.size]))
        rows, columns = self._below
        L[rows, columns] = self.scales[rows] * rho[self.size:]
        return L

    def parameters(self, L: Array) -> Array:
        """Outer parameters of a factor, inside the box: the inverse of `factor`."""
        rows, columns = self._below
        out = np.concatenate([-2.0 * np.log(np.diagonal(L)), L[rows, columns] / self.scales[rows]])
        return np.clip(out, self.bounds[:, 0], self.bounds[:, 1])

    def steps(self, rho: Array) -> Array:
        """Sizes of the steps of a search, (n,): 1 for logs, for t_jk `REACH` times L_jj / s_j."""
        out = np.ones(len(self.labels))
        rows = self._below[0]
        out[self.size:] = np.minimum(
            REACH * np.exp(-0.5 * rho[rows]) / self.scales[rows], 1.0)
        return out

    def log_det(self, rho: Array) -> float:
        """log |Psi|."""
        return -float(rho[: self.size].sum())

    def factor_gradient(self, rho: Array) -> Array:
        """dL/drho_m, (n, q, q)."""
        out = np.zeros((len(self.labels), self.size, self.size))
        index = np.arange(self.size)
        out[index, index, index] = -0.5 * np.exp(-0.5 * rho[: self.size])
        rows, columns = self._below
        out[self.size + np.arange(len(rows)), rows, columns] = self.scales[rows]
        return out


def stepped(L: Array, squares: Array, inside: Array) -> Array:
    """Cholesky factor of L R^-1/2 S R^-1/2 L^T, eigenvalues of the middle within e^2 of 1.

    Parameters
    ----------
    L : (q, q) array
    squares : (q, q) array
        S, positive semidefinite.
    inside : (q, q) array
        R, positive semidefinite.
    """
    values, vectors = np.linalg.eigh(inside)
    root = vectors / np.sqrt(np.maximum(values, 1e-12 * max(float(values[-1]), 1e-300))) @ vectors.T
    values, vectors = np.linalg.eigh(root @ squares @ root)
    half = np.sqrt(np.clip(values, np.exp(-LARGEST_STEP), np.exp(LARGEST_STEP)))
    # of A A^T through the triangle of A^T, which keeps the digits of small variances
    triangle = np.transpose(np.asarray(np.linalg.qr((L @ vectors * half).T, mode="r")))
    return np.asarray(triangle * np.where(np.diagonal(triangle) < 0.0, -1.0, 1.0), float)


def term_slices(terms: tuple[Covariance, ...], begin: int) -> list[slice]:
    """Where the outer parameters of each term are, from ``begin`` on."""
    ends = begin + np.cumsum([0, *(len(term.labels) for term in terms)])
    return [slice(int(a), int(b)) for a, b in pairwise(ends)]


@dataclass(frozen=True)
class EffectsPrior:
    """Prior of all effects of a group at given outer parameters: independent terms.

    Attributes
    ----------
    factor : (q, q) array
        L, block diagonal over the terms.
    relative : (n, q, q) array
        L^-1 dL/drho_m.
    log_det : float
        log |Psi|.
    log_det_gradient : (n,) array
    """

    factor: Array
    relative: Array
    log_det: float
    log_det_gradient: Array

    @classmethod
    def of(cls, terms: tuple[Covariance, ...], rho: Array) -> EffectsPrior:
        """The prior whose terms have the outer parameters ``rho`` (n,), one after another."""
        q, n = sum(term.size for term in terms), len(rho)
        factor, relative = np.zeros((q, q)), np.zeros((n, q, q))
        log_det, slope = 0.0, np.zeros(n)
        column = parameter = 0
        for term in terms:
            own = slice(parameter, parameter + len(term.labels))
            at = slice(column, column + term.size)
            L = term.factor(rho[own])
            factor[at, at] = L
            relative[own, at, at] = np.linalg.solve(L, term.factor_gradient(rho[own]))
            log_det += term.log_det(rho[own])
            slope[own.start : own.start + term.size] = -1.0
            column, parameter = at.stop, own.stop
        return cls(factor, relative, log_det, slope)

    @property
    def covariance(self) -> Array:
        """Psi, (q, q)."""
        return self.factor @ self.factor.T

    def spherical(self, b: Array) -> Array:
        """c = L^-1 b for effects (G, q)."""
        return solve_triangular(self.factor, b.T, lower=True).T if b.size else b

    def precision_times(self, b: Array) -> Array:
        """Psi^-1 b, (G, q)."""
        if not b.size:
            return b
        return solve_triangular(self.factor, self.spherical(b).T, lower=True, trans=1).T

    def energies(self, left: Array, right: Array) -> Array:
        """Sum over groups of left_i^T (dPsi^-1 / drho_m) right_i, (n,)."""
        cross = self.spherical(left).T @ self.spherical(right)
        return -np.einsum("mab,ab->m", self.relative, cross + cross.T)

    def traces(self, inverse: Array) -> Array:
        """Sum over groups of tr(G_i dPsi^-1 / drho_m), (n,); G_i (G, q, q) spherical."""
        return -2.0 * np.einsum("mab,ba->m", self.relative, inverse.sum(axis=0))
