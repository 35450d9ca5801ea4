"""Processes and a cluster give what one process gives, in its order; what dies is named."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from reml_sae.errors import InputError, WorkerError
from reml_sae.io import open_rows
from reml_sae.rows import DaskRows, ProcessRows, SerialRows, row_map, row_slices
from reml_sae.rows._map import in_order

Z = np.random.default_rng(0).normal(size=(40, 6))


@dataclass(frozen=True)
class Product:
    """Z_c' Z_c and the process, which dies at a row: once where ``marker`` is a file to write."""

    dies_at: int | None = None
    marker: Path | None = None

    def __call__(self, chunk):
        if self.dies_at is not None and chunk.start <= self.dies_at < chunk.stop and (
                self.marker is None or not self.marker.exists()):
            if self.marker is not None:
                self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        rows = chunk.read()
        return rows.T @ rows, os.getpid()


@pytest.fixture
def source(tmp_path):
    np.save(tmp_path / "z.npy", Z)
    return open_rows(tmp_path / "z.npy")


def chunks(source):
    return (source.chunk(part.start, part.stop) for part in row_slices(40, 6, 30))


def products(executor, source, task=None):
    found = list(executor.map(task or Product(), chunks(source)))
    assert os.getpid() not in {process for _, process in found}
    return [product for product, _ in found]


def same_bits(found, source):
    expected = [product for product, _ in SerialRows().map(Product(), chunks(source))]
    assert len(found) == 8
    assert all(one.tobytes() == other.tobytes()
               for one, other in zip(found, expected, strict=True))


def test_processes(source):
    same_bits(products(ProcessRows(2), source), source)


def test_a_process_that_dies_is_named(source):
    with pytest.raises(WorkerError, match=r"rows \d+ to \d+ of Z='.*z\.npy'.*fewer workers"):
        products(ProcessRows(1), source, Product(dies_at=22))


@pytest.fixture(scope="module")
def cluster():
    """Two workers; a chunk may end one of them, not two."""
    distributed = pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    with (dask.config.set({"distributed.scheduler.allowed-failures": 1}),
          distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None,
                                   silence_logs=50) as running):
        yield running


def test_a_cluster_that_loses_a_worker(cluster, source, tmp_path):
    marker = tmp_path / "died"
    found = products(DaskRows(cluster.scheduler_address), source, Product(22, marker))
    assert marker.exists()
    same_bits(found, source)


def test_a_chunk_that_ends_every_worker_is_named(cluster, source):
    # or one that waited at each of the workers that died: the scheduler cannot tell them apart
    distributed = pytest.importorskip("distributed")
    with distributed.Client(cluster) as client, pytest.raises(
            WorkerError, match=r"every worker that took rows \d+ to \d+ of Z='.*z\.npy' died"):
        products(row_map(client), source, Product(dies_at=22))


def test_no_cluster_there():
    pytest.importorskip("distributed")
    with pytest.raises(InputError, match=r"executor='tcp://127\.0\.0\.1:9'.*no scheduler"):
        list(DaskRows("tcp://127.0.0.1:9", timeout="1s").map(Product(), []))


@pytest.mark.parametrize("executor", [0, -2, True, 1.5, "", "nowhere", "tcp://x", object(), len])
def test_what_executes_no_rows_is_refused(executor):
    with pytest.raises(InputError, match="executor"):
        row_map(executor)


def test_what_executes_rows():
    own = SerialRows(7)
    assert row_map(own) is own
    assert row_map(None) == SerialRows()
    assert row_map(3) == ProcessRows(3)
    assert row_map("tcp://here:1") == DaskRows("tcp://here:1")


def test_few_chunks_are_under_way_and_those_not_wanted_are_cancelled():
    class Later:
        def __init__(self, number):
            self.number, self.cancelled = number, False
            made.append(self)

        def result(self):
            return self.number

        def cancel(self):
            self.cancelled = True

    made = []
    results = in_order(Later, range(10), 3)
    assert next(results)[1].result() == 0 and len(made) == 3
    assert next(results)[1].result() == 1 and len(made) == 4
    results.close()
    assert [item.cancelled for item in made] == [False, False, True, True]
