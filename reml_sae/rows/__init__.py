"""Computations over rows, chunk by chunk: the one seam at which they can go elsewhere.

A row computation is a function of a chunk of rows that returns a `RowResult`: arrays with one entry
a row, and sums over its rows. `gather_rows` has a `RowMap` execute it for every chunk, concatenates
the first and adds up the second, always in the order of the chunks: what comes out does not depend
on where they ran.
"""

from reml_sae.rows._choose import row_map
from reml_sae.rows._dask import DaskRows
from reml_sae.rows._map import (
    CHUNK_ELEMENTS,
    RowMap,
    RowResult,
    SerialRows,
    gather_rows,
    row_slices,
    spread_index,
)
from reml_sae.rows._processes import ProcessRows
from reml_sae.rows._threads import ThreadRows

__all__ = ["CHUNK_ELEMENTS", "DaskRows", "ProcessRows", "RowMap", "RowResult", "SerialRows",
           "ThreadRows", "gather_rows", "row_map", "row_slices", "spread_index"]
