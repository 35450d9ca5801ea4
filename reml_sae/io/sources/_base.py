"""What a source of rows is, and what every one of them checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError

Rows = NDArray[np.floating[Any]]


@runtime_checkable
class RowSource(Protocol):
    """A matrix (N, p) of which a range of rows is read at a time.

    One of a file keeps its path and what its header said, nothing that is open: to pickle it costs
    a few bytes, and it reads the same rows wherever the path is the same file.
    """

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """What `rows` returns: float32 where the source has no more digits, else float64."""

    def rows(self, start: int, stop: int) -> Rows:
        """Rows ``start`` to ``stop - 1``, (stop - start, p), finite and C-ordered.

        Raises
        ------
        InputError
            Naming the file and the row that cannot be used.
        """

    def chunk(self, start: int, stop: int) -> RowChunk:
        """The same rows, not read yet, as little as they need to be read elsewhere."""


@dataclass(frozen=True)
class RowChunk:
    """A range of rows of a source.

    Attributes
    ----------
    source : RowSource
    start, stop : int
    """

    source: RowSource
    start: int
    stop: int

    def read(self) -> NDArray[np.float64]:
        """The rows (stop - start, p) as float64."""
        return self.source.rows(self.start, self.stop).astype(np.float64, copy=False)

    def __str__(self) -> str:
        return f"rows {self.start} to {self.stop - 1} of {self.source.name}"


class FileRows:
    """What sources of files share: a chunk of them is the source itself and a range."""

    def chunk(self, start: int, stop: int) -> RowChunk:
        """The rows, not read yet."""
        return RowChunk(self, start, stop)  # type: ignore[arg-type]


def float_dtype(raw: np.dtype[Any], name: str) -> np.dtype[Any]:
    """The float dtype that holds the numbers of another one.

    Raises
    ------
    InputError
        Where they are complex, or no numbers.
    """
    if raw.kind == "c":
        raise InputError(f"Complex data not supported: {name} has dtype {raw}; pass real and "
                         "imaginary parts as columns")
    if raw.kind not in "fiub":
        raise InputError(f"{name} has dtype {raw}; convert it to real numbers first")
    if raw.kind == "f" and raw.itemsize <= 4:
        return np.dtype(np.float32)
    return np.dtype(np.float64)


def check_shape(shape: tuple[int, ...], name: str) -> tuple[int, int]:
    """Refuse what is no matrix, or an empty one."""
    if len(shape) != 2:
        raise InputError(
            f"{name} must be two-dimensional (rows, columns), got shape {shape}. Reshape your "
            "data: a single row to (1, p), a single column to (N, 1)")
    for size, what in zip(shape, ("sample(s)", "feature(s)"), strict=True):
        if size == 0:
            raise InputError(f"{name} is empty: 0 {what} (shape={shape}) while a minimum of 1 is "
                             "required.")
    return shape[0], shape[1]


def finite(rows: Rows, start: int, name: str) -> Rows:
    """The rows, of which the first is number ``start``, C-ordered; refused where not finite."""
    bad = ~np.isfinite(rows)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        value = "NaN" if np.isnan(rows[row, column]) else f"{rows[row, column]}"
        raise InputError(
            f"{name}[{start + row}, {column}] is {value}, one of {int(bad.sum())} entries of rows "
            f"{start} to {start + len(rows) - 1} that are not finite; drop or impute those rows")
    return np.ascontiguousarray(rows)
