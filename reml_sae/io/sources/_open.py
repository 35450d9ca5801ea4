"""From what the user gives to a source of rows.

A path is a file, a folder, or a glob; behind "::" stands the name of a tensor, of a column or of an
array in it. The files of a folder are its shards, in the order of their names, numbers as numbers.
"""

from __future__ import annotations

import glob
import json
import os
import re
from pathlib import Path
from typing import Any

from reml_sae.errors import InputError
from reml_sae.io.sources._array import ArrayRows
from reml_sae.io.sources._arrow import ArrowRows
from reml_sae.io.sources._base import RowSource
from reml_sae.io.sources._flat import indexed_tensors, open_npy, open_safetensors
from reml_sae.io.sources._stacked import StackedRows
from reml_sae.io.sources._zarr import ZarrRows

SHARDS = (".safetensors", ".arrow", ".npy")
KINDS = "use .npy, .safetensors, .arrow, .zarr, or a folder or glob of shards"
ZARR_FILES = ("zarr.json", ".zarray", ".zgroup")
INDEX = ".safetensors.index.json"
DATASET_STATE = "state.json"


def open_rows(source: Any, argument: str = "Z") -> RowSource:
    """Rows of an array or of files; headers are read and checked, no rows.

    Parameters
    ----------
    source : RowSource, array-like, tensor with ``__dlpack__``, or path
        ``x.npy``; ``x.safetensors``, F16 and BF16 too; ``x.zarr``; ``x.arrow``; a folder of shards
        of one of the three kinds of file, as `datasets.Dataset.save_to_disk` and SAELens write
        them, or a glob of them. ``PATH::NAME`` names the tensor, the column or the array.
    argument : str
        Name of the argument in messages.

    Returns
    -------
    RowSource

    Raises
    ------
    InputError
        Naming the file, what is wrong with it and the remedy.
    MissingDependencyError
        Where zarr or pyarrow are needed and not there.
    """
    if isinstance(source, RowSource):
        return source
    if not isinstance(source, str | os.PathLike):
        return ArrayRows.of(source, argument)
    given = os.fspath(source)
    where, _, member = given.partition("::")
    path, name = Path(where), f"{argument}={given!r}"
    if path.is_dir():
        if any((path / file).is_file() for file in ZARR_FILES):
            return ZarrRows.of(path, member, name)
        return _folder(path, member, name)
    if glob.has_magic(where) and not path.exists():
        files = sorted(map(Path, glob.glob(where)), key=_natural)
        if not files:
            raise InputError(f"{name}: there is no such file")
        return _stacked([(file, member) for file in files], name)
    return _file(path, member, name)


def _file(path: Path, member: str, name: str) -> RowSource:
    if path.suffix not in (*SHARDS, ".zarr"):
        raise InputError(f"{name}: unknown file type {path.suffix!r}; {KINDS}")
    if not path.is_file():
        raise InputError(f"{name}: there is no such file")
    if path.suffix == ".npy":
        return open_npy(path, name)
    if path.suffix == ".safetensors":
        return open_safetensors(path, member, name)
    if path.suffix == ".arrow":
        return ArrowRows.of(path, member, name)
    raise InputError(f"{name} is a file; a zarr array is a folder")


def _folder(folder: Path, member: str, name: str) -> RowSource:
    indices = sorted(folder.glob(f"*{INDEX}"))
    if len(indices) > 1:
        raise InputError(f"{name} holds {len(indices)} indices, {indices[0].name} and "
                         f"{indices[1].name}; keep one, or name a glob of shards")
    if indices:
        listed = [(file, tensor) for file, tensor in indexed_tensors(indices[0], name)
                  if member in ("", tensor)]
        if not listed:
            raise InputError(f"{name}: {indices[0].name} lists no tensor {member!r}")
        return _stacked(sorted(listed, key=lambda item: (_natural(item[0]), item[1])), name)
    files = _listed_by_dataset(folder, name)
    if files is None:
        files = sorted((file for file in folder.iterdir() if file.suffix in SHARDS), key=_natural)
    kinds = sorted({file.suffix for file in files})
    if len(kinds) != 1:
        raise InputError(f"{name}: the folder holds {' and '.join(kinds)} files; name a glob of one"
                         if kinds else f"{name}: the folder holds no rows; {KINDS}")
    return _stacked([(file, member) for file in files], name)


def _listed_by_dataset(folder: Path, name: str) -> list[Path] | None:
    """The files of a Hugging Face dataset in their order; other files beside them are caches."""
    state = folder / DATASET_STATE
    if not state.is_file():
        return None
    try:
        return [folder / item["filename"] for item in json.loads(state.read_text())["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{name}: {state} cannot be read ({error!r}); save the dataset again, or "
                         "name a glob of its .arrow files") from error


def _stacked(listed: list[tuple[Path, str]], name: str) -> RowSource:
    parts = [_file(file, member, str(file)) for file, member in listed]
    return StackedRows.of(parts, name)


def _natural(path: Path) -> tuple[tuple[int, int | str], ...]:
    """Key by which shard-2 comes before shard-10."""
    pieces = re.split(r"(\d+)", str(path))
    return tuple((0, int(piece)) if piece.isdecimal() else (1, piece) for piece in pieces)
