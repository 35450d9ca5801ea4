"""Rows of a zarr array."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reml_sae.errors import InputError, require
from reml_sae.io.sources._base import FileRows, Rows, check_shape, finite, float_dtype

MOST_CHUNKS = 1_000_000
"""More, whose names alone take hundreds of MB to count, are a fault of the metadata."""


@dataclass(frozen=True)
class ZarrRows(FileRows):
    """An array of a zarr store, in its folder.

    Attributes
    ----------
    name : str
    path : Path
    member : str
        The array's name in its group; "" where the folder is the array.
    shape : (N, p)
    dtype : dtype
        What `rows` returns.
    """

    name: str
    path: Path
    member: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, path: Path, member: str, name: str) -> ZarrRows:
        """The array, of which every chunk must have been written.

        Raises
        ------
        InputError
            Where it is no matrix of numbers, or where chunks are missing: zarr would read them as
            its fill value.
        """
        array = _opened(path, member, name)
        dtype = float_dtype(array.dtype, name)
        shape = check_shape(tuple(array.shape), name)
        if array.nchunks > MOST_CHUNKS:
            raise InputError(f"{name} has {array.nchunks} chunks of shape {tuple(array.chunks)}, "
                             f"more than {MOST_CHUNKS}; write it again with larger ones")
        missing = array.nchunks - array.nchunks_initialized
        if missing:
            raise InputError(f"{name}: {missing} of its {array.nchunks} chunks are not there, and "
                             f"would read as {array.fill_value}; copy or write it again, with "
                             "config={'write_empty_chunks': True} where rows are 0 throughout")
        return cls(name, path, member, shape, dtype)

    def rows(self, start: int, stop: int) -> Rows:
        """Rows of a range, read from the chunks that hold them."""
        array = _opened(self.path, self.member, self.name)
        if tuple(array.shape) != self.shape:
            raise InputError(f"{self.name} has shape {tuple(array.shape)}, and had {self.shape} "
                             f"when it was opened (at row {start}); do not write to it meanwhile")
        try:
            part = np.asarray(array[start:stop])
        except Exception as error:  # codecs raise what they like
            raise InputError(f"{self.name}: rows {start} to {stop - 1} cannot be read ({error}); a "
                             "chunk may be truncated: copy or write it again") from error
        return finite(part.astype(self.dtype, copy=False), start, self.name)


def _opened(path: Path, member: str, name: str) -> Any:
    zarr = require("zarr", "zarr", f"{name}, a zarr array,")
    try:
        return zarr.open_array(str(path), path=member or None, mode="r")
    except Exception as error:  # stores and metadata raise what they like
        raise InputError(f"{name} cannot be read as a zarr array ({error}); name the array of a "
                         f"group as '{path}::NAME'") from error
