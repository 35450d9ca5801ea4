"""Matrices of which no fit can be made, refused before the search for one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from reml_sae.errors import DataWarning, InputError
from reml_sae.families import Family
from reml_sae.io import extreme_rows
from reml_sae.manifolds import Manifold
from reml_sae.typing import Array

DISTINCT_CHUNK = 1000
"""Rows that are looked at together until enough distinct ones were found."""
ROUNDING = 1e-14
"""Distance from a line, relative to the largest entry, that is rounding."""
LEAST_REST = 1e-8
"""Share of the variance that must be left to the rows that are not extreme."""


def check_degenerate(
    data: Array, family: Family, atoms: Sequence[Manifold], most_atoms: int
) -> None:
    """Refuse rows that curves explain without noise whatever they are; warn of extreme ones.

    Parameters
    ----------
    data : (N, p) array
    family : Family
    atoms : sequence of Manifold
        Those that a fit begins with.
    most_atoms : int
        How many there may be.

    Raises
    ------
    InputError
        Saying what is wrong with the rows.
    """
    if data.shape[1] == 1 and any(atom.latent_dim > 0 for atom in atoms):
        raise InputError("Z has n_features = 1: every curve covers one column, so nothing tells an "
                         "atom from the noise; give at least 2 columns, or topology='point'")
    if not family.has_dispersion:
        return
    extreme = extreme_rows(data)
    if extreme is not None and family.equal_weights:
        if 1.0 - extreme.share < LEAST_REST:
            raise InputError(f"Z: {extreme.message()}")
        warnings.warn(f"Z: {extreme.message()}", DataWarning, stacklevel=5)
    _check_distinct(data, max(sum(atom.basis_size for atom in atoms), most_atoms))
    if all(atom.is_flat and atom.latent_dim > 0 for atom in atoms):
        return  # a line on a line is right, at the floor of the noise
    _check_line(data if extreme is None else np.delete(data, extreme.index, axis=0))


def _check_distinct(data: Array, most: int) -> None:
    found = data[:0]
    for start in range(0, len(data), DISTINCT_CHUNK):
        found = np.unique(np.concatenate([found, data[start:start + DISTINCT_CHUNK]]), axis=0)
        if len(found) > most:
            return
    if 1 < len(found) < len(data):
        raise InputError(
            f"Z has {len(data)} rows, but only {len(found)} distinct ones: the atoms pass through "
            "all of them without noise, and the likelihood has no bound. Take the table of "
            "numpy.unique(Z, axis=0) for the answer, or add rows that vary")


def _check_line(data: Array) -> None:
    if data.shape[1] == 1 or len(data) < 3:
        return
    rounding = ROUNDING * float(np.abs(data).max())
    centred = data - data.mean(axis=0)
    size = float(np.abs(centred).max())
    if not size > rounding:  # constant, of which the units warn
        return
    centred /= size
    lengths = np.einsum("np,np->n", centred, centred)
    line = centred[lengths.argmax()] / np.sqrt(lengths.max())
    apart = size * float(np.abs(centred - np.outer(centred @ line, line)).max())
    if apart <= max(rounding, ROUNDING * size):
        axis = int(np.abs(line).argmax())
        where = f"only column {axis} varies" if np.count_nonzero(line) == 1 else (
            "all rows lie on one straight line")
        raise InputError(
            f"Z varies in one direction alone ({where}): a flat explains it without noise, and the "
            "likelihood has no bound. There is no curve to find; drop columns that say the same, "
            "or use topology='linear'")
