"""Chunks of rows, what executes them, and how their results become one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from reml_sae.typing import Array, Index

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")
Done = TypeVar("Done", covariant=True)

CHUNK_ELEMENTS = 1_000_000
"""Numbers in the widest array of a chunk, 8 MB."""


class RowMap(Protocol):
    """Executes a computation for every chunk of rows."""

    @property
    def elements(self) -> int:
        """Numbers that the widest array of a chunk may have."""

    def map(
        self, task: Callable[[Chunk], Result], chunks: Iterable[Chunk]
    ) -> Iterable[Result]:
        """Results of all chunks, in their order."""


@dataclass(frozen=True)
class SerialRows:
    """One chunk after the other, here; a chunk is made when the last one is done.

    Parameters
    ----------
    elements : int
        Numbers that the widest array of a chunk may have.
    """

    elements: int = CHUNK_ELEMENTS

    def map(
        self, task: Callable[[Chunk], Result], chunks: Iterable[Chunk]
    ) -> Iterable[Result]:
        """Results of all chunks, in their order."""
        return map(task, chunks)


class Pending(Protocol[Done]):
    """A result to come: the futures of `concurrent.futures` and of `distributed` are such."""

    def result(self) -> Done:
        """Wait for it."""

    def cancel(self) -> Any:
        """Do without it."""


def in_order(
    submit: Callable[[Chunk], Pending[Result]], chunks: Iterable[Chunk], ahead: int
) -> Iterator[tuple[Chunk, Pending[Result]]]:
    """Every chunk with its result to come, in order, at most ``ahead`` of them under way."""
    waiting: deque[tuple[Chunk, Pending[Result]]] = deque()
    try:
        for chunk in chunks:
            waiting.append((chunk, submit(chunk)))
            if len(waiting) == ahead:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for _, pending in waiting:
            pending.cancel()


@dataclass(frozen=True)
class RowResult:
    """What a row computation returns of its rows.

    Attributes
    ----------
    each : tuple of arrays
        One entry a row.
    sums : tuple of floats and arrays
        Sums over the rows, which the computation does not keep.
    """

    each: tuple[Array, ...] = ()
    sums: tuple[Any, ...] = ()


def row_slices(n_rows: int, width: int, elements: int) -> list[slice]:
    """Chunks of as many rows as fit; one that is empty where there is no row.

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


def spread_index(n_rows: int, most: int) -> Index:
    """Numbers of rows, all of them or ``most``, evenly over them: the same every time."""
    return np.unique(np.linspace(0, n_rows - 1, min(most, n_rows)).astype(np.intp))


def gather_rows(
    row_map: RowMap, task: Callable[[Chunk], RowResult], chunks: Iterable[Chunk]
) -> RowResult:
    """The result of all chunks together."""
    each: list[tuple[Array, ...]] = []
    total: list[Any] = []
    for part in row_map.map(task, chunks):
        each.append(part.each)
        if len(each) == 1:
            total = list(part.sums)
            continue
        for number, value in enumerate(part.sums):
            total[number] += value
    joined = each[0] if len(each) == 1 else tuple(map(np.concatenate, zip(*each, strict=True)))
    return RowResult(joined, tuple(total))
