"""Orderings for SuperLU: nested dissection of narrow bands, and postorder.

Minimum degree eats a chain from its ends: its elimination tree is as deep as the chain is long, and
an algorithm that works level by level has nothing to batch. CHOLMOD brings METIS; this is for
SuperLU, which has no nested dissection. Bands are what long chains of small blocks are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import depth_first_order, reverse_cuthill_mckee

Index = NDArray[np.int64]

WIDEST_BAND = 32
"""Dissection of a band of width w makes fronts of size 3 w, so it is worth its fill when narrow."""

HUB_DEGREE = 10.0
"""Rows with more than this many times sqrt(n) entries go last, outside the band."""


def dissection_of_band(matrix: Any) -> Index | None:
    """Order the rows by nested dissection of the Cuthill-McKee band.

    Consecutive runs of w rows, w the band width, form a path; block b of that path is eliminated
    in the round that is the number of trailing zero bits of b + 1: every second block first.

    Parameters
    ----------
    matrix : (n, n) scipy.sparse csc matrix
        Symmetric pattern.

    Returns
    -------
    (n,) array or None
        None where the band is wide, or n is small enough not to matter.
    """
    n = matrix.shape[0]
    if n < 4 * WIDEST_BAND:
        return None
    hub = np.diff(matrix.indptr) > HUB_DEGREE * np.sqrt(n) + 16
    inner = np.flatnonzero(~hub)
    if len(inner) == 0:
        return None
    rest = (matrix[inner][:, inner] if hub.any() else matrix).tocsr()
    order = reverse_cuthill_mckee(rest, symmetric_mode=True)
    place = np.empty(len(inner), dtype=np.int64)
    place[order] = np.arange(len(inner))
    entries = rest.tocoo()
    width = max(1, int(np.abs(place[entries.row] - place[entries.col]).max(initial=0)))
    if width > WIDEST_BAND:
        return None
    block = np.arange(len(inner)) // width + 1
    rounds = (block & -block).astype(np.int64)  # 2 to the number of trailing zero bits
    dissected = order[np.argsort(rounds, kind="stable")]
    return np.concatenate([inner[dissected], np.flatnonzero(hub)]).astype(np.int64)


def postorder(lower: Any) -> Index:
    """Postorder of the elimination tree: the same fill, and every subtree contiguous.

    Parameters
    ----------
    lower : (n, n) scipy.sparse csc matrix
        Factor with sorted indices and its diagonal.

    Returns
    -------
    (n,) array
    """
    n = lower.shape[0]
    parent = np.full(n, n)  # n stands for a root above the roots
    inner = np.flatnonzero(np.diff(lower.indptr) > 1)
    parent[inner] = lower.indices[lower.indptr[inner] + 1]
    tree = sparse.csr_matrix((np.ones(n), (parent, np.arange(n))), shape=(n + 1, n + 1))
    down = depth_first_order(tree, n, return_predecessors=False)
    return down[:0:-1].astype(np.int64)  # backwards, children come before their parents
