"""From the argument ``executor`` to what executes chunks of rows."""

from __future__ import annotations

import re
from typing import Any

from reml_sae.errors import InputError
from reml_sae.rows._dask import DaskRows
from reml_sae.rows._map import RowMap, SerialRows
from reml_sae.rows._processes import ProcessRows

ADDRESS = re.compile(r"inproc://\S+|([a-z]+://)?([\w.-]+|\[[0-9a-fA-F:.]+\]):\d{1,5}")
"""Of a scheduler, as dask reads it."""


def row_map(executor: Any) -> RowMap:
    """What executes chunks of rows.

    Parameters
    ----------
    executor : None, int, RowMap, distributed.Client or str
        None: here, one chunk after the other. A number of worker processes. A client of a cluster,
        or the address of its scheduler.

    Raises
    ------
    InputError
        Where it is none of them.
    """
    if executor is None:
        return SerialRows()
    if isinstance(executor, int) and not isinstance(executor, bool):
        if executor < 1:
            raise InputError(f"executor must be at least 1 worker process, got {executor}")
        return ProcessRows(int(executor))
    if isinstance(executor, str):
        if not ADDRESS.fullmatch(executor):
            raise InputError(f"executor={executor!r} is no address of a dask scheduler; give the "
                             "one that it prints, such as 'tcp://10.0.0.1:8786'")
        return DaskRows(executor)
    if type(executor).__module__.partition(".")[0] == "distributed":
        return DaskRows(executor)
    if callable(getattr(executor, "map", None)) and hasattr(executor, "elements"):
        return executor
    raise InputError(f"executor must be None, a number of worker processes, the address or client "
                     f"of a dask cluster, or a RowMap (map and elements), got {executor!r}")
