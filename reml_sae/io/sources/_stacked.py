"""Rows of several files, one below the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from reml_sae.errors import InputError
from reml_sae.io.sources._base import FileRows, Rows, RowSource


@dataclass(frozen=True)
class StackedRows(FileRows):
    """The rows of the first part, those of the second, and so on.

    Attributes
    ----------
    name : str
    parts : tuple of RowSource
        All of one width and dtype.
    ends : tuple of int
        Rows up to the end of each part.
    """

    name: str
    parts: tuple[RowSource, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, parts: Sequence[RowSource], name: str) -> StackedRows:
        """The parts in their order.

        Raises
        ------
        InputError
            Naming the first part whose width or dtype is not that of the first.
        """
        first = parts[0]
        for part in parts[1:]:
            if part.shape[1] != first.shape[1]:
                raise InputError(f"{part.name} has {part.shape[1]} columns and {first.name} has "
                                 f"{first.shape[1]}; the shards of one matrix have one width: take "
                                 "away what does not belong to it, or name a glob")
            if part.dtype != first.dtype:
                raise InputError(f"{part.name} holds {part.dtype} and {first.name} "
                                 f"{first.dtype}; write all shards with one dtype")
        return cls(name, tuple(parts), tuple(accumulate(part.shape[0] for part in parts)))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.ends[-1], self.parts[0].shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """What `rows` returns."""
        return self.parts[0].dtype

    def rows(self, start: int, stop: int) -> Rows:
        """Rows of a range, each from the part that has it."""
        out = np.empty((stop - start, self.shape[1]), self.dtype)
        at, number = start, bisect_right(self.ends, start)
        while at < stop:
            part, end = self.parts[number], self.ends[number]
            before, until = end - part.shape[0], min(stop, end)
            out[at - start:until - start] = part.rows(at - before, until - before)
            at, number = until, number + 1
        return out
