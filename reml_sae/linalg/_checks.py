"""Validation of the three parts of an arrowhead; every error names the argument and its shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from reml_sae.errors import InputError
from reml_sae.typing import Array

SYMMETRY_RTOL = 1e-8
"""Largest asymmetry that counts as rounding, relative to the largest entry of the block."""


def real_array(value: Any, name: str) -> Array:
    """Convert to a finite float64 array; no copy where none is needed."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name} is not an array: {error}; ragged rows go in a list of "
                         "arrays, one for each block size") from error
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} must hold real numbers, got dtype {array.dtype}")
    array = array.astype(np.float64, copy=False)
    bad = ~np.isfinite(array)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(f"{name} has the non-finite value {array[where]} at index {where}")
    return array


def symmetric_blocks(value: Any, name: str) -> Array:
    """Check an (n, q, q) stack of symmetric blocks; average rounding asymmetry away."""
    blocks = real_array(value, name)
    if blocks.ndim != 3 or blocks.shape[1] != blocks.shape[2]:
        raise InputError(f"{name} must have shape (n, q, q), got {blocks.shape}")
    return _symmetrised(blocks, name, "block {0} of ")


def symmetric_border(value: Any, name: str) -> Array:
    """Make a dense symmetric (P, P) matrix from a dense or a scipy.sparse one."""
    border = real_array(value.toarray() if sparse.issparse(value) else value, name)
    if border.ndim != 2 or border.shape[0] != border.shape[1]:
        raise InputError(f"{name} must have shape (P, P), got {border.shape}")
    return _symmetrised(border[None], name, "")[0]


def _symmetrised(blocks: Array, name: str, prefix: str) -> Array:
    if blocks.size == 0:
        return blocks
    flipped = blocks.transpose(0, 2, 1)
    gap = np.abs(blocks - flipped).max(axis=(1, 2))
    if not gap.any():
        return blocks
    bad = gap > SYMMETRY_RTOL * np.abs(blocks).max(axis=(1, 2))
    if bad.any():
        index = int(np.argmax(bad))
        raise InputError(f"{prefix.format(index)}{name} is not symmetric: entries differ from "
                         f"their mirror images by up to {gap[index]:.3g}")
    return 0.5 * (blocks + flipped)


def row_groups(rows: Any, coupling: Any, n_border: int) -> tuple[list[Array], list[Array], bool]:
    """Row blocks and couplings as matched lists of groups, and whether they came ragged."""
    ragged = isinstance(rows, list | tuple)
    if ragged != isinstance(coupling, list | tuple):
        raise InputError(
            "rows and coupling must both be arrays or both be lists of groups, got "
            f"{type(rows).__name__} and {type(coupling).__name__}"
        )
    row_list: Sequence[Any] = rows if ragged else [rows]
    coupling_list: Sequence[Any] = coupling if ragged else [coupling]
    if len(row_list) != len(coupling_list):
        raise InputError(f"rows has {len(row_list)} groups but coupling has {len(coupling_list)}")
    blocks, couplings = [], []
    for g, (d, c) in enumerate(zip(row_list, coupling_list, strict=True)):
        suffix = f"[{g}]" if ragged else ""
        block = symmetric_blocks(d, f"rows{suffix}")
        cross = real_array(c, f"coupling{suffix}")
        expected = (*block.shape[:2], n_border)
        if cross.shape != expected:
            raise InputError(
                f"coupling{suffix} must have shape {expected} to match rows{suffix} of shape "
                f"{block.shape} and a border of {n_border}, got {cross.shape}"
            )
        blocks.append(block)
        couplings.append(cross)
    return blocks, couplings, ragged
