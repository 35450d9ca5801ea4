"""Eliminated rows that meet a few rows of the border each, support by support (DESIGN A3, H1).

Under hard gates a row has features of its own atoms alone. Rows that can have the same features
have one support, a set c of border rows, and

    C^T D^-1 C = s^2 sum_i (phi_i phi_i^T) (x) W_i

has only pairs of c in its term: products are of the rows of a support, and go to the blocks of S
that these pairs have. Blocks of atoms that no row uses together stay zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from reml_sae.linalg._batched import (
    batched_inverse,
    batched_solve_lower,
    batched_solve_upper,
)
from reml_sae.linalg._incidence import MeetsAll
from reml_sae.linalg._rows import EliminatedRows
from reml_sae.typing import Array, Index, Mask

WORTHWHILE = 0.5
"""Share of all pairs of border rows, in the mean over rows, below which supports are used."""


class Support(NamedTuple):
    """Rows (n,) with the border rows (m,) that they meet, in order."""

    rows: Index
    columns: Index


def supports_of(met: Mask) -> list[Support]:
    """Supports of rows that meet some (N, M) of the border; none where they save little."""
    packed = np.packbits(met, axis=1)
    _, label, counts = np.unique(packed, axis=0, return_inverse=True, return_counts=True)
    parts = np.split(np.argsort(label.ravel(), kind="stable"), np.cumsum(counts)[:-1])
    out = [Support(rows, np.flatnonzero(met[rows[0]])) for rows in parts if rows.size]
    pairs = sum(len(rows) * len(columns) ** 2 for rows, columns in out)
    return out if pairs <= WORTHWHILE * len(met) * met.shape[1] ** 2 else []


class SupportedRows(EliminatedRows):
    """Row blocks with their factors, the rows by their supports.

    Parameters
    ----------
    blocks, features, jacobians, scale
        As of `EliminatedRows`.
    supports : sequence of Support
        Of which every row has one.
    chunk_rows : int, optional
        As of `EliminatedRows`.
    """

    def __init__(self, blocks: Array, features: Array, jacobians: Array, scale: float,
                 supports: Sequence[Support], chunk_rows: int | None = None):
        super().__init__(blocks, features, jacobians, scale, MeetsAll(), chunk_rows)
        self._supports = [Support(rows[start:start + self._chunk], columns)
                          for rows, columns in supports
                          for start in range(0, len(rows), self._chunk)]
        self._first = np.concatenate([[0], np.cumsum(np.arange(self.m, 0, -1))])

    def _pairs(self, columns: Index) -> tuple[Index, Index, Index]:
        """Pairs a <= b of a support, and their places among those of all."""
        a, b = np.triu_indices(len(columns))
        return a, b, self._first[columns[a]] + columns[b] - columns[a]

    def coupling(self) -> Array:
        """C^T D^-1 C, (M, r, M, r)."""
        ra, rb = self._r_pairs
        packed = np.zeros((self._first[-1], ra.size))
        for rows, columns in self._supports:
            a, b, places = self._pairs(columns)
            phi, root = self.features[np.ix_(rows, columns)], self._roots(rows)
            pulled = (root.transpose(0, 2, 1) @ root)[:, ra, rb]
            packed[places] += (phi[:, a] * phi[:, b]).T @ pulled
        packed *= self.scale**2
        out = np.empty((self.m, self.r, self.m, self.r))
        place = np.empty((self.r, self.r), np.intp)
        place[ra, rb] = place[rb, ra] = np.arange(ra.size)
        for head in range(self.m):
            half = packed[self._first[head]:self._first[head + 1]].take(place, axis=1)
            out[head, :, head:] = half.transpose(1, 0, 2)
            out[head:, :, head] = half
        return out

    def selected_inverse(self, inside: Array, border_trace: Array) -> tuple[Array, Array, Array]:
        """See `EliminatedRows.selected_inverse`."""
        s, (ra, rb) = self.scale, self._r_pairs
        r_weight = np.where(ra == rb, 1.0, 2.0)
        k = np.empty((self._first[-1], ra.size))
        for head in range(self.m):
            own = inside[head, :, head:].transpose(1, 0, 2)
            k[self._first[head]:self._first[head + 1]] = 0.5 * (own[:, ra, rb] + own[:, rb, ra])
        rows_inverse = batched_inverse(self.blocks, self._lower)
        jac_cross = np.empty_like(self.jacobians)
        feature_cross = s * (self.features @ border_trace)
        for rows, columns in self._supports:
            a, b, places = self._pairs(columns)
            met, phi, root = k[places], self.features[np.ix_(rows, columns)], self._roots(rows)
            x = np.empty((len(rows), self.r, self.r))
            x[:, ra, rb] = (phi[:, a] * phi[:, b] * np.where(a == b, 1.0, 2.0)) @ met
            x[:, rb, ra] = x[:, ra, rb]
            dj = batched_solve_upper(self._lower[rows], root)
            djx = dj @ x
            inverse = rows_inverse[rows] + s**2 * (djx @ dj.transpose(0, 2, 1))
            rows_inverse[rows] = inverse
            jac_cross[rows] = s * (inverse @ self.jacobians[rows] - s * djx)
            w = (root.transpose(0, 2, 1) @ root)[:, ra, rb] * r_weight
            u = np.empty((len(rows), len(columns), len(columns)))
            u[:, a, b] = w @ met.T
            u[:, b, a] = u[:, a, b]
            feature_cross[np.ix_(rows, columns)] -= s**2 * np.einsum("na,nab->nb", phi, u)
        return rows_inverse, jac_cross, feature_cross

    def _roots(self, rows: Index) -> Array:
        """L_i^-1 j_i of some rows, (n, q, r)."""
        return batched_solve_lower(self._lower[rows], self.jacobians[rows])
