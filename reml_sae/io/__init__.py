"""Artifacts and matrix sources."""

from reml_sae.io.artifacts import read_artifact, write_artifact, write_bytes_atomically
from reml_sae.io.digest import check_same_rows, matrix_digest
from reml_sae.io.sources import read_matrix

__all__ = [
    "check_same_rows",
    "matrix_digest",
    "read_artifact",
    "read_matrix",
    "write_artifact",
    "write_bytes_atomically",
]
