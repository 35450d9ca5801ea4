"""Batched dense algebra for stacks of small symmetric blocks.

Every function takes an (N, q, q) stack and allows N = 0 and q = 0.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dtrtrs

from reml_sae.errors import NotPositiveDefiniteError
from reml_sae.typing import Array, Mask


def batched_cholesky(blocks: Array, first_row: int = 0) -> Array:
    """Lower Cholesky factors of symmetric positive definite blocks.

    Parameters
    ----------
    blocks : (N, q, q) array
        Only the lower triangles are read.
    first_row : int
        Index of the first block in the whole matrix, added to the row that an error names.

    Returns
    -------
    (N, q, q) array

    Raises
    ------
    NotPositiveDefiniteError
        Naming the first block that is not positive definite.
    """
    if blocks.size == 0:
        return blocks.copy()
    factors = _try_cholesky(blocks)
    if factors is None:
        row = first_row + _first_bad(blocks)
        raise NotPositiveDefiniteError(f"row block {row} is not positive definite", row=row)
    return factors


def batched_is_definite(blocks: Array) -> Mask:
    """Which of the symmetric blocks (N, q, q) are positive definite, (N,), by their pivots."""
    left, definite = blocks.transpose(1, 2, 0).copy(), np.ones(len(blocks), bool)
    for j in range(len(left)):
        definite &= left[j, j] > 0.0
        pivot = np.where(definite, left[j, j], 1.0)
        below = left[j + 1:, j]
        left[j + 1:, j + 1:] -= (below / pivot)[:, None] * below
    return definite


def _try_cholesky(blocks: Array) -> Array | None:
    """Factors of the stack, or None where one of its blocks has none."""
    try:
        factors: Array = np.linalg.cholesky(blocks).astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        return None
    return factors if np.isfinite(factors).all() else None


def _first_bad(blocks: Array) -> int:
    """Index of the first block without a factor, by bisection; at most 2 N blocks are factored."""
    low, high = 0, len(blocks)
    while high - low > 1:
        middle = (low + high) // 2
        if _try_cholesky(blocks[low:middle]) is None:
            high = middle
        else:
            low = middle
    return low


def batched_inverse(blocks: Array, factors: Array | None = None) -> Array:
    """Inverses of symmetric positive definite blocks.

    Parameters
    ----------
    blocks : (N, q, q) array
    factors : (N, q, q) array, optional
        Their `batched_cholesky`, where the caller has it.

    Returns
    -------
    (N, q, q) array

    Raises
    ------
    NotPositiveDefiniteError
        Naming the first block that is not positive definite.
    """
    if blocks.size == 0:
        return blocks.copy()
    lower = batched_cholesky(blocks) if factors is None else factors
    if blocks.shape[1] == 1:
        return 1.0 / blocks
    inverse = batched_solve_lower(lower, np.broadcast_to(np.eye(blocks.shape[1]), blocks.shape))
    return inverse.transpose(0, 2, 1) @ inverse


def batched_solve_lower(factors: Array, rhs: Array) -> Array:
    """Solve L_i x_i = g_i by forward substitution: a row of all blocks at a time, or a block.

    Substitution has a backward error of a few units of rounding however ill-conditioned a block
    is; a product with an explicit inverse has one that grows with the condition number.

    Parameters
    ----------
    factors : (N, q, q) array
        Lower triangular, as from `batched_cholesky`.
    rhs : (N, q, k) array

    Returns
    -------
    (N, q, k) array
    """
    if _are_few(factors, rhs):
        return _substituted(factors, rhs, 1)
    rows, x = factors.transpose(1, 2, 0).copy(), rhs.transpose(1, 0, 2).copy()
    for i in range(len(x)):
        if i:
            x[i] -= np.einsum("jn,jnk->nk", rows[i, :i], x[:i])
        x[i] /= rows[i, i][:, None]
    return x.transpose(1, 0, 2)


def batched_solve_upper(factors: Array, rhs: Array) -> Array:
    """Solve L_i^T x_i = g_i by back substitution; see `batched_solve_lower`.

    Parameters
    ----------
    factors : (N, q, q) array
        The lower triangular L_i.
    rhs : (N, q, k) array

    Returns
    -------
    (N, q, k) array
    """
    if _are_few(factors, rhs):
        return _substituted(factors, rhs, 0)
    columns, x = factors.transpose(2, 1, 0).copy(), rhs.transpose(1, 0, 2).copy()
    for i in reversed(range(len(x))):
        if i + 1 < len(x):
            x[i] -= np.einsum("jn,jnk->nk", columns[i, i + 1:], x[i + 1:])
        x[i] /= columns[i, i][:, None]
    return x.transpose(1, 0, 2)


def _are_few(factors: Array, rhs: Array) -> bool:
    """Whether there are fewer blocks than rows of a block, each of which LAPACK substitutes."""
    return 0 < len(factors) < factors.shape[1] and rhs.size > 0


def _substituted(factors: Array, rhs: Array, trans: int) -> Array:
    """Block by block; to LAPACK, whose arrays go by columns, L is the upper triangular L^T."""
    return np.stack([dtrtrs(L.T, g, trans=trans)[0]
                     for L, g in zip(factors, rhs, strict=True)])


def batched_cholesky_solve(factors: Array, rhs: Array) -> Array:
    """Solve D_i x_i = g_i from the Cholesky factors (N, q, q) of D, for rhs (N, q, k)."""
    return batched_solve_upper(factors, batched_solve_lower(factors, rhs))


def batched_solve_psd(blocks: Array, rhs: Array) -> Array:
    """Solve D_i x_i = g_i for every block.

    Parameters
    ----------
    blocks : (N, q, q) array
        Nonsingular; definiteness is not checked.
    rhs : (N, q) array

    Returns
    -------
    (N, q) array
    """
    if blocks.size == 0:
        return rhs.copy()
    if blocks.shape[1] == 1:
        return rhs / blocks[:, :, 0]
    out: Array = np.linalg.solve(blocks, rhs[:, :, None]).astype(np.float64, copy=False)
    return out[:, :, 0]


def batched_logdet(blocks: Array) -> Array:
    """Log-determinants of symmetric positive definite blocks, (N, q, q) to (N,)."""
    return factor_logdet(batched_cholesky(blocks))


def factor_logdet(factors: Array) -> Array:
    """Log-determinants (N,) of the blocks whose Cholesky factors (N, q, q) are given."""
    return 2.0 * np.log(np.einsum("nqq->nq", factors)).sum(1)
