"""The exact Hessian of an SAE-manifold: textbook Laplace (DESIGN A2, ``curvature="exact"``).

Its coupling has residual terms, so it is dense in the border:

    H_ab    = sum_o h_o eta_ao eta_bo - score . eta_ab
    H_a,mo  = h_o phi_m eta_ao - dphi_m/da score_o
    H_mo,ko = h_o phi_m phi_k

with a, b local parameters of a row, (m, o) a coefficient, and score = -dl/deta and h = d2l/deta2 of
the loss l of an entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from reml_sae.errors import InputError
from reml_sae.linalg import ArrowMatrix, DenseCholesky, SelectedInverse
from reml_sae.models.sae.state import SAEState
from reml_sae.penalties import RowCurvature, RowInverse
from reml_sae.rows import RowMap, RowResult, gather_rows, row_slices
from reml_sae.typing import Array

EXACT_BORDER_LIMIT = 4096
"""Largest border for which the exact curvature, which is dense in it, is factorised."""


@dataclass(frozen=True)
class DataTrace:
    """Half the log-determinant, the inverse where penalties need it, and the data's gradients.

    ``rows`` (N, q, q), ``edges`` (e, q, q) and ``columns`` (c, N, q) are in chart coordinates;
    ``bend`` (N, p) is the derivative of half the log-determinant in the score, with its sign
    turned; the majorizer has none. ``by_mean`` (N, p) is the majorizer's in the means, through the
    weights of rows of unequal scale.
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
    grad_psi: Array
    bend: Array | None = None
    by_mean: Array | None = None


def weighted_border(features: Array, weight: Array, row_map: RowMap) -> Array:
    """Border sum_i w_io phi_i phi_i^T of every output as one matrix, (M p, M p)."""
    m, p = features.shape[1], weight.shape[1]
    out = np.zeros((m, p, m, p))
    blocks = gather_rows(row_map, partial(_weighted_products, features, weight),
                         row_slices(len(features), m * max(m, p), row_map.elements)).sums[0]
    out[:, np.arange(p), :, np.arange(p)] = np.moveaxis(blocks, 2, 0)
    return out.reshape(m * p, m * p)


def _weighted_products(features: Array, weight: Array, where: slice) -> RowResult:
    phi = features[where]
    return RowResult(sums=(
        np.einsum("nm,no,nk->mko", phi, weight[where], phi, optimize=True),))


def output_products(weight: Array, own: Array, features: Array) -> Array:
    """Sum over outputs of w_io G_o phi_i, (N, M), for the blocks own (p, M, M) of G."""
    mixed = (weight @ own.reshape(len(own), -1)).reshape(len(weight), *own.shape[1:])
    out: Array = np.einsum("nmk,nk->nm", mixed, features)
    return out


def exact_matrix(point: SAEState) -> ArrowMatrix[Array]:
    """Exact Hessian plus the gauge terms, with dense coupling; rows that couple left out.

    Raises
    ------
    InputError
        Where the border is too large for a dense factor, or rows have scales of their own.
    """
    m, p = point.theta.beta.shape
    if point.tail:
        raise InputError("curvature='exact' knows no rows of unequal scale; use "
                         "curvature='majorizer' with row_noise='student_t'")
    if m * p > EXACT_BORDER_LIMIT:
        raise InputError(
            f"curvature='exact' factorises a dense border of {m * p} parameters, the limit is "
            f"{EXACT_BORDER_LIMIT}; use curvature='majorizer' or fewer columns"
        )
    jacobian = point.own_jacobian @ point.span.T
    slopes = point.restrict(_feature_jacobian(point))
    weighted = jacobian * point.observed[:, None]
    coupling = point.features[:, None, :, None] * weighted[:, :, None, :]
    coupling -= slopes[:, :, :, None] * point.score[:, None, None, :]
    border = weighted_border(point.features, point.observed, point.structure.row_map)
    for where, prior in zip(point.structure.layout.blocks, point.decoder_prior.grams, strict=True):
        flat = slice(where.start * p, where.stop * p)
        border[flat, flat] += np.kron(prior, np.eye(p))
    point.decoder_prior.add_scales(border)
    if point.structure.has_dense_border:
        border += point.decoder_prior.border("exact")
    columns = point.gauge.columns.reshape(len(point.gauge), m * p)
    border += point.gauge.weight * (columns.T @ columns)
    n, q = slopes.shape[:2]
    return ArrowMatrix(point.row_hessian("exact"), coupling.reshape(n, q, m * p), border)


def _feature_jacobian(point: SAEState) -> Array:
    """d phi / dx, (N, K + D, M)."""
    n, k = point.mixture.a.shape
    width, m = k + point.structure.layout.n_coordinates, point.theta.beta.shape[0]
    out = np.zeros((n, width, m))
    for j in range(width):
        unit = np.zeros((n, width))
        unit[:, j] = 1.0
        out[:, j] = point.mixture.feature_direction(unit)
    return out


def exact_trace(point: SAEState) -> DataTrace:
    """Half the log-determinant of the exact Hessian, with its gradients through the data fit."""
    # the gradients are those of (1/2) tr(G H) at fixed G
    half_logdet, inverse, edges, columns = _exact_inverse(point)
    n = len(point.features)
    m, p = point.theta.beta.shape
    family, Z, eta, psi = point.structure.family, point.structure.Z, point.eta, point.psi
    phi, h, score = point.features, point.observed, point.score
    full = point.structure.mixture(point.theta, point.theta.beta, order=3)
    jacobian = full.jacobian()
    g_rows = point.lift_blocks(inverse.rows)
    g_cross = point.lift(inverse.coupling.reshape(n, -1, m * p)).reshape(n, -1, m, p)
    blocks = inverse.border.reshape(m, p, m, p)
    border_trace = np.einsum("aobo->ab", blocks)
    own = np.einsum("aobo->oab", blocks)
    along = np.einsum("namo,nm->nao", g_cross, phi)
    t = (g_rows @ jacobian + along) * h[:, None]
    tau = np.einsum("namo,nao->nm", g_cross, jacobian * h[:, None]) + output_products(h, own, phi)
    w = np.einsum("namo,no->nam", g_cross, score)
    curved = full.feature_hessian_contraction(g_rows)
    leverage = np.einsum("nao,nao->no", g_rows @ jacobian + 2.0 * along, jacobian)
    leverage += np.einsum("nm,omk,nk->no", phi, own, phi, optimize=True)
    bend = 0.5 * curved @ point.theta.beta
    bend += np.einsum("nam,namo->no", _feature_jacobian(point), g_cross)
    v = h * bend + 0.5 * family.loss_eta(Z, eta, psi, 3) * leverage
    grad_x = full.jacobian_pullback(t) + full.feature_gradient(tau)
    grad_x -= 0.5 * full.residual_hessian_pullback(score, g_rows)
    grad_x -= full.feature_jacobian_pullback(w)
    grad_x += np.einsum("nao,no->na", jacobian, v)
    grad_beta = full.coefficient_pullback(t, point.incidence)
    grad_beta += phi.T @ v - 0.5 * curved.T @ score
    grad_psi = 0.5 * (family.loss_eta_psi(Z, eta, psi, 2) * leverage).sum((1, 2))
    grad_psi += (family.loss_eta_psi(Z, eta, psi, 1) * bend).sum((1, 2))
    flat = point.gauge.columns.reshape(len(point.gauge), m * p)
    gauge_pull = (flat @ inverse.border).reshape(len(point.gauge), m, p)
    return DataTrace(half_logdet, inverse.rows, edges, columns, border_trace, inverse.border,
                     grad_x, grad_beta, gauge_pull, grad_psi, bend)


def _exact_inverse(point: SAEState) -> tuple[float, SelectedInverse[Array], Array, Array]:
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
