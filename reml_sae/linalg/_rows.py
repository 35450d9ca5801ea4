"""Rows of an arrowhead, eliminated (DESIGN A3).

With blocks D_i and coupling C_i = s phi_i^T (x) j_i inside the span,

    C^T D^-1 C = s^2 sum_i (phi_i phi_i^T) (x) W_i,    W_i = j_i^T D_i^-1 j_i

is accumulated as products of packed symmetric pairs, and the blocks of H^-1 at the rows follow from
that at the border. Sums over rows are additive over chunks.
"""

from __future__ import annotations

import numpy as np

from reml_sae.linalg._batched import (
    batched_cholesky,
    batched_cholesky_solve,
    batched_inverse,
    batched_solve_lower,
    batched_solve_upper,
    factor_logdet,
)
from reml_sae.linalg._incidence import Incidence
from reml_sae.typing import Array

CHUNK_ELEMENTS = 4_000_000


class EliminatedRows:
    """Row blocks with their factors.

    Parameters
    ----------
    blocks : (n, q, q) array
        D_i.
    features : (n, m) array
        phi_i, of the rows of the border that a row meets.
    jacobians : (n, q, r) array
        j_i, in coordinates of their span.
    scale : float
        s.
    incidence : Incidence
    chunk_rows : int, optional
        Rows that are worked on at once; chosen from a bound on memory by default.
    """

    def __init__(
        self, blocks: Array, features: Array, jacobians: Array, scale: float,
        incidence: Incidence, chunk_rows: int | None = None,
    ):
        self.blocks, self.features, self.jacobians = blocks, features, jacobians
        self.scale, self.incidence = scale, incidence
        self.m, self.r = features.shape[1], jacobians.shape[2]
        self._lower = batched_cholesky(blocks)
        pairs = self.m * (self.m + 1) // 2 + self.r * (self.r + 1) // 2
        pairs += self.m * self.m + 2 * self.r * self.r
        self._chunk = chunk_rows or max(1, CHUNK_ELEMENTS // max(1, pairs))
        self._m_pairs, self._r_pairs = np.triu_indices(self.m), np.triu_indices(self.r)

    def _chunks(self) -> list[slice]:
        n = len(self.features)
        return [slice(start, start + self._chunk) for start in range(0, n, self._chunk)]

    def _half(self, where: slice) -> Array:
        """L_i^-1 j_i of a chunk, (n, q, r); its Gram matrix is W_i."""
        return batched_solve_lower(self._lower[where], self.jacobians[where])

    def logdet(self) -> float:
        """Sum of log|D_i|."""
        return float(factor_logdet(self._lower).sum())

    def solve(self, g: Array) -> Array:
        """D^-1 g for g (n, q)."""
        return batched_cholesky_solve(self._lower, g[:, :, None])[:, :, 0]

    def towards_border(self, x: Array) -> Array:
        """C^T x inside the span for x (n, q): (.., m, r)."""
        pushed = np.einsum("nar,na->nr", self.jacobians, x)
        return self.scale * self.incidence.sums(self.features, pushed)

    def from_border(self, x: Array) -> Array:
        """C x for x (.., m, r) inside the span: (n, q)."""
        out: Array = self.scale * np.einsum("nar,nr->na", self.jacobians, self.met(x))
        return out

    def met(self, x: Array) -> Array:
        """phi_i x for x (.., m, c): (n, c)."""
        return self.incidence.apply(self.features, x)

    def solved_jacobians(self) -> Array:
        """D_i^-1 j_i, (n, q, r)."""
        return batched_cholesky_solve(self._lower, self.jacobians)

    def coupling(self) -> Array:
        """C^T D^-1 C, (.., m, r, m, r)."""
        (ma, mb), (ra, rb), lead = self._m_pairs, self._r_pairs, self.incidence.shape
        packed = np.zeros((*lead, ma.size, ra.size))
        for where in self._chunks():
            phi, root = self.features[where], self._half(where)
            pulled = root.transpose(0, 2, 1) @ root
            packed += self.incidence.within(where).sums(
                phi[:, ma] * phi[:, mb], pulled[:, ra, rb])
        half = np.empty((*lead, ma.size, self.r, self.r))
        half[..., ra, rb] = packed
        half[..., rb, ra] = packed
        full = np.empty((*lead, self.m, self.m, self.r, self.r))
        full[..., ma, mb, :, :] = half
        full[..., mb, ma, :, :] = half
        return self.scale**2 * full.swapaxes(-3, -2)

    def selected_inverse(self, inside: Array, border_trace: Array) -> tuple[Array, Array, Array]:
        """Blocks of H^-1 at the rows, and T of `SpanSelectedInverse`: its rows, and its border.

        Parameters
        ----------
        inside : (.., m, r, m, r) array
            Border block of H^-1 inside the span, at what a row meets.
        border_trace : (.., m, m) array
            Its trace over all outputs.

        Returns
        -------
        (n, q, q), (n, q, r) and (n, m) arrays
        """
        s, m, r = self.scale, self.m, self.r
        (ma, mb), (ra, rb) = self._m_pairs, self._r_pairs
        inverse = inside.swapaxes(-3, -2)
        # K[(m m'), (r r')] symmetrised over both pairs, since it only meets symmetric partners
        k = 0.5 * (inverse + inverse.swapaxes(-4, -3))
        k = k[..., ma, mb, :, :][..., ra, rb]
        m_weight = np.where(ma == mb, 1.0, 2.0)
        r_weight = np.where(ra == rb, 1.0, 2.0)
        rows = np.empty_like(self.blocks)
        jac_cross = np.empty_like(self.jacobians)
        feature_cross = np.empty_like(self.features)
        for where in self._chunks():
            meets = self.incidence.within(where)
            phi, j = self.features[where], self.jacobians[where]
            lower, half, n = self._lower[where], self._half(where), len(phi)
            x_packed = meets.apply(phi[:, ma] * phi[:, mb] * m_weight, k)
            x = np.empty((n, r, r))
            x[:, ra, rb] = x_packed
            x[:, rb, ra] = x_packed
            dj = batched_solve_upper(lower, half)
            djx = dj @ x
            rows[where] = batched_inverse(self.blocks[where], lower)
            rows[where] += s**2 * (djx @ dj.transpose(0, 2, 1))
            jac_cross[where] = s * (rows[where] @ j - s * djx)
            w = half.transpose(0, 2, 1) @ half
            u_packed = meets.apply(w[:, ra, rb] * r_weight, k.swapaxes(-1, -2))
            u = np.empty((n, m, m))
            u[:, ma, mb] = u_packed
            u[:, mb, ma] = u_packed
            feature_cross[where] = -(s**2) * np.einsum("na,nab->nb", phi, u)
        feature_cross += s * self.incidence.apply(self.features, border_trace)
        return rows, jac_cross, feature_cross
