"""Rows where they lie: in memory, in files of many kinds, read a range at a time."""

from reml_sae.io.sources._array import is_in_memory
from reml_sae.io.sources._base import RowChunk, RowSource
from reml_sae.io.sources._open import open_rows
from reml_sae.io.sources._read import read_chosen, read_chunks, read_matrix

__all__ = ["RowChunk", "RowSource", "is_in_memory", "open_rows", "read_chosen", "read_chunks",
           "read_matrix"]
