"""Rows of a source as sweeps see them: centred, of unit mean square, read when asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reml_sae.io import RowSource, read_chosen
from reml_sae.rows import ThreadRows, row_slices
from reml_sae.sweeps.backend import Backend, DeviceArray
from reml_sae.typing import Array, Index

READ_ELEMENTS = 4_000_000
"""Numbers that are read in float64 at a time: the chunks of sweeps are larger, in float32."""

SHARE = 0.5
"""Of the room on a device that rows may take: sweeps need some, too."""


@dataclass(frozen=True, eq=False)
class StandardRows:
    """Rows of a source in the type of the sweeps, by slices and by sorted numbers.

    Attributes
    ----------
    source : RowSource
    mean : (p,) array
    scale : float
    dtype : dtype
    """

    source: RowSource
    mean: Array
    scale: float
    dtype: np.dtype[np.floating]

    @property
    def shape(self) -> tuple[int, int]:
        """(N, p)."""
        return self.source.shape

    def __len__(self) -> int:
        return self.source.shape[0]

    def __getitem__(self, rows: slice | Index) -> NDArray[np.floating]:
        """Rows (n, p); a slice has a start and a stop.

        Raises
        ------
        InputError
            Naming the file and the row that cannot be read.
        """
        if not isinstance(rows, slice):
            return self._chosen(rows)
        out = np.empty((rows.stop - rows.start, self.shape[1]), self.dtype)
        for part in row_slices(len(out), out.shape[1], READ_ELEMENTS):
            data = self.source.rows(rows.start + part.start, rows.start + part.stop)
            out[part] = (data - self.mean) / self.scale
        return out

    def _chosen(self, rows: Index) -> NDArray[np.floating]:
        out = np.empty((len(rows), self.shape[1]), self.dtype)
        for where, data in read_chosen(self.source, rows, READ_ELEMENTS):
            out[where] = (data - self.mean) / self.scale
        return out


@dataclass(frozen=True, eq=False)
class DeviceRows:
    """The same rows as arrays of a device, to which they are sent when asked for.

    Attributes
    ----------
    rows : StandardRows
    backend : Backend
    """

    rows: StandardRows
    backend: Backend

    @property
    def shape(self) -> tuple[int, int]:
        """(N, p)."""
        return self.rows.shape

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice | Index) -> DeviceArray:
        """Rows (n, p), read in threads; see `StandardRows`."""
        if not isinstance(rows, slice):
            return self.backend.array(self.rows[rows])
        size, width = rows.stop - rows.start, self.shape[1]
        out = self.backend.zeros((size, width), self.backend.narrow)
        parts = row_slices(size, width, READ_ELEMENTS)
        there = [slice(rows.start + part.start, rows.start + part.stop) for part in parts]
        read = ThreadRows().map(self.rows.__getitem__, there)
        for part, data in zip(parts, read, strict=True):
            out[part] = self.backend.array(data)
        return out


def on_device(rows: StandardRows, backend: Backend) -> DeviceRows | DeviceArray:
    """The rows on the device where it has room for them, for all sweeps; else sent in each.

    Raises
    ------
    InputError
        Naming the file and the row that cannot be read.
    """
    size = rows.shape[0] * rows.shape[1] * rows.dtype.itemsize
    sent = DeviceRows(rows, backend)
    return sent[slice(0, len(rows))] if size <= SHARE * backend.room else sent
