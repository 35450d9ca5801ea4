"""Chunks of rows in worker processes of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from reml_sae.errors import WorkerError
from reml_sae.rows._map import CHUNK_ELEMENTS, Chunk, Result, in_order

AHEAD = 2
"""Chunks a worker that wait or are done: enough that none idles, few enough to hold."""

_task: Callable[[Any], Any]


@dataclass(frozen=True)
class ProcessRows:
    """Chunks in processes, which start for a computation and end with it.

    They begin with none of the caller's memory ("spawn"): a script that uses them needs
    ``if __name__ == "__main__":``. The results are those of `SerialRows`, to the bit, for any
    number of workers, as chunks and their order are the same.

    Parameters
    ----------
    n_workers : int
    elements : int
        Numbers that the widest array of a chunk may have.
    """

    n_workers: int
    elements: int = CHUNK_ELEMENTS

    def map(
        self, task: Callable[[Chunk], Result], chunks: Iterable[Chunk]
    ) -> Iterator[Result]:
        """Results of all chunks, in their order.

        Raises
        ------
        WorkerError
            Where a worker died, naming the first chunk that was not done.
        """
        pool = ProcessPoolExecutor(self.n_workers, mp_context=get_context("spawn"),
                                   initializer=_take, initargs=(task,))
        here: object = "the first chunk"
        try:
            # the task is sent once a worker, not once a chunk
            for chunk, pending in in_order(lambda chunk: pool.submit(_run, chunk), chunks,
                                           AHEAD * self.n_workers):
                here = chunk
                yield pending.result()
        except BrokenProcessPool as error:
            raise WorkerError(
                f"a worker process died before {here} was done. Where the system took it for its "
                "memory, use fewer workers; where none could start, put the call below 'if "
                "__name__ == \"__main__\":'") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _take(task: Callable[[Any], Any]) -> None:
    """Keep the task of this worker."""
    global _task
    _task = task


def _run(chunk: Any) -> Any:
    return _task(chunk)
