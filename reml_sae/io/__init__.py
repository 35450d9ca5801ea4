"""Artifacts and matrix sources."""

from reml_sae.io.artifacts import read_artifact, write_artifact
from reml_sae.io.digest import MatrixDigest, check_same_rows, matrix_digest
from reml_sae.io.extreme import ExtremeRows, extreme_rows, named_rows
from reml_sae.io.files import check_folder, check_writable, new_folder, write_bytes_atomically
from reml_sae.io.memory import available_bytes
from reml_sae.io.sources import (
    RowChunk,
    RowSource,
    is_in_memory,
    open_rows,
    read_chosen,
    read_chunks,
    read_matrix,
)

__all__ = [
    "ExtremeRows",
    "MatrixDigest",
    "RowChunk",
    "RowSource",
    "available_bytes",
    "check_folder",
    "check_same_rows",
    "check_writable",
    "extreme_rows",
    "is_in_memory",
    "matrix_digest",
    "named_rows",
    "new_folder",
    "open_rows",
    "read_artifact",
    "read_chosen",
    "read_chunks",
    "read_matrix",
    "write_artifact",
    "write_bytes_atomically",
]
