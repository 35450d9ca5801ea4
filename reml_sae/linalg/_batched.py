"""Batched dense algebra for stacks of small symmetric blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import NotPositiveDefiniteError

Array = NDArray[np.float64]


def batched_cholesky(blocks: Array, first_row: int = 0) -> Array:
    """Lower Cholesky factors of (N, q, q) blocks.

    Raises
    ------
    NotPositiveDefiniteError
        Naming the first block that is not positive definite; ``first_row`` is added to its index.
    """
    if blocks.shape[0] == 0 or blocks.shape[1] == 0:
        return blocks.copy()
    try:
        factors = np.linalg.cholesky(blocks)
        if np.isfinite(factors).all():
            return factors
    except np.linalg.LinAlgError:
        pass
    bad = _first_bad(blocks)
    raise NotPositiveDefiniteError(
        f"row block {first_row + bad} is not positive definite", row=first_row + bad
    )


def _first_bad(blocks: Array) -> int:
    finite = np.isfinite(blocks).all(axis=(1, 2))
    if not finite.all():
        return int(np.argmin(finite))
    low, high = 0, len(blocks)
    # bisection: the first prefix that fails to factor
    while high - low > 1:
        middle = (low + high) // 2
        try:
            np.linalg.cholesky(blocks[low:middle])
            low = middle
        except np.linalg.LinAlgError:
            high = middle
    return low


def batched_inverse(blocks: Array, factors: Array | None = None) -> Array:
    """Inverses of symmetric positive definite (N, q, q) blocks."""
    if blocks.shape[0] == 0 or blocks.shape[1] == 0:
        return blocks.copy()
    if blocks.shape[1] == 1:
        return 1.0 / blocks
    inverse = np.linalg.inv(batched_cholesky(blocks) if factors is None else factors)
    return inverse.transpose(0, 2, 1) @ inverse


def batched_solve_psd(blocks: Array, rhs: Array) -> Array:
    """Solve x_i with D_i x_i = g_i for (N, q, q) and (N, q)."""
    if blocks.shape[0] == 0 or blocks.shape[1] == 0:
        return rhs.copy()
    if blocks.shape[1] == 1:
        return rhs / blocks[:, :, 0]
    return np.linalg.solve(blocks, rhs[:, :, None])[:, :, 0]


def batched_logdet(blocks: Array) -> Array:
    """Log-determinants (N,) of symmetric positive definite blocks (N, q, q)."""
    if blocks.shape[1] == 0:
        return np.zeros(len(blocks))
    return 2.0 * np.log(np.einsum("nqq->nq", batched_cholesky(blocks))).sum(1)
