"""The whole of a source in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from reml_sae.io.sources._open import open_rows
from reml_sae.rows import CHUNK_ELEMENTS, row_slices
from reml_sae.typing import Array


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
