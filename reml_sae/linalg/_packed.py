"""Row blocks of which each row carries only some parameters, packed (DESIGN A3).

A row that carries few of its q parameters has a unit block on the others, without gradient and
without coupling. They are left out of the batched factors, which then cost what the largest row
carries, not q.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Self

import numpy as np

from reml_sae.linalg._span_blocks import SpanBlocks
from reml_sae.linalg._span_factor import SpanArrowFactor, SpanSelectedInverse
from reml_sae.linalg._supports import supports_of
from reml_sae.typing import Array, Index, Mask


class PackedRows:
    """Moves the parameters that each row carries to the front, and back.

    Parameters
    ----------
    carried : (N, q) bool
    """

    def __init__(self, carried: Mask):
        self.q = carried.shape[1]
        self.width = int(carried.sum(axis=1).max(initial=0))
        order = np.argsort(~carried, axis=1, kind="stable")[:, : self.width]
        self._order = order
        self._rows = np.arange(len(carried))[:, None]
        self._real = carried[self._rows, order]

    @property
    def is_whole(self) -> bool:
        """Whether some row carries everything, so that there is nothing to gain."""
        return self.width == self.q

    def take(self, index: Index) -> Self:
        """That of some of the rows, as wide as that of all."""
        out = copy(self)
        out._order, out._real = self._order[index], self._real[index]
        out._rows = self._rows[:len(out._order)]
        return out

    def pack(self, rows: Array) -> Array:
        """Entries (N, q, ..) that rows carry, (N, width, ..); zero where a row carries fewer."""
        if self.is_whole:
            return rows
        taken: Array = rows[self._rows, self._order]
        return taken * self._real.reshape(self._real.shape + (1,) * (rows.ndim - 2))

    def pack_blocks(self, blocks: Array) -> Array:
        """Blocks (N, q, q) of what rows carry, (N, width, width); a unit diagonal elsewhere."""
        if self.is_whole:
            return blocks
        order = self._order
        out: Array = blocks[self._rows[:, :, None], order[:, :, None], order[:, None, :]]
        out *= self._real[:, :, None] & self._real[:, None, :]
        index = np.arange(self.width)
        out[:, index, index] += ~self._real
        return out

    def unpack(self, packed: Array) -> Array:
        """Entries (N, width, ..) back at their places, zero elsewhere: (N, q, ..)."""
        if self.is_whole:
            return packed
        out = np.zeros((len(packed), self.q, *packed.shape[2:]))
        real = self._real.reshape(self._real.shape + (1,) * (packed.ndim - 2))
        out[self._rows, self._order] = packed * real
        return out

    def unpack_blocks(self, packed: Array) -> Array:
        """Blocks back at their places, a unit diagonal elsewhere: (N, q, q)."""
        if self.is_whole:
            return packed
        rows = self.unpack(self.unpack(packed).transpose(0, 2, 1)).transpose(0, 2, 1)
        index = np.arange(self.q)
        held = np.ones((len(packed), self.q), bool)
        held[self._rows, self._order] = ~self._real
        rows[:, index, index] += held
        return rows


class PackedFactor:
    """Factor of a `SpanArrowMatrix` in which rows carry few of their parameters.

    Parameters
    ----------
    matrix : SpanBlocks
        Without edges; its low-rank part is left out.
    packed : PackedRows
    """

    def __init__(self, matrix: SpanBlocks, packed: PackedRows, chunk_rows: int | None = None):
        self.matrix, self._packed = matrix, packed
        supports = [] if matrix.met is None else supports_of(matrix.met)
        self._base = SpanArrowFactor(replace(
            matrix, rows=packed.pack_blocks(matrix.rows), jacobians=packed.pack(matrix.jacobians),
            edges=np.zeros((0, packed.width, packed.width)), columns=np.zeros((0, 0, 0)),
            core=np.zeros((0, 0)), carried=None, met=None), chunk_rows, supports)

    @property
    def backend(self) -> str | None:
        """None: no sparse Cholesky."""
        return self._base.backend

    def logdet(self) -> float:
        """Log-determinant of H."""
        return self._base.logdet()

    def solve(self, g_rows: Array, g_border: Array) -> tuple[Array, Array]:
        """Solve H x = g for g = ((N, q), (M, p)); parameters that are not carried have x = g."""
        packed = self._packed.pack(g_rows)
        rows, border = self._base.solve(packed, g_border)
        return self._packed.unpack(rows) + (g_rows - self._packed.unpack(packed)), border

    def solve_rows(self, g: Array) -> Array:
        """D^-1 g for g (N, q)."""
        packed = self._packed.pack(g)
        return self._packed.unpack(self._base.solve_rows(packed)) + g - self._packed.unpack(packed)

    def with_border(self, extra: Array) -> Self:
        """The factor of H with ``extra`` (M, r, M, r) added to its border, inside the span."""
        other = copy(self)
        other._base = self._base.with_border(extra)
        return other

    def apply_border_inverse(self, v: Array) -> Array:
        """Apply the border block of H^-1 to v (.., M, p)."""
        return self._base.apply_border_inverse(v)

    def border_inverse(self) -> Array:
        """Border block of H^-1 inside the span, (M, r, M, r)."""
        return self._base.border_inverse()

    def coefficient_covariance(self, where: slice) -> Array:
        """Blocks of H^-1 of border rows ``where`` for every output: (p, m, m)."""
        return self._base.coefficient_covariance(where)

    def selected_inverse(self) -> SpanSelectedInverse:
        """Return the parts of H^-1 that derivatives of log|H| need."""
        found = self._base.selected_inverse()
        return replace(found, rows=self._packed.unpack_blocks(found.rows),
                       jac_cross=self._packed.unpack(found.jac_cross),
                       edges=np.zeros((0, self._packed.q, self._packed.q)),
                       columns=np.zeros((0, len(found.rows), self._packed.q)))
