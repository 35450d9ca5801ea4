"""Artifacts and matrix sources."""

from reml_sae.io.artifacts import read_artifact, write_artifact, write_bytes_atomically
from reml_sae.io.digest import check_same_rows, matrix_digest
from reml_sae.io.extreme import ExtremeRows, extreme_rows, named_rows
from reml_sae.io.sources import RowChunk, RowSource, open_rows, read_matrix

__all__ = [
    "ExtremeRows",
    "RowChunk",
    "RowSource",
    "check_same_rows",
    "extreme_rows",
    "matrix_digest",
    "named_rows",
    "open_rows",
    "read_artifact",
    "read_matrix",
    "write_artifact",
    "write_bytes_atomically",
]
