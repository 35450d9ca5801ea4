"""The whole of a source in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from reml_sae.io.sources._base import RowSource
from reml_sae.io.sources._open import open_rows
from reml_sae.rows import CHUNK_ELEMENTS, row_slices
from reml_sae.typing import Array, Index


def read_matrix(source: Any, argument: str = "Z") -> Array:
    """Float64 C-ordered matrix (N, p) from whatever `open_rows` opens.

    Parameters
    ----------
    source : RowSource, array-like, tensor with ``__dlpack__``, or path
    argument : str
        Name of the argument in messages.

    Returns
    -------
    (N, p) array
        A copy; the source is never modified.

    Raises
    ------
    InputError
        Naming the argument, what is wrong with it and the remedy.
    """
    rows = open_rows(source, argument)
    out = np.empty(rows.shape)
    for chunk in row_slices(*rows.shape, CHUNK_ELEMENTS):
        out[chunk] = rows.rows(chunk.start, chunk.stop)
    return out


def read_chunks(source: RowSource) -> Iterator[Array]:
    """All rows of a source as float64 matrices (n, p), one after the other."""
    for part in row_slices(*source.shape, CHUNK_ELEMENTS):
        yield source.chunk(part.start, part.stop).read()


def read_chosen(
    source: RowSource, index: Index, elements: int = CHUNK_ELEMENTS
) -> Iterator[tuple[slice, Array]]:
    """Rows of a source by their sorted numbers (n,), read in parts of so many elements.

    Yields which of the numbers come, and their rows as float64.
    """
    for part in row_slices(*source.shape, elements):
        first, last = np.searchsorted(index, (part.start, part.stop)).tolist()
        if first < last:
            rows = source.chunk(part.start, part.stop).read()
            yield slice(first, last), rows[index[first:last] - part.start]
