"""Rows of Arrow files, as datasets of Hugging Face and the cached activations of SAELens are kept.

Every entry of the column is a list of p numbers, one row; or a list of such lists, a context of
several rows, as activations of the tokens of a text are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError, require
from reml_sae.io.sources._base import FileRows, Rows, check_shape, finite, float_dtype

FILE_MAGIC = b"ARROW1"
STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
"""Last bytes of a stream; one that was cut between two batches reads as if it were whole."""


@dataclass(frozen=True)
class ArrowRows(FileRows):
    """A column of one Arrow file.

    Attributes
    ----------
    name : str
    path : Path
    column : str
    ends : tuple of int
        Rows up to the end of each record batch.
    width : int
    dtype : dtype
        What `rows` returns.
    """

    name: str
    path: Path
    column: str
    ends: tuple[int, ...]
    width: int
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, path: Path, column: str, name: str) -> ArrowRows:
        """The column; the only one that holds lists of floats where none is named.

        Raises
        ------
        InputError
            Where the file or the column cannot be used.
        """
        ends: list[int] = []
        width, found = 0, ""
        with _batches(path, name) as batches:
            for batch in batches:
                first = ends[-1] if ends else 0
                found = found or _column(batch.schema, column, name)
                values = _matrix(batch, found, name, first)
                ends.append(first + len(values))
                if not len(values):
                    continue
                if width and values.shape[1] != width:
                    raise InputError(f"{name}: row {first} has {values.shape[1]} numbers, those "
                                     f"before it have {width}; write rows of one width")
                width, dtype = values.shape[1], float_dtype(values.dtype, name)
        check_shape((ends[-1] if ends else 0, width), name)
        return cls(name, path, found, tuple(ends), width, dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.ends[-1], self.width

    def rows(self, start: int, stop: int) -> Rows:
        """Rows of a range, from the record batches that hold them."""
        out = np.empty((stop - start, self.width), self.dtype)
        first = 0
        with _batches(self.path, self.name) as batches:
            for end, batch in zip(self.ends, batches, strict=False):
                low, high = max(start, first), min(stop, end)
                if low < high:
                    values = _matrix(batch, self.column, self.name, first)
                    if values.shape != (end - first, self.width):
                        raise InputError(
                            f"{self.name} has another record batch at row {first} than when it was "
                            "opened; do not write to it meanwhile")
                    out[low - start:high - start] = values[low - first:high - first]
                first = end
                if first >= stop:
                    break
        if first < stop:
            raise InputError(f"{self.name} ends in row {first} of {self.shape[0]}: it was cut off "
                             "after it was opened; write it again")
        return finite(out, start, self.name)


@contextmanager
def _batches(path: Path, name: str) -> Iterator[Iterator[Any]]:
    """The record batches of a file, read lazily, in either format of Arrow."""
    pa = require("pyarrow", "arrow", f"{name}, an Arrow file,")
    ipc = require("pyarrow.ipc", "arrow", f"{name}, an Arrow file,")
    try:
        # of batches that are not asked for, the metadata alone are read
        with pa.memory_map(str(path), "rb") as handle:
            in_file = handle.read(len(FILE_MAGIC)) == FILE_MAGIC
            handle.seek(0)
            if in_file:
                reader = ipc.open_file(handle)
                yield (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                handle.seek(max(0, handle.size() - len(STREAM_END)))
                if handle.read() != STREAM_END:
                    raise pa.ArrowInvalid("the stream has no end")
                handle.seek(0)
                yield iter(ipc.open_stream(handle))
    except (pa.ArrowException, OSError, EOFError) as error:
        raise InputError(f"{name} cannot be read as Arrow ({error}); it may be truncated: write or "
                         "download it again") from error


def _column(schema: Any, column: str, name: str) -> str:
    """The column of this name, or the only one of lists of floats."""
    if column and column not in schema.names:
        raise InputError(f"{name} has no column {column!r}; it holds {', '.join(schema.names[:8])}")
    pa = require("pyarrow", "arrow", f"{name}, an Arrow file,")
    lists = [column] if column else [
        field.name for field in schema if pa.types.is_floating(_leaf(field.type))
        and _is_list(_storage(field.type))]
    if len(lists) != 1:
        raise InputError(f"{name} has {len(lists)} columns of lists of floats; name one as "
                         f"'PATH::COLUMN' of {', '.join(schema.names[:8])}")
    return lists[0]


def _storage(kind: Any) -> Any:
    return getattr(kind, "storage_type", kind)


def _is_list(kind: Any) -> bool:
    types = require("pyarrow", "arrow", "an Arrow file").types
    return bool(types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind))


def _leaf(kind: Any) -> Any:
    kind = _storage(kind)
    while _is_list(kind):
        kind = kind.value_type
    return kind


def _matrix(batch: Any, column: str, name: str, first: int) -> NDArray[Any]:
    """The column of a batch as a matrix without copies; its first row has number ``first``."""
    try:
        # offsets that a damaged file has wrong would end the process when they are used
        batch.validate(full=True)
    except ValueError as error:
        raise InputError(f"{name} is damaged in the record batch that begins with row {first} "
                         f"({error}); write or download it again") from error
    values = batch.column(column)
    values = getattr(values, "storage", values)
    sizes: list[int] = []
    while _is_list(values.type):
        if values.null_count:
            raise InputError(f"{name}: an entry of {column!r} is null, in the record batch that "
                             f"begins with row {first}; drop such entries")
        sizes.append(_size(values, column, name, first))
        values = values.flatten()
    if not sizes:
        raise InputError(f"{name}: column {column!r} holds {values.type}, one number a row; name a "
                         "column of lists of numbers")
    if len(sizes) > 2:
        raise InputError(f"{name}: column {column!r} has lists in {len(sizes)} levels; flatten it "
                         "to rows, or contexts of rows")
    if values.null_count:
        raise InputError(f"{name}: a number of {column!r} is null, in the record batch that begins "
                         f"with row {first}; drop or impute those rows")
    try:
        numbers = values.to_numpy(zero_copy_only=False)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"{name}: column {column!r} holds {values.type}; convert it to real "
                         "numbers first") from error
    float_dtype(numbers.dtype, name)
    return numbers.reshape(-1, sizes[-1]) if sizes[-1] else numbers.reshape(0, 0)


def _size(lists: Any, column: str, name: str, first: int) -> int:
    """How long each of some lists is; refused where not all are as long."""
    if hasattr(lists.type, "list_size"):
        return int(lists.type.list_size)
    lengths = np.diff(lists.offsets.to_numpy())
    if not len(lengths):
        return 0
    if (lengths != lengths[0]).any():
        odd = int(np.flatnonzero(lengths != lengths[0])[0])
        raise InputError(f"{name}: list {odd} of {column!r} in the record batch that begins with "
                         f"row {first} has {lengths[odd]} entries, the first has {lengths[0]}; "
                         "write lists of one length")
    return int(lengths[0])
