"""Chunks of rows, what executes them, and how their results become one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import numpy as np

from reml_sae.typing import Array

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

CHUNK_ELEMENTS = 4_000_000
"""Numbers in the widest array of a chunk, 32 MB."""


class RowMap(Protocol):
    """Executes a computation for every chunk of rows."""

    def map(
        self, task: Callable[[Chunk], Result], chunks: Iterable[Chunk]
    ) -> Iterable[Result]:
        """Results of all chunks, in their order."""


class SerialRows:
    """One chunk after the other, here; a chunk is made when the last one is done."""

    def map(
        self, task: Callable[[Chunk], Result], chunks: Iterable[Chunk]
    ) -> Iterable[Result]:
        """Results of all chunks, in their order."""
        return map(task, chunks)


def row_slices(n_rows: int, width: int, elements: int = CHUNK_ELEMENTS) -> list[slice]:
    """Chunks of rows, each in as many numbers as fit; one that is empty where there is no row.

    Parameters
    ----------
    n_rows : int
    width : int
        Numbers a row in the widest array of the computation.
    elements : int
        Numbers that this array may have.
    """
    size = max(1, elements // max(1, width))
    return [slice(start, min(start + size, n_rows)) for start in range(0, max(n_rows, 1), size)]


def sum_rows(
    rows: RowMap, task: Callable[[Chunk], tuple[Any, ...]], chunks: Iterable[Chunk]
) -> tuple[Any, ...]:
    """Sums over all chunks of what the task returns: numbers and arrays of its own."""
    total: list[Any] = []
    for part in rows.map(task, chunks):
        if total:
            for number, value in enumerate(part):
                total[number] += value
        else:
            total = list(part)
    return tuple(total)


def join_rows(
    rows: RowMap, task: Callable[[Chunk], tuple[Array, ...]], chunks: Iterable[Chunk]
) -> tuple[Array, ...]:
    """Arrays with one entry a row, of all chunks one after the other."""
    parts = list(rows.map(task, chunks))
    if len(parts) == 1:
        return parts[0]
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
