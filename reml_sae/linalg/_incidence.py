"""Which rows of the border a row of an arrowhead meets: all of them, or those of one block.

Products of row arrays with the border, written once for both. Arrays of the border have a leading
axis of blocks where there are blocks, and none where every row meets everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from reml_sae.typing import Array, Index


class Incidence(Protocol):
    """What rows meet."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Leading axes of arrays of the border."""
        ...

    def apply(self, x: Array, matrices: Array) -> Array:
        """Every row of x (n, a) times its matrix (.., a, b): (n, b)."""
        ...

    def sums(self, x: Array, y: Array) -> Array:
        """Sums of x_i^T y_i over the rows that meet the same: (n, a) and (n, b) to (.., a, b)."""
        ...

    def of_rows(self, values: Array) -> Array:
        """Values (.., a, b) as they are for every row: (a, b), or (n, a, b)."""
        ...

    def within(self, where: slice) -> Incidence:
        """The same for a range of the rows."""
        ...

    def take(self, rows: Index) -> Incidence:
        """The same for some of the rows, in their order."""
        ...


class MeetsAll:
    """Every row meets the whole border."""

    shape: tuple[int, ...] = ()

    def apply(self, x: Array, matrices: Array) -> Array:
        """x times the one matrix."""
        return x @ matrices

    def sums(self, x: Array, y: Array) -> Array:
        """x^T y."""
        return x.T @ y

    def of_rows(self, values: Array) -> Array:
        """The values, which all rows share."""
        return values

    def within(self, where: slice) -> MeetsAll:
        """The same."""
        return self

    def take(self, rows: Index) -> MeetsAll:
        """The same."""
        return self


@dataclass(frozen=True)
class MeetsBlock:
    """Rows that each meet one block, sorted by block.

    Attributes
    ----------
    counts : (k,) int array
        How many rows meet each block.
    """

    counts: Index

    @property
    def shape(self) -> tuple[int, ...]:
        """(k,)."""
        return (len(self.counts),)

    @cached_property
    def block(self) -> Index:
        """The block of every row, (n,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @cached_property
    def _parts(self) -> list[tuple[int, slice]]:
        """Blocks that rows meet, with their rows."""
        ends = np.cumsum(self.counts)
        return [(j, slice(int(end - n), int(end)))
                for j, (n, end) in enumerate(zip(self.counts, ends, strict=True)) if n]

    def __iter__(self) -> Iterator[tuple[int, slice]]:
        return iter(self._parts)

    def apply(self, x: Array, matrices: Array) -> Array:
        """Rows x (n, a) times the matrices (k, a, b) of their blocks."""
        out = np.empty((len(x), matrices.shape[2]))
        for j, rows in self._parts:
            np.matmul(x[rows], matrices[j], out=out[rows])
        return out

    def sums(self, x: Array, y: Array) -> Array:
        """x_i^T y_i summed block by block, (k, a, b)."""
        out = np.zeros((len(self.counts), x.shape[1], y.shape[1]))
        for j, rows in self._parts:
            np.matmul(x[rows].T, y[rows], out=out[j])
        return out

    def of_rows(self, values: Array) -> Array:
        """Those of its block for every row, (n, a, b)."""
        taken: Array = values[self.block]
        return taken

    def within(self, where: slice) -> MeetsBlock:
        """The blocks of a range of the rows."""
        return self.take(np.arange(len(self.block))[where])

    def take(self, rows: Index) -> MeetsBlock:
        """The blocks of some of the rows, in their order."""
        return MeetsBlock(np.bincount(self.block[rows], minlength=len(self.counts)))
