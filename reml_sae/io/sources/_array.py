"""Rows in memory: arrays, memmaps, tensors, nested lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError
from reml_sae.io.sources._base import (
    RowChunk,
    Rows,
    RowSource,
    check_shape,
    finite,
    float_dtype,
)


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """Rows of an array, which is not copied.

    Attributes
    ----------
    name : str
    array : (n, p) array
        Real numbers.
    first : int
        Number of its first row in the array that it is a part of.
    """

    name: str
    array: NDArray[Any] = field(repr=False)
    first: int = 0

    @classmethod
    def of(cls, source: Any, name: str) -> ArrayRows:
        """Rows of anything that numpy can see as a matrix.

        Raises
        ------
        InputError
            Where it is none.
        """
        array = _as_array(source, name)
        if array.dtype.kind == "O":
            array = _numbers(array, name)
        float_dtype(array.dtype, name)
        check_shape(array.shape, name)
        return cls(name, array)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.first + len(self.array), self.array.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """What `rows` returns."""
        return float_dtype(self.array.dtype, self.name)

    def rows(self, start: int, stop: int) -> Rows:
        """Rows of a range, finite and C-ordered."""
        part = self.array[start - self.first:stop - self.first]
        return finite(part.astype(self.dtype, copy=False), start, self.name)

    def chunk(self, start: int, stop: int) -> RowChunk:
        """The rows alone, so that no other is sent with them."""
        part = self.array[start - self.first:stop - self.first]
        return RowChunk(ArrayRows(self.name, part, start), start, stop)


def is_in_memory(source: RowSource) -> bool:
    """Whether all rows are in memory anyway."""
    return isinstance(source, ArrayRows)


def _as_array(source: Any, name: str) -> NDArray[Any]:
    if hasattr(source, "toarray"):
        raise InputError(f"{name} is a sparse matrix; call .toarray() first")
    if hasattr(source, "__dlpack__") and not isinstance(source, np.ndarray):
        try:
            return np.from_dlpack(source.detach() if hasattr(source, "detach") else source)
        except (TypeError, ValueError, BufferError, RuntimeError, AttributeError) as error:
            raise InputError(
                f"{name}: the tensor cannot be shared ({error}); move it to the CPU as float32 or "
                "float64") from error
    if isinstance(source, np.ma.MaskedArray) and (masked := np.ma.getmaskarray(source).sum()):
        raise InputError(f"{name} is a masked array, and {masked} of its entries are masked; fill "
                         "them in, or drop those rows")
    try:
        return np.asarray(source)
    except ValueError as error:
        raise InputError(f"{name} is not a matrix: {error}") from error


def _numbers(raw: NDArray[Any], name: str) -> NDArray[np.float64]:
    try:
        return raw.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} has dtype object and holds what is no number ({error}); convert "
                         "it to real numbers first") from error
