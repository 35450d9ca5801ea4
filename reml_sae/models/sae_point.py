"""Values and derivatives of the SAE-manifold's objective at one (theta, rho).

Notation of DESIGN A3: phi_i the scaled basis, j_i the row Jacobian in span coordinates, Q the
orthonormal basis of the decoders' row span, s = 1 / dispersion. All row arrays are built in the
full local parameters x = (z, t) of `mixture` and then restricted to the chart.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reml_sae.linalg import (
    ArrowMatrix,
    LowRankUpdate,
    SpanArrowMatrix,
    SpanFactor,
    SparseSpanFactor,
)
from reml_sae.models._protocol import LogDeterminant, Theta
from reml_sae.models.gauge import Gauge
from reml_sae.models.sae_exact import DataTrace, exact_matrix, exact_trace
from reml_sae.models.sae_penalties import CoupledRows, PenaltyPoint
from reml_sae.penalties import Curvature

if TYPE_CHECKING:
    from reml_sae.models.sae import SAEManifoldModel

Array = NDArray[np.float64]


class SAEPoint:
    """One point of an `SAEManifoldModel`; pieces are computed when asked for, once."""

    def __init__(self, model: SAEManifoldModel, theta: Theta, rho: Array):
        self.model, self.theta, self.rho = model, theta, rho
        self.precision = model.family.precision(rho[-1])
        n, p = model.shape
        width = min(p, model.layout.basis_size)
        whole = width == p or model.has_dense_border
        self.span: Array = np.eye(p) if whole else np.linalg.qr(theta.beta.T)[0]
        self.mixture, self.log_a = model.mixture(theta, theta.beta @ self.span, order=2)
        self.features = self.mixture.features()
        self.eta = self.features @ theta.beta
        self.residual = model.Z - self.eta
        self.penalties = PenaltyPoint(model, theta, rho, self.log_a)
        used = [item for item in model.symmetries if model.active[:, item[0]].any()]
        self.gauge = Gauge(model.layout, used, theta.beta, float(n))
        self.rss = float(np.vdot(self.residual, self.residual))
        self.objective = (
            float(model.family.loss(model.Z, self.eta, rho[-1]).sum())
            + n * p * np.log(model.unit) + self.penalties.value()
        )

    # --- first derivatives -------------------------------------------------------------------

    @cached_property
    def _data_gradient(self) -> Theta:
        in_span = self.residual @ self.span
        rows = -self.precision * np.einsum("nar,nr->na", self.jacobian, in_span)
        return Theta(self.restrict(rows), -self.precision * (self.features.T @ self.residual))

    def gradient(self) -> Theta:
        """Gradient of F in theta."""
        rows, beta = self.penalties.gradient()
        return self._data_gradient.plus(Theta(self.restrict(rows), beta))

    @cached_property
    def jacobian(self) -> Array:
        """d eta / dx in span coordinates, (N, K + D, r)."""
        return self.mixture.jacobian()

    # --- curvature ---------------------------------------------------------------------------

    @cached_property
    def _residual_hessian(self) -> Array:
        return self.mixture.residual_hessian(self.residual @ self.span)

    def row_hessian(self, curvature: Curvature) -> Array:
        """Row blocks D_i, (N, q, q): Gauss-Newton and majorizers, or the exact second derivative.

        A coordinate that the row does not carry has a unit block of its own.
        """
        blocks = self.precision * (self.jacobian @ self.jacobian.transpose(0, 2, 1))
        if curvature == "exact":
            blocks -= self.precision * self._residual_hessian
        blocks = self.restrict_blocks(blocks + self.penalties.row_blocks(curvature))
        d = self.model.chart.dim
        index = np.arange(d, blocks.shape[1])
        blocks[:, index, index] += ~self.model.active_coordinates
        return blocks

    def curvature(self, damping: float = 0.0) -> SpanArrowMatrix:
        """The majorized curvature H without its low-rank part, plus damping times its diagonal."""
        rows = self.row_hessian("majorizer")
        gram = self.precision * (self.features.T @ self.features)
        for where, prior in zip(self.model.layout.basis_slices, self.penalties.grams, strict=True):
            gram[where, where] += prior
        if damping:
            index = np.arange(rows.shape[1])
            rows[:, index, index] *= 1.0 + damping
            gram[np.diag_indices_from(gram)] *= 1.0 + damping
        coupled = self.coupled("majorizer")
        return SpanArrowMatrix(
            rows=rows, features=self.features, jacobians=self.restrict(self.jacobian),
            span=self.span, gram=gram,
            border_columns=np.sqrt(self.gauge.weight) * (self.gauge.columns @ self.span),
            scale=self.precision, heads=coupled.heads, tails=coupled.tails, edges=coupled.edges,
            dense_border=self.penalties.border("majorizer"),
        )

    def coupled(self, which: Curvature) -> CoupledRows:
        """What couples the rows, in chart coordinates."""
        full = self.penalties.coupled_rows(which)
        columns = np.zeros((len(full.columns), *self.theta.xi.shape))
        for column, lifted in zip(columns, full.columns, strict=True):
            column[...] = self.restrict(lifted)
        return replace(full, edges=self.restrict_blocks(full.edges), columns=columns)

    def factorize(self, damping: float = 0.0) -> SpanFactor:
        """Factor of H + damping * diag(H)."""
        return self._factorized(damping) if damping else self._factor

    @cached_property
    def _factor(self) -> SpanFactor:
        return self._factorized(0.0)

    def _factorized(self, damping: float) -> SpanFactor:
        return self.with_low_rank(self.curvature(damping).factorize())

    def with_low_rank(self, factor: SpanFactor) -> SpanFactor:
        """A factor of H without its low-rank part, updated by it."""
        coupled = self.coupled("majorizer")
        if not len(coupled.columns):
            return factor
        return LowRankUpdate(factor, coupled.columns, coupled.core)

    def hvp(self, v: Theta) -> Theta:
        """Exact Hessian of F, plus the gauge terms, times a vector."""
        vx = self.lift(v.xi)
        along = self.mixture.feature_direction(vx)
        in_span = np.einsum("nar,na->nr", self.jacobian, vx) + self.features @ (v.beta @ self.span)
        rows = np.einsum("nar,nr->na", self.jacobian, in_span)
        rows -= np.einsum("nab,nb->na", self._residual_hessian, vx)
        rows -= self.mixture.feature_gradient(self.residual @ v.beta.T)
        border = (self.features.T @ self.features) @ v.beta - along.T @ self.residual
        border += (self.features.T @ np.einsum("nar,na->nr", self.jacobian, vx)) @ self.span.T
        penalty_rows, penalty_border = self.penalties.hvp(vx, v.beta)
        rows = self.precision * rows + penalty_rows
        border = self.precision * border + penalty_border
        for column in self.gauge.columns:
            border += self.gauge.weight * float(np.vdot(column, v.beta)) * column
        out = self.restrict(rows)
        out[:, self.model.chart.dim:] += ~self.model.active_coordinates * v.xi[
            :, self.model.chart.dim:]
        return Theta(out, border)

    # --- log-determinant -----------------------------------------------------------------------

    def half_logdet(self, curvature: Curvature = "majorizer") -> LogDeterminant:
        """(1/2) log|H| with the gauge volume, and its explicit gradients (DESIGN A5)."""
        data = self._majorizer_trace() if curvature == "majorizer" else exact_trace(self)
        gauge_value, gauge_gradient = self.gauge.volume()
        half = self.penalties.half_trace_gradients(
            curvature, self.lift_blocks(data.rows), self.lift_blocks(data.edges),
            self.lift_columns(data.columns), data.border_trace, data.border)
        grad_x, grad_rho = data.grad_x + half[0], half[2]
        grad_beta = data.grad_beta + half[1] + gauge_gradient
        grad_beta += self.gauge.weight * self.gauge.pull_back(data.gauge_pull)
        penalty_trace = half[3]
        penalty_trace += self.gauge.weight * float(np.vdot(self.gauge.columns, data.gauge_pull))
        edf = self.model.effective_dim - penalty_trace
        grad_rho[-1] -= 0.5 * edf  # every entry of the data part of H carries 1 / phi
        value = data.half_logdet + gauge_value
        return LogDeterminant(value, Theta(self.restrict(grad_x), grad_beta), grad_rho, edf)

    def _majorizer_trace(self) -> DataTrace:
        factor = self.factorize()
        inverse = factor.selected_inverse()
        t = self.lift(inverse.jac_cross)
        grad_x = self.mixture.jacobian_pullback(t)
        grad_x += self.mixture.feature_gradient(inverse.feature_cross)
        grad_beta = self.mixture.coefficient_pullback(t) @ self.span.T
        gauge_pull = np.zeros_like(self.gauge.columns)
        for out, column in zip(gauge_pull, self.gauge.columns, strict=True):
            out[...] = factor.apply_border_inverse(column)
        size = self.theta.beta.size
        border = (factor.border_inverse().reshape(size, size) if self.model.has_dense_border
                  else np.zeros((0, 0)))
        return DataTrace(0.5 * factor.logdet(), inverse.rows, inverse.edges, inverse.columns,
                          inverse.border_trace, border, grad_x, grad_beta, gauge_pull)

    def exact_matrix(self) -> ArrowMatrix:
        """Exact Hessian plus the gauge terms, with dense coupling; rows that couple left out."""
        return exact_matrix(self)

    def decoder_penalty_trace(self, k: int, factor: SpanFactor, border_trace: Array) -> float:
        """Trace of H^-1 times the penalties' curvature on the decoder of atom k.

        Its p M_k coefficients less this are the effective degrees of freedom of the atom.
        """
        where = self.model.layout.basis_slices[k]
        trace = float(np.vdot(self.penalties.grams[k], border_trace[where, where]))
        if self.model.has_dense_border:
            p = self.model.shape[1]
            flat = slice(where.start * p, where.stop * p)
            size = self.theta.beta.size
            inverse = factor.border_inverse().reshape(size, size)[flat, flat]
            trace += float(np.vdot(self.penalties.border("majorizer")[flat, flat], inverse))
        return trace

    def sparse_backend(self) -> str | None:
        """The sparse Cholesky that ran for penalties that couple rows; None where none did."""
        factor = self.factorize()
        base = factor.base if isinstance(factor, LowRankUpdate) else factor
        return base.backend if isinstance(base, SparseSpanFactor) else None

    @property
    def dispersion_energy(self) -> float:
        """RSS / (2 phi), the part of F that carries 1 / phi."""
        return 0.5 * self.precision * self.rss

    # --- outer parameters ------------------------------------------------------------------------

    def objective_rho(self) -> Array:
        """Gradient of F in rho at fixed theta, (n_rho,)."""
        out = self.penalties.value_rho()
        out[-1] = self.model.family.loss_log_dispersion(self.model.Z, self.eta, self.rho[-1])
        return out

    def gradient_rho_dot(self, u: Theta) -> Array:
        """Inner products of u with d grad F / d rho_m, (n_rho,)."""
        out = self.penalties.gradient_rho_dot(self.lift(u.xi), u.beta)
        out[-1] = -u.dot(self._data_gradient)
        return out

    def log_normalizer(self) -> tuple[float, Array]:
        """Log partitions of all priors and their gradient in rho."""
        return self.penalties.log_normalizer()

    # --- chart -----------------------------------------------------------------------------------

    def restrict(self, rows: Array) -> Array:
        """Apply the chart's transpose to axis 1: (N, K + D, ..) to (N, K - 1 + D, ..)."""
        k = self.model.chart.n_atoms
        head = np.tensordot(rows[:, :k], self.model.chart.basis, axes=([1], [0]))
        return np.concatenate([np.moveaxis(head, -1, 1), rows[:, k:]], axis=1)

    def lift(self, rows: Array) -> Array:
        """Apply the chart to axis 1: (N, K - 1 + D, ..) to (N, K + D, ..)."""
        d = self.model.chart.dim
        head = np.tensordot(rows[:, :d], self.model.chart.basis, axes=([1], [1]))
        return np.concatenate([np.moveaxis(head, -1, 1), rows[:, d:]], axis=1)

    def restrict_blocks(self, blocks: Array) -> Array:
        """Blocks (n, K + D, K + D) restricted to the chart on both sides."""
        return self.restrict(self.restrict(blocks).transpose(0, 2, 1)).transpose(0, 2, 1)

    def lift_blocks(self, blocks: Array) -> Array:
        """Blocks (n, q, q) in chart coordinates lifted on both sides."""
        return self.lift(self.lift(blocks).transpose(0, 2, 1)).transpose(0, 2, 1)

    def lift_columns(self, columns: Array) -> Array:
        """Vectors (c, N, q) lifted to (c, N, K + D)."""
        lifted = [self.lift(column) for column in columns]
        return np.stack(lifted) if lifted else np.zeros(
            (0, *self.penalties.a.shape[:1], self.penalties.width))
