"""Computations over rows, chunk by chunk: the one seam at which they can go elsewhere.

A row computation is a function of a chunk of rows that returns sums over its rows, or arrays with
one entry a row. `sum_rows` adds the first up, `join_rows` concatenates the second, always in the
order of the chunks: what comes out does not depend on where they ran.
"""

from reml_sae.rows._map import RowMap, SerialRows, join_rows, row_slices, sum_rows

__all__ = ["RowMap", "SerialRows", "join_rows", "row_slices", "sum_rows"]
