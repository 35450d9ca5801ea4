"""Which rows a fit was made of: a digest of the matrix, kept with the fit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from reml_sae.errors import InputError
from reml_sae.typing import Array


def matrix_digest(data: Array) -> str:
    """SHA-256 of a matrix (N, p): its shape, and its entries as little-endian float64 by rows.

    Rows in another order, and entries that differ in the last bit, have another digest.
    """
    digest = MatrixDigest(data.shape)
    digest.update(data)
    return digest.hexdigest()


class MatrixDigest:
    """`matrix_digest` of a matrix of this shape whose rows come one chunk after the other."""

    def __init__(self, shape: tuple[int, ...]):
        self._digest = hashlib.sha256(repr(tuple(shape)).encode())

    def update(self, rows: Array) -> None:
        """Add rows."""
        self._digest.update(np.ascontiguousarray(rows, dtype="<f8").data)

    def hexdigest(self) -> str:
        """The digest of the rows so far."""
        return self._digest.hexdigest()


def check_same_rows(digests: Mapping[str, str | None]) -> None:
    """Refuse things that were made of different rows.

    Parameters
    ----------
    digests : mapping of names to `matrix_digest`, or to None where none was kept

    Raises
    ------
    InputError
        Naming the first two whose rows differ, or one that cannot tell its rows.
    """
    for name, digest in digests.items():
        if digest is None:
            raise InputError(f"{name} was saved before fits kept a digest of their rows, so it "
                             "cannot be told which rows it is of; fit it again")
    names = list(digests)
    for other in names[1:]:
        if digests[other] != digests[names[0]]:
            raise InputError(f"{names[0]} and {other} are of different rows (or of the same in "
                             "another order or precision), so they do not belong together")
