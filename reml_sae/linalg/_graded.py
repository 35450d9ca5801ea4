"""Log-determinant of a weighted sum of semidefinite matrices, S_lambda = sum_j lambda_j S_j.

    log |S_lambda|_+,    d log |S_lambda|_+ / d log lambda_j = lambda_j tr(S_lambda^+ S_j)

Strengths that differ by many orders of magnitude hide the weak parts of the sum behind the rounding
of the strong ones. So the space is turned into a *graded* orthonormal basis (the idea of Wood 2011,
JRSSB 73, appendix B): take the parts by falling strength, and from each the part of its range that
the stronger ones leave. There a part has exact zeros beyond its own vectors, and the Cholesky
factor of a matrix that is graded with its order is accurate whatever the ratios are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reml_sae.typing import Array

RANK_TOLERANCE = 1e-9
"""Eigenvalues below this share of the largest are the null space of a matrix."""


@dataclass(frozen=True)
class GradedSum:
    """S_lambda in its graded basis.

    Attributes
    ----------
    basis : (k, k) array
        Orthonormal columns: the range of the sum, strongest part first, then its null space.
    rank : int
        Dimension r of the range.
    parts : (m, k, k) array
        lambda_j B^T S_j B, with exact zeros beyond the vectors of part j and stronger ones.
    log_det : float
        log |S_lambda|_+.
    log_det_gradient : (m,) array
        In the log strengths.
    """

    basis: Array
    rank: int
    parts: Array
    log_det: float
    log_det_gradient: Array


def graded_sum(matrices: Array, log_strengths: Array) -> GradedSum:
    """Basis, parts and log-determinant of sum_j lambda_j S_j.

    Parameters
    ----------
    matrices : (m, k, k) array
        Positive semidefinite, none of them zero.
    log_strengths : (m,) array
    """
    m, k = matrices.shape[:2]
    norms = np.linalg.norm(matrices, 2, axis=(1, 2))
    logs = np.log(norms) + log_strengths
    order = np.argsort(-logs, kind="stable")
    left = np.eye(k)
    vectors: list[Array] = []
    scales: list[float] = []
    ends = np.zeros(m, int)
    for j in order:
        if left.shape[1]:
            values, turn = np.linalg.eigh(left.T @ (matrices[j] / norms[j]) @ left)
            kept = values > RANK_TOLERANCE
            # the largest eigenvalue of a part first, so that its own block is graded too
            vectors.append((left @ turn[:, kept])[:, ::-1])
            left = left @ turn[:, ~kept]
            scales += [logs[j]] * int(kept.sum())
        ends[j] = len(scales)
    rank, scale = len(scales), np.array(scales)
    basis = np.hstack([*vectors, left])
    parts, scaled = np.zeros((m, k, k)), np.zeros((m, rank, rank))
    for j, end in enumerate(ends):
        own = basis[:, :end]
        block = own.T @ (matrices[j] / norms[j]) @ own
        block = 0.5 * (block + block.T)
        parts[j, :end, :end] = np.exp(logs[j]) * block
        # no exponent is positive: the vectors belong to this part or to stronger ones
        grading = np.exp(0.5 * (logs[j] - scale[:end]))
        scaled[j, :end, :end] = grading[:, None] * block * grading
    total = scaled.sum(axis=0)
    log_det = float(np.linalg.slogdet(total)[1] + scale.sum())
    gradient = np.tensordot(scaled, np.linalg.inv(total), axes=([1, 2], [1, 0]))
    return GradedSum(basis, rank, parts, log_det, gradient)
