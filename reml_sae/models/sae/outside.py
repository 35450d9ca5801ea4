"""The border outside the span of an atom's decoder, where rows are integrated by Laplace's method.

A decoder that moves out of its own span moves no coordinate of a row, so the curvature there of
the marginal objective L of `scale` is known in closed form: it is the Gram matrix of the means of
the functions over the rows' posteriors,

    d2L = (A - C) (x) I + P (x) I,     A = sum_i phi_i phi_i^T / phi,     P the priors,
    C   = sum_i sum_de (D_i^-1)_de d_d phi_i d_e phi_i^T / phi             over compact coordinates:

E_i[phi] E_i[phi]^T = phi phi^T + sym(phi sum_de (D_i^-1)_de d2_de phi^T), and by parts phi d2 phi^T
is -d phi d phi^T on average over a manifold without ends. Of Gaussian coordinates, along which
functions are straight, nothing is lost. H has A + P + n P_ there instead, with what g of `scale`
has of the rows, which is right only where coordinates move. What g has of the volume, -V, is in
both. So half the log-determinant lacks, for every atom,

    U = n_/2 (log|P + X - V| - log|A + P + n P_ - V|),     X = A N^-1 A N^-1 A,  N = A + C/2 + tau P

in the n_ = p - M + 1 directions that a decoder of M functions, one of them constant, leaves free. X
is A - C to the first order and stays positive definite where a row knows nothing, as exp(-C) does;
tau only keeps N so. P + X - V need not be so where a decoder has hardly any length, which the rows
would show where their noise is less than phi: for an eigenvalue x of V in the metric of P + X,
log(1 - y) stands for log(1 - x), with y = x to the fourth order and at most `MOST`. One circle in
400 rows and 24 columns, noise .3: 3.0 nats of d2L outside, and 3.0 by quadrature. It grows with the
columns and the functions, not with the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from reml_sae.linalg import Incidence
from reml_sae.manifolds import Manifold
from reml_sae.typing import Array, Index

MOST = 0.9
"""Of y."""
SLIGHT = 1e-6
"""tau."""
ROUNDING = 1e-13
"""Of N, which is singular but for P where rows are few; without noise P is nothing to it."""


def compact_axes(atom: Manifold) -> list[int]:
    """Coordinates that blur their functions; none of a curve that has ends."""
    if atom.has_ends:
        return []
    return [axis for axis in range(atom.latent_dim) if axis not in atom.gaussian_axes]


@dataclass(frozen=True)
class OutsideRows:
    """What rows have of C: slopes of their functions, and what they know of their coordinates.

    Attributes
    ----------
    where : slice or (n,) index
        The rows of the state that these are: those that have functions of the atom.
    axes : (d,) places of the coordinates among those of the row's block
    weight : (n,) 1 / phi times the weights of the rows
    slopes : (n, d, M) slopes of the features
    inverse : (n, q, q) D_i^-1
    incidence : Incidence
        Which block of the border the rows meet.
    """

    where: slice | Index
    axes: Index
    weight: Array
    slopes: Array
    inverse: Array
    incidence: Incidence

    def _along(self, slopes: Array) -> Array:
        """Sum over e of (D_i^-1)_de times slopes (n, e, M), by the weight."""
        own = self.inverse[:, self.axes][:, :, self.axes]
        out: Array = self.weight[:, None, None] * (own @ slopes)
        return out

    def gram(self) -> Array:
        """C, (.., M, M)."""
        along = self._along(self.slopes)
        out = np.zeros((*self.incidence.shape, *(self.slopes.shape[2],) * 2))
        for d in range(len(self.axes)):
            out += self.incidence.sums(self.slopes[:, d], along[:, d])
        return out

    def pulled(self, by_gram: Array) -> tuple[Array, Array, Array]:
        """Derivatives of <by_gram, C>, for symmetric (.., M, M).

        Returns
        -------
        In D_i (n, q, q), in the slopes (n, d, M), and in the logs of the rows' weights (n,)
        """
        turned = np.empty_like(self.slopes)
        for d in range(len(self.axes)):
            turned[:, d] = self.incidence.apply(self.slopes[:, d], by_gram)
        along = self._along(turned)
        columns = self.inverse[:, :, self.axes]
        inner = self.weight[:, None, None] * (turned @ self.slopes.swapaxes(1, 2))
        blocks = -columns @ inner @ columns.swapaxes(1, 2)
        return blocks, 2.0 * along, (along * self.slopes).sum((1, 2))


@dataclass(frozen=True)
class Outside:
    """U of one atom, or of the atoms of one kind (..), and its derivatives.

    Parameters
    ----------
    A, C, P, V, G : (.., M, M) arrays
        Gram matrices: G = A + P + n P_ - V.
    n_outputs : int
        p.
    """

    A: Array
    C: Array
    P: Array
    V: Array
    G: Array
    n_outputs: int

    @property
    def _half(self) -> float:
        return 0.5 * max(self.n_outputs - self.A.shape[-1] + 1, 0)

    @cached_property
    def _known(self) -> Array:
        """W = N^-1 A."""
        N = self.A + 0.5 * self.C + SLIGHT * self.P
        rounded = N * (1.0 + ROUNDING * np.eye(N.shape[-1]))
        return np.asarray(np.linalg.solve(rounded, self.A), np.float64)

    @cached_property
    def _less(self) -> Array:
        """Q = P + X."""
        return np.asarray(self.P + self.A @ self._known @ self._known)

    @cached_property
    def value(self) -> float:
        """U."""
        logs = np.linalg.slogdet(self._less)[1] - np.linalg.slogdet(self.G)[1]
        less = np.log1p(-self._bounded[0]).sum() if self._has_volume else 0.0
        return self._half * float(logs.sum() + less)

    @cached_property
    def _has_volume(self) -> bool:
        return bool(self.V.any())

    @cached_property
    def _relative(self) -> tuple[Array, Array]:
        """Eigenvalues x (.., M) of V in the metric of Q, and directions d (.., M, M) there."""
        rounded = self._less * (1.0 + ROUNDING * np.eye(self.V.shape[-1]))
        root = np.linalg.inv(np.linalg.cholesky(rounded))
        values, vectors = np.linalg.eigh(root @ self.V @ root.swapaxes(-1, -2))
        return np.maximum(values, 0.0), root.swapaxes(-1, -2) @ vectors

    @cached_property
    def _bounded(self) -> tuple[Array, Array]:
        """y, and the derivative of log(1 - y) in x."""
        x = self._relative[0]
        whole = MOST**4 + x**4
        y = MOST * x * whole**-0.25
        return y, -(MOST**5) * whole**-1.25 / (1.0 - y)

    def _along(self, weights: Array) -> Array:
        """The sum of weights (.., M) times d d^T over the directions d."""
        directions = self._relative[1]
        return np.asarray((directions * weights[..., None, :]) @ directions.swapaxes(-1, -2))

    @cached_property
    def _inner(self) -> Array:
        """Derivative of log|Q - V| in Q."""
        if not self._has_volume:
            return np.asarray(np.linalg.inv(self._less), np.float64)
        x, slope = self._relative[0], self._bounded[1]
        return self._along(1.0 - slope * x)

    @cached_property
    def _by_n(self) -> Array:
        # dX = dA W W + sym + W^T dA W - W^T dN W W - W^T W^T dN W
        crossed = self._known @ self._around
        return -(crossed + crossed.swapaxes(-1, -2))

    @property
    def _around(self) -> Array:
        return np.asarray(self._known @ self._inner @ self._known.swapaxes(-1, -2))

    @cached_property
    def scales(self) -> Array:
        """Derivative in the n P_ of the rows."""
        return np.asarray(-self._half * np.linalg.inv(self.G))

    @property
    def volume(self) -> Array:
        """Derivative in -V; that of G alone where there is none."""
        if not self._has_volume:
            return self.scales
        return self.scales - self._half * self._along(self._bounded[1])

    @cached_property
    def data(self) -> Array:
        """Derivative in A."""
        first = self._known @ self._known @ self._inner
        moved = first + first.swapaxes(-1, -2) + self._around + self._by_n
        return self._half * moved + self.scales

    @property
    def blurred(self) -> Array:
        """Derivative in C."""
        return 0.5 * self._half * self._by_n

    @property
    def prior(self) -> Array:
        """Derivative in P."""
        return self._half * (self._inner + SLIGHT * self._by_n) + self.scales

    @property
    def scaling(self) -> float:
        """Derivative in the log of a common factor of A and n_ D_i, at which C stays as it is."""
        return float((self.data * self.A).sum())


@dataclass(frozen=True)
class OutsidePart:
    """U of the rows of one atom, or of the atoms of one kind, with its derivatives.

    Attributes
    ----------
    rows : OutsideRows
    terms : Outside
    """

    rows: OutsideRows
    terms: Outside

    @classmethod
    def of(
        cls, rows: OutsideRows, A: Array, P: Array, V: Array, G: Array, n_outputs: int
    ) -> Self:
        """Of rows and Gram matrices as those of `Outside`."""
        return cls(rows, Outside(A, rows.gram(), P, V, G, n_outputs))

    @cached_property
    def _pulled(self) -> tuple[Array, Array, Array]:
        return self.rows.pulled(self.terms.blurred)

    @property
    def blocks(self) -> Array:
        """Derivative in D_i, (n, q, q)."""
        return self._pulled[0]

    @property
    def slopes(self) -> Array:
        """Derivative in the slopes of the features, (n, d, M)."""
        return self._pulled[1]

    @property
    def by_weight(self) -> Array:
        """Derivative in the logs of the rows' weights (n,), at fixed A and D_i."""
        return self._pulled[2]
