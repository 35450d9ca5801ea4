"""Artifacts and matrix sources."""

from reml_sae.io.artifacts import read_artifact, write_artifact
from reml_sae.io.digest import check_same_rows, matrix_digest
from reml_sae.io.extreme import ExtremeRows, extreme_rows, named_rows
from reml_sae.io.files import check_folder, check_writable, write_bytes_atomically
from reml_sae.io.sources import read_matrix

__all__ = [
    "ExtremeRows",
    "check_folder",
    "check_same_rows",
    "check_writable",
    "extreme_rows",
    "matrix_digest",
    "named_rows",
    "read_artifact",
    "read_matrix",
    "write_artifact",
    "write_bytes_atomically",
]
