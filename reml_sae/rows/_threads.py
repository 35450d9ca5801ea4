"""Chunks of rows in threads of this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from reml_sae.rows._map import CHUNK_ELEMENTS, Chunk, Result, in_order


def own_cores() -> int:
    """Count of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (
        os.cpu_count() or 1)


@dataclass(frozen=True)
class ThreadRows:
    """Chunks in threads, for work that numpy does on large arrays: it lets other threads run.

    Chunks, their order and so the bits are those of `SerialRows`.

    Parameters
    ----------
    n_workers : int
    elements : int
        Numbers that the widest array of a chunk may have.
    """

    n_workers: int = field(default_factory=own_cores)
    elements: int = CHUNK_ELEMENTS

    def map(
        self, task: Callable[[Chunk], Result], chunks: Iterable[Chunk]
    ) -> Iterator[Result]:
        """Results of all chunks, in their order."""
        with ThreadPoolExecutor(self.n_workers) as pool:
            for _, pending in in_order(lambda chunk: pool.submit(task, chunk), chunks,
                                       self.n_workers + 1):
                yield pending.result()
