"""The exact Hessian of an SAE-manifold: textbook Laplace (DESIGN A2, ``curvature="exact"``).

Its coupling has residual terms, so it is dense in the border:

    H_ab   = s (eta_a . eta_b - r . eta_ab)
    H_a,mo = s (phi_m eta_ao - dphi_m/da r_o)

with a, b local parameters of a row, (m, o) a coefficient, r the residual and s = 1 / dispersion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError
from reml_sae.linalg import ArrowMatrix, DenseCholesky, SelectedInverse
from reml_sae.penalties import RowCurvature, RowInverse

if TYPE_CHECKING:
    from reml_sae.models.sae_point import SAEPoint

Array = NDArray[np.float64]

EXACT_BORDER_LIMIT = 4096
"""Largest border for which the exact curvature, which is dense in it, is factorised."""


@dataclass(frozen=True)
class DataTrace:
    """Half the log-determinant, the inverse where penalties need it, and the data's gradients.

    ``rows`` (N, q, q), ``edges`` (e, q, q) and ``columns`` (c, N, q) are in chart coordinates.
    """

    half_logdet: float
    rows: Array
    edges: Array
    columns: Array
    border_trace: Array
    border: Array
    grad_x: Array
    grad_beta: Array
    gauge_pull: Array


def exact_matrix(point: SAEPoint) -> ArrowMatrix:
    """Exact Hessian plus the gauge terms, with dense coupling; rows that couple left out.

    Raises
    ------
    InputError
        Where the border is too large for a dense factor.
    """
    m, p = point.theta.beta.shape
    if m * p > EXACT_BORDER_LIMIT:
        raise InputError(
            f"curvature='exact' factorises a dense border of {m * p} parameters, the limit is "
            f"{EXACT_BORDER_LIMIT}; use curvature='majorizer' or fewer columns"
        )
    jacobian = point.restrict(point.jacobian) @ point.span.T
    slopes = point.restrict(_feature_jacobian(point))
    coupling = point.features[:, None, :, None] * jacobian[:, :, None, :]
    coupling -= slopes[:, :, :, None] * point.residual[:, None, None, :]
    border = np.kron(point.precision * (point.features.T @ point.features), np.eye(p))
    for where, prior in zip(point.model.layout.basis_slices, point.penalties.grams, strict=True):
        flat = slice(where.start * p, where.stop * p)
        border[flat, flat] += np.kron(prior, np.eye(p))
    if point.model.has_dense_border:
        border += point.penalties.border("exact")
    columns = point.gauge.columns.reshape(len(point.gauge), m * p)
    border += point.gauge.weight * (columns.T @ columns)
    n, q = slopes.shape[:2]
    return ArrowMatrix(point.row_hessian("exact"),
                       point.precision * coupling.reshape(n, q, m * p), border)


def _feature_jacobian(point: SAEPoint) -> Array:
    """d phi / dx, (N, K + D, M)."""
    n, k = point.mixture.a.shape
    width, m = k + point.model.layout.n_coordinates, point.theta.beta.shape[0]
    out = np.zeros((n, width, m))
    for j in range(width):
        unit = np.zeros((n, width))
        unit[:, j] = 1.0
        out[:, j] = point.mixture.feature_direction(unit)
    return out


def exact_trace(point: SAEPoint) -> DataTrace:
    """Half the log-determinant of the exact Hessian, with its gradients through the data fit."""
    # the gradients are those of (1/2) tr(G H) at fixed G
    half_logdet, inverse, edges, columns = _exact_inverse(point)
    n = len(point.features)
    m, p = point.theta.beta.shape
    s = point.precision
    full, _ = point.model.mixture(point.theta, point.theta.beta, order=3)
    jacobian = full.jacobian()
    g_rows = point.lift_blocks(inverse.rows)
    g_cross = point.lift(inverse.coupling.reshape(n, -1, m * p)).reshape(n, -1, m, p)
    blocks = inverse.border.reshape(m, p, m, p)
    border_trace = np.einsum("aobo->ab", blocks)
    t = s * (g_rows @ jacobian + np.einsum("namo,nm->nao", g_cross, point.features))
    tau = s * (np.einsum("namo,nao->nm", g_cross, jacobian) + point.features @ border_trace)
    w = s * np.einsum("namo,no->nam", g_cross, point.residual)
    curved = full.feature_hessian_contraction(g_rows)
    v = 0.5 * s * curved @ point.theta.beta
    v += s * np.einsum("nam,namo->no", _feature_jacobian(point), g_cross)
    grad_x = full.jacobian_pullback(t) + full.feature_gradient(tau)
    grad_x -= 0.5 * s * full.residual_hessian_pullback(point.residual, g_rows)
    grad_x -= full.feature_jacobian_pullback(w)
    grad_x += np.einsum("nao,no->na", jacobian, v)
    grad_beta = full.coefficient_pullback(t)
    grad_beta += point.features.T @ v - 0.5 * s * curved.T @ point.residual
    flat = point.gauge.columns.reshape(len(point.gauge), m * p)
    gauge_pull = (flat @ inverse.border).reshape(len(point.gauge), m, p)
    return DataTrace(half_logdet, inverse.rows, edges, columns, border_trace, inverse.border,
                      grad_x, grad_beta, gauge_pull)


def _exact_inverse(point: SAEPoint) -> tuple[float, SelectedInverse[Array], Array, Array]:
    """(1/2) log|H| of the exact Hessian, and its inverse on the pattern of H.

    Where penalties couple the rows, H is factorised as one dense matrix.
    """
    matrix, coupled = exact_matrix(point), point.coupled("exact")
    if not len(coupled.edges) and not len(coupled.columns):
        factor = matrix.factorize()
        return (0.5 * factor.logdet(), factor.selected_inverse(), coupled.edges,
                coupled.columns)
    if matrix.dim > EXACT_BORDER_LIMIT:
        raise InputError(
            f"curvature='exact' with a penalty that couples rows factorises a dense matrix of "
            f"{matrix.dim} parameters, the limit is {EXACT_BORDER_LIMIT}; use "
            "curvature='majorizer'"
        )
    n, q = point.theta.xi.shape
    dense = matrix.to_dense()
    parts = RowCurvature(np.zeros((n, q, q)), coupled.heads, coupled.tails, coupled.edges,
                         coupled.columns, coupled.core)
    dense[: n * q, : n * q] += parts.to_dense()
    cholesky = DenseCholesky.of(dense, "the exact Hessian")
    inverse = cholesky.inverse()
    found = RowInverse.of_dense(inverse[: n * q, : n * q], parts)
    selected = SelectedInverse(found.blocks, inverse[: n * q, n * q :].reshape(n, q, -1),
                               inverse[n * q :, n * q :])
    return 0.5 * cholesky.logdet(), selected, found.edges, found.columns
