"""Codes of all rows, as searches propose them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reml_sae.typing import Array, Mask


@dataclass(frozen=True)
class Candidate:
    """Codes of all rows from which a refinement starts.

    Attributes
    ----------
    support : (N, K) bool
    amplitudes : (N, K)
        On the simplex, the shares.
    coordinates : (N, D)
    """

    support: Mask
    amplitudes: Array
    coordinates: Array

    @classmethod
    def on_one_atom(cls, coordinates: Array) -> Candidate:
        """Codes of rows that all use the only atom, at coordinates (N, D) on it."""
        n = len(coordinates)
        return cls(np.ones((n, 1), bool), np.ones((n, 1)), coordinates)


def hard_shares(labels: NDArray[np.intp], n_atoms: int, share: float) -> Array:
    """Shares (N, K) of rows that belong to one atom with this share."""
    if n_atoms == 1:
        return np.ones((len(labels), 1))
    a = np.full((len(labels), n_atoms), (1.0 - share) / (n_atoms - 1))
    a[np.arange(len(labels)), labels] = share
    return a
