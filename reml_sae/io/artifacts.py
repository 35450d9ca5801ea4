"""Artifacts: tensors and metadata in one .safetensors file, written atomically."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from reml_sae.errors import InputError

FORMAT_VERSION = 1
METADATA_KEY = "reml_sae"


def write_bytes_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write, fsync and rename, so that the file is whole or not there.

    Raises
    ------
    InputError
        Where the folder does not exist.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"path={os.fspath(path)!r}: the folder does not exist; create it first")
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to fill, which takes its place at the end, or is gone where that fails.

    Raises
    ------
    InputError
        Where the folder above does not exist, or there is something at the path.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"path={os.fspath(path)!r}: {str(target.parent)!r} does not exist; create "
                         "it first")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f"path={os.fspath(path)!r} is there already; give a new folder")
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield folder
        folder.chmod(0o777 & ~_umask())
        os.replace(folder, target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_artifact(
    path: str | os.PathLike[str], tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]
) -> None:
    """Write tensors and JSON metadata to one .safetensors file."""
    text = json.dumps({"format": FORMAT_VERSION, **metadata})
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    write_bytes_atomically(path, save(arrays, metadata={METADATA_KEY: text}))


def read_artifact(
    path: str | os.PathLike[str],
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what `write_artifact` wrote.

    Raises
    ------
    InputError
        Where the file is missing, truncated, of another program or of a newer format.
    """
    name = os.fspath(path)
    if not Path(path).is_file():
        raise InputError(f"path={name!r}: there is no such file")
    try:
        with safe_open(path, framework="np") as handle:
            text = (handle.metadata() or {}).get(METADATA_KEY)
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"path={name!r} cannot be read ({error}); it may be truncated") from error
    if text is None:
        raise InputError(f"path={name!r} was not written by reml_sae")
    metadata = json.loads(text)
    if metadata.get("format") != FORMAT_VERSION:
        raise InputError(
            f"path={name!r} has format {metadata.get('format')!r}, this version reads "
            f"{FORMAT_VERSION}; upgrade reml-sae"
        )
    return tensors, metadata
