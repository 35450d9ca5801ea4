"""Rows that lie one after the other in a file: .npy, and the tensors of .safetensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from reml_sae.errors import InputError
from reml_sae.io.sources._base import FileRows, Rows, check_shape, finite, float_dtype

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
          "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
          "BOOL": "?"}
"""Types of .safetensors that numpy can read, BF16 as the integer with the same bits."""
MOST_HEADER = 100_000_000
"""Bytes of the header of a .safetensors file; the format allows no more."""


@dataclass(frozen=True)
class FlatRows(FileRows):
    """A matrix in a file, from some byte on, its rows one after the other.

    Attributes
    ----------
    name : str
    path : Path
    offset : int
        Bytes before the first row.
    shape : (N, p)
    stored : str
        The dtype in the file.
    bfloat16 : bool
        Whether the 16 bit integers of the file are the upper halves of float32.
    """

    name: str
    path: Path
    offset: int
    shape: tuple[int, int]
    stored: str
    bfloat16: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """What `rows` returns."""
        return np.dtype(np.float32) if self.bfloat16 else float_dtype(np.dtype(self.stored),
                                                                      self.name)

    def rows(self, start: int, stop: int) -> Rows:
        """Rows of a range, read from the file."""
        width, item = self.shape[1], np.dtype(self.stored)
        before = self.offset + start * width * item.itemsize
        try:
            # not a memmap: a file that shrinks while it is mapped ends the process
            raw = np.fromfile(self.path, item, (stop - start) * width, offset=before)
        except OSError as error:
            raise InputError(f"{self.name}: {error}, at row {start}; it was there when it was "
                             "opened, put it back") from error
        if raw.size < (stop - start) * width:
            raise InputError(f"{self.name} ends in row {start + raw.size // width} of "
                             f"{self.shape[0]}: it was cut off after it was opened; write it again")
        raw = raw.reshape(-1, width)
        if self.bfloat16:
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        return finite(raw.astype(self.dtype, copy=False), start, self.name)


@dataclass(frozen=True)
class FortranRows(FileRows):
    """A .npy matrix whose columns lie one after the other.

    Attributes
    ----------
    name : str
    path : Path
    shape : (N, p)
    dtype : dtype
        What `rows` returns.
    """

    name: str
    path: Path
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def rows(self, start: int, stop: int) -> Rows:
        """Rows of a range, copied from a memmap."""
        mapped = _mapped(self.path, self.name)
        if mapped.shape != self.shape:
            raise InputError(f"{self.name} has shape {mapped.shape}, and had {self.shape} when it "
                             f"was opened (at row {start}); do not write to it meanwhile")
        return finite(np.array(mapped[start:stop], self.dtype, order="C"), start, self.name)


def open_npy(path: Path, name: str) -> FlatRows | FortranRows:
    """Rows of a .npy file."""
    mapped = _mapped(path, name)
    dtype = float_dtype(mapped.dtype, name)
    shape = check_shape(mapped.shape, name)
    if mapped.flags.c_contiguous:
        return FlatRows(name, path, mapped.offset, shape, mapped.dtype.str)
    return FortranRows(name, path, shape, dtype)


def _mapped(path: Path, name: str) -> np.memmap[Any, Any]:
    try:
        # refuses headers that speak of more bytes than the file has
        mapped = np.load(path, allow_pickle=False, mmap_mode="r")
    except (ValueError, OSError, EOFError, OverflowError, TypeError, TokenError) as error:
        raise InputError(f"{name} cannot be read as .npy ({error}); it may be truncated: write it "
                         "again with numpy.save, without pickled objects") from error
    if not isinstance(mapped, np.memmap):
        raise InputError(f"{name} is an archive of arrays; save the matrix alone, with numpy.save")
    return mapped


def open_safetensors(path: Path, tensor: str, name: str) -> FlatRows:
    """Rows of a tensor of a .safetensors file; of its only one where none is named."""
    header, begin = _header(path, name)
    names = sorted(header)
    if not tensor and len(names) != 1:
        raise InputError(f"{name} holds {len(names)} tensors; name one as '{path}::NAME' of "
                         f"{', '.join(names[:8])}")
    if tensor and tensor not in header:
        raise InputError(f"{name} has no tensor {tensor!r}; it holds {', '.join(names[:8])}")
    entry = header[tensor or names[0]]
    try:
        code, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
        first, last = (int(byte) for byte in entry["data_offsets"])
        end = begin + max(int(other["data_offsets"][1]) for other in header.values())
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise _broken(name, "its header is not complete") from error
    if end > path.stat().st_size:
        raise _broken(name, f"it has {path.stat().st_size} bytes and its header speaks of {end}")
    if code not in DTYPES:
        raise InputError(f"{name} has dtype {code}, which cannot be read; save it as float32 or "
                         "bfloat16")
    count = 1
    for size in shape:
        count *= size
    needed = count * np.dtype(DTYPES[code]).itemsize
    if min(shape, default=0) < 0 or first < 0 or last - first != needed:
        raise _broken(name, f"a tensor of shape {shape} and dtype {code} is {needed} bytes, its "
                            f"header says {last - first}")
    return FlatRows(name, path, begin + first, check_shape(shape, name), DTYPES[code],
                    code == "BF16")


def _header(path: Path, name: str) -> tuple[dict[str, dict[str, Any]], int]:
    """Entries of the header by tensor, and the byte at which the tensors begin."""
    try:
        with path.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if length > min(MOST_HEADER, path.stat().st_size - 8):
                raise _broken(name, f"its header would have {length} bytes, the file has "
                                    f"{path.stat().st_size}")
            header = json.loads(handle.read(length))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise _broken(name, str(error)) from error
    if not isinstance(header, dict):
        raise _broken(name, "its header is no object")
    header.pop("__metadata__", None)
    return header, 8 + length


def _broken(name: str, what: str) -> InputError:
    return InputError(f"{name} cannot be read as .safetensors ({what}); it may be truncated: write "
                      "or download it again")


def indexed_tensors(index: Path, name: str) -> list[tuple[Path, str]]:
    """File and name of every tensor that an index of shards lists.

    Raises
    ------
    InputError
        Where the index cannot be read.
    """
    try:
        listed = json.loads(index.read_text())["weight_map"]
        return [(index.parent / str(file), str(tensor)) for tensor, file in listed.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{name}: the index {index.name} cannot be read ({error!r}); write it "
                         "again, or delete it to read all shards") from error
