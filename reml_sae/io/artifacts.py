"""Artifacts: tensors and metadata in one .safetensors file, with a checksum over both."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from reml_sae.errors import ArtifactError, InputError
from reml_sae.io.files import write_bytes_atomically

FORMAT_VERSION = 2
"""1 had no checksum."""
METADATA_KEY, CHECKSUM_KEY = "reml_sae", "sha256"


def write_artifact(
    path: str | os.PathLike[str], tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]
) -> None:
    """Write tensors and JSON metadata to one .safetensors file, atomically.

    Raises
    ------
    InputError
        Where the file cannot be written.
    """
    text = json.dumps({"format": FORMAT_VERSION, **metadata})
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    content = save(arrays, {METADATA_KEY: text, CHECKSUM_KEY: _checksum(arrays, text)})
    write_bytes_atomically(path, content)


def read_artifact(
    path: str | os.PathLike[str],
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what `write_artifact` wrote.

    Raises
    ------
    InputError
        Where there is no such file.
    ArtifactError
        Where it is truncated or changed, of another program or of a newer format.
    """
    name = os.fspath(path)
    if not Path(path).is_file():
        raise InputError(f"path={name!r}: there is no such file")
    try:
        with safe_open(path, framework="np") as handle:
            kept = handle.metadata() or {}
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise ArtifactError(f"path={name!r} cannot be read ({error}); it may be truncated"
                            ) from error
    text = kept.get(METADATA_KEY)
    if text is None:
        raise ArtifactError(f"path={name!r} was not written by reml_sae")
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"path={name!r}: its metadata are not JSON ({error})") from error
    version = metadata.get("format") if isinstance(metadata, dict) else None
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise ArtifactError(f"path={name!r} has format {version!r}, this version reads up to "
                            f"{FORMAT_VERSION}; upgrade reml-sae")
    if version > 1 and kept.get(CHECKSUM_KEY) != _checksum(tensors, text):
        raise ArtifactError(f"path={name!r} is not as it was written: its checksum does not agree "
                            "with its content; take another copy, or fit again")
    return tensors, metadata


def _checksum(tensors: Mapping[str, NDArray[Any]], text: str) -> str:
    """SHA-256 over the metadata and all tensors, in the order of their names."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()
