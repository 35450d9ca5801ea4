"""Chunks of rows on a cluster, by a client of `distributed`."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

from reml_sae.errors import InputError, WorkerError, require
from reml_sae.rows._map import CHUNK_ELEMENTS, Chunk, Result, in_order

AHEAD = 2
"""Chunks a thread of the cluster that are under way or wait to be fetched."""
LEAST_AHEAD = 32
"""The same for a cluster whose workers are still to come."""
_ALONE = threading.Lock()


@dataclass(frozen=True)
class DaskRows:
    """Chunks on a cluster, one task each.

    What is sent is the task, once, and for every chunk its range of rows: with a source of files
    these are paths, which all workers must see. A chunk whose worker dies is computed elsewhere.
    A worker computes one chunk at a time, on one BLAS thread, so that its bits do not depend on
    the others: give it one thread.

    Parameters
    ----------
    cluster : distributed.Client or str
        A client, which stays open, or the address of a scheduler.
    elements : int
        Numbers that the widest array of a chunk may have.
    timeout : str
        How long the scheduler may take to answer.
    """

    cluster: Any
    elements: int = CHUNK_ELEMENTS
    timeout: str = "10s"

    def map(
        self, task: Callable[[Chunk], Result], chunks: Iterable[Chunk]
    ) -> Iterator[Result]:
        """Results of all chunks, in their order.

        Raises
        ------
        InputError
            Where there is no scheduler at the address.
        WorkerError
            Where the cluster is lost, or a chunk ends every worker that takes it; it is named.
        """
        distributed = require("distributed", "dask", "DaskRows")
        if not isinstance(self.cluster, str):
            yield from _map(distributed, self.cluster, task, chunks)
            return
        try:
            client = distributed.Client(self.cluster, timeout=self.timeout,
                                        set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(f"executor={self.cluster!r}: no scheduler answers there ({error}); "
                             "give the address that the scheduler prints") from error
        with client:
            yield from _map(distributed, client, task, chunks)


def _map(
    distributed: Any, client: Any, task: Callable[[Chunk], Result], chunks: Iterable[Chunk]
) -> Iterator[Result]:
    here: object = "the first chunk"
    try:
        # a task of its own, which the scheduler can repeat where the worker that holds it dies
        shared = client.submit(pickle.loads, pickle.dumps(task), pure=False)
        ahead = max(LEAST_AHEAD, AHEAD * sum(client.nthreads().values()))
        for chunk, pending in in_order(
                lambda chunk: client.submit(_run, shared, chunk, pure=False), chunks, ahead):
            here = chunk
            yield pending.result()
    except distributed.scheduler.KilledWorker as error:
        raise WorkerError(
            f"every worker that took {here} died; it may not have the memory: give workers more, "
            "or use DaskRows(client, elements=) with less") from error
    except (CancelledError, asyncio.CancelledError, OSError) as error:
        raise WorkerError(f"the cluster was lost before {here} was done ({error!r}); start it "
                          "again and repeat the call") from error


def _run(task: Callable[[Any], Any], chunk: Any) -> Any:
    with _ALONE:
        return task(chunk)
