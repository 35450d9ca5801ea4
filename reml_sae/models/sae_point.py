"""Values and derivatives of the SAE-manifold's objective at one (theta, rho).

Notation of DESIGN A3: phi_i the scaled basis, j_i the row Jacobian in span coordinates, Q the
orthonormal basis of the decoders' row span, s = 1 / dispersion. All row arrays are built in the
full local parameters x = (z, t) of `mixture` and then restricted to the chart.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError
from reml_sae.linalg import ArrowMatrix, SpanArrowFactor, SpanArrowMatrix
from reml_sae.models._protocol import Curvature, LogDeterminant, Theta

if TYPE_CHECKING:
    from reml_sae.models.sae import SAEManifoldModel
    from reml_sae.models.terms import PenaltyTerm

Array = NDArray[np.float64]

EXACT_BORDER_LIMIT = 4096
"""Largest border for which the exact curvature, which is dense in it, is factorised."""


class SAEPoint:
    """One point of an `SAEManifoldModel`; pieces are computed when asked for, once."""

    def __init__(self, model: SAEManifoldModel, theta: Theta, rho: Array):
        self.model, self.theta, self.rho = model, theta, rho
        self.precision = model.family.precision(rho[-1])
        n, p = model.shape
        width = min(p, model.layout.basis_size)
        self.span: Array = np.eye(p) if width == p else np.linalg.qr(theta.beta.T)[0]
        self.mixture, self.log_a = model.mixture(theta, theta.beta @ self.span, order=2)
        self.features = self.mixture.features()
        self.eta = self.features @ theta.beta
        self.residual = model.Z - self.eta
        self.grams = model.decoder_gram(rho)
        self.prior_beta = self._apply_grams(theta.beta)
        self.rss = float(np.vdot(self.residual, self.residual))
        self.objective = (
            float(model.family.loss(model.Z, self.eta, rho[-1]).sum())
            + n * p * np.log(model.unit)
            + float(model.row_penalties(theta, rho, self.log_a).sum())
            + 0.5 * float(np.vdot(theta.beta, self.prior_beta))
        )

    # --- first derivatives -------------------------------------------------------------------

    @cached_property
    def _data_gradient(self) -> Theta:
        in_span = self.residual @ self.span
        rows = -self.precision * np.einsum("nar,nr->na", self._jacobian, in_span)
        return Theta(self._restrict(rows), -self.precision * (self.features.T @ self.residual))

    def gradient(self) -> Theta:
        """Gradient of F in theta."""
        n, k = self.mixture.a.shape
        rows = np.zeros((n, k + self.model.layout.n_coordinates))
        if self.model.chart.dim:
            rows[:, :k] = self.model.chart.log_jacobian_gradient(self.mixture.a)
        for term, target, index in self.model.row_targets(self.theta):
            grad = term.penalty.grad_target(target, term.rho(self.rho)).reshape(target.shape)
            rows[index, self._columns(term)] += grad
        penalty = Theta(self._restrict(rows), self.prior_beta)
        return self._data_gradient.plus(penalty)

    @cached_property
    def _jacobian(self) -> Array:
        return self.mixture.jacobian()

    # --- curvature ---------------------------------------------------------------------------

    @cached_property
    def _residual_hessian(self) -> Array:
        return self.mixture.residual_hessian(self.residual @ self.span)

    def _penalty_blocks(self, curvature: Curvature) -> Array:
        n, k = self.mixture.a.shape
        width = k + self.model.layout.n_coordinates
        blocks = np.zeros((n, width, width))
        if self.model.chart.dim:
            blocks[:, :k, :k] = self.model.chart.log_jacobian_hessian(self.mixture.a)
        for term, target, index in self.model.row_targets(self.theta):
            where = self._columns(term)
            method = (term.penalty.row_blocks if curvature == "exact"
                      else term.penalty.row_majorizer)
            blocks[index, where, where] += method(target, term.rho(self.rho))
        return blocks

    def row_hessian(self, curvature: Curvature) -> Array:
        """Row blocks D_i, (N, q, q): Gauss-Newton and majorizers, or the exact second derivative.

        A coordinate that the row does not carry has a unit block of its own.
        """
        blocks = self.precision * (self._jacobian @ self._jacobian.transpose(0, 2, 1))
        if curvature == "exact":
            blocks -= self.precision * self._residual_hessian
        blocks += self._penalty_blocks(curvature)
        blocks = self._restrict(self._restrict(blocks).transpose(0, 2, 1)).transpose(0, 2, 1)
        d = self.model.chart.dim
        index = np.arange(d, blocks.shape[1])
        blocks[:, index, index] += ~self.model.active_coordinates
        return blocks

    def curvature(self, damping: float = 0.0) -> SpanArrowMatrix:
        """The majorized curvature H, plus ``damping`` times its diagonal."""
        rows = self.row_hessian("majorizer")
        gram = self.precision * (self.features.T @ self.features)
        for k, prior in enumerate(self.grams):
            where = self.model.layout.basis_slices[k]
            gram[where, where] += prior
        if damping:
            index = np.arange(rows.shape[1])
            rows[:, index, index] *= 1.0 + damping
            gram[np.diag_indices_from(gram)] *= 1.0 + damping
        return SpanArrowMatrix(
            rows=rows, features=self.features, jacobians=self._restrict(self._jacobian),
            span=self.span, gram=gram,
            border_columns=np.sqrt(self._gauge_weight) * (self._gauge_columns @ self.span),
            scale=self.precision,
        )

    def factorize(self, damping: float = 0.0) -> SpanArrowFactor:
        """Factor of H + damping * diag(H)."""
        return self.curvature(damping).factorize() if damping else self._factor

    @cached_property
    def _factor(self) -> SpanArrowFactor:
        return self.curvature().factorize()

    def hvp(self, v: Theta) -> Theta:
        """Exact Hessian of F, plus the gauge terms, times a vector."""
        vx = self._lift(v.xi)
        along = self.mixture.feature_direction(vx)
        in_span = np.einsum("nar,na->nr", self._jacobian, vx) + self.features @ (v.beta @ self.span)
        rows = np.einsum("nar,nr->na", self._jacobian, in_span)
        rows -= np.einsum("nab,nb->na", self._residual_hessian, vx)
        rows -= self.mixture.feature_gradient(self.residual @ v.beta.T)
        border = (self.features.T @ self.features) @ v.beta - along.T @ self.residual
        border += (self.features.T @ np.einsum("nar,na->nr", self._jacobian, vx)) @ self.span.T
        rows = self.precision * rows + np.einsum("nab,nb->na", self._exact_penalty_blocks, vx)
        border = self.precision * border + self._apply_grams(v.beta)
        for column in self._gauge_columns:
            border += self._gauge_weight * float(np.vdot(column, v.beta)) * column
        out = self._restrict(rows)
        out[:, self.model.chart.dim:] += ~self.model.active_coordinates * v.xi[
            :, self.model.chart.dim:]
        return Theta(out, border)

    @cached_property
    def _exact_penalty_blocks(self) -> Array:
        return self._penalty_blocks("exact")

    # --- the gauge (DESIGN A4) -----------------------------------------------------------------
    #
    # A rotation of an atom's coordinates, undone by its decoder, leaves F as it is: theta moves
    # along an orbit with border tangent C_a = R_a B. The orbit is integrated exactly:
    #   int exp(-F) dtheta = vol(orbit group) |det C^T C| * int over the slice C^T (beta - b) = 0,
    # and the slice's determinant is that of H + w C C^T divided by w for each direction. It is
    # exact for any w where H is singular along the orbit, as the exact Hessian is at a mode.

    @property
    def _gauge_weight(self) -> float:
        return float(self.model.shape[0])

    @cached_property
    def _gauge_generators(self) -> list[tuple[int, Array]]:
        """(atom, R (M_k, M_k)) of every continuous symmetry, atoms that no row uses left out."""
        broken = {term.atom for term in self.model.terms
                  if term.target == "coordinates" and term.penalty.rho_count() > 1}
        return [
            (k, generator)
            for k, atom in enumerate(self.model.atoms)
            if k not in broken and self.model.active[:, k].any()
            for generator in atom.gauge_generators()
        ]

    @cached_property
    def _gauge_columns(self) -> Array:
        """C_a, (c, M, p)."""
        columns = np.zeros((len(self._gauge_generators), *self.theta.beta.shape))
        for column, (k, generator) in zip(columns, self._gauge_generators, strict=True):
            where = self.model.layout.basis_slices[k]
            column[where] = generator @ self.theta.beta[where]
        return columns

    @property
    def n_gauge(self) -> int:
        """Number of continuous symmetries that were integrated out exactly."""
        return len(self._gauge_generators)

    def _gauge_volume(self) -> tuple[float, Array]:
        """The gauge's part of V and its gradient in beta (M, p)."""
        gradient = np.zeros_like(self.theta.beta)
        if not self.n_gauge:
            return 0.0, gradient
        flat = self._gauge_columns.reshape(self.n_gauge, -1)
        gram = flat @ flat.T
        value = -0.5 * self.n_gauge * np.log(self._gauge_weight / (2.0 * np.pi))
        value -= float(np.linalg.slogdet(gram)[1])
        value -= sum(self.model.atoms[k].log_gauge_volume()
                     for k in {k for k, _ in self._gauge_generators})
        pulled = np.tensordot(np.linalg.inv(gram), self._gauge_columns, axes=1)
        for column, (k, generator) in zip(pulled, self._gauge_generators, strict=True):
            where = self.model.layout.basis_slices[k]
            gradient[where] -= 2.0 * generator.T @ column[where]
        return value, gradient

    # --- log-determinant -----------------------------------------------------------------------

    def half_logdet(self, curvature: Curvature = "majorizer") -> LogDeterminant:
        """(1/2) log|H| with the gauge volume, and its explicit gradients (DESIGN A5)."""
        data = self._majorizer_logdet() if curvature == "majorizer" else self._exact_logdet()
        half_logdet, rows_inverse, border_trace, grad_x, grad_beta, gauge_pull = data
        gauge_value, gauge_gradient = self._gauge_volume()
        grad_beta = grad_beta + gauge_gradient
        for column, (k, generator) in zip(gauge_pull, self._gauge_generators, strict=True):
            where = self.model.layout.basis_slices[k]
            grad_beta[where] += self._gauge_weight * generator.T @ column[where]

        weights = self._lift(self._lift(rows_inverse).transpose(0, 2, 1))
        k_atoms = self.mixture.a.shape[1]
        grad_rho = np.zeros(len(self.rho))
        penalty_trace = 0.0
        if self.model.chart.dim:
            wz = weights[:, :k_atoms, :k_atoms]
            grad_x[:, :k_atoms] += 0.5 * self.model.chart.log_jacobian_hessian_vjp(
                self.mixture.a, wz)
        for term, target, index in self.model.row_targets(self.theta):
            where, rho = self._columns(term), term.rho(self.rho)
            w = weights[index, where, where]
            if curvature == "exact":
                vjp, by_rho = term.penalty.row_blocks_vjp, term.penalty.row_blocks_rho
            else:
                vjp, by_rho = term.penalty.row_majorizer_vjp, term.penalty.row_majorizer_rho
            grad_x[index, where] += 0.5 * vjp(target, rho, w).reshape(target.shape)
            grad_rho[term.where] += 0.5 * by_rho(target, rho, w)
        penalty_trace += float(np.vdot(weights, self._penalty_blocks(curvature)))
        for term in self.model.terms:
            if term.target == "decoder":
                where = self.model.layout.basis_slices[term.atom]
                derivative = term.penalty.gram_rho(term.rho(self.rho))
                grad_rho[term.where] += 0.5 * np.einsum(
                    "jab,ab->j", derivative, border_trace[where, where])
        for k, prior in enumerate(self.grams):
            where = self.model.layout.basis_slices[k]
            penalty_trace += float(np.vdot(prior, border_trace[where, where]))
        penalty_trace += self._gauge_weight * float(np.vdot(self._gauge_columns, gauge_pull))
        edf = self.model.effective_dim - penalty_trace
        grad_rho[-1] -= 0.5 * edf  # every entry of the data part of H carries 1 / phi
        value = half_logdet + gauge_value
        return LogDeterminant(value, Theta(self._restrict(grad_x), grad_beta), grad_rho, edf)

    def _majorizer_logdet(self) -> tuple[float, Array, Array, Array, Array, Array]:
        factor = self.factorize()
        inverse = factor.selected_inverse()
        t = self._lift(inverse.jac_cross)
        grad_x = self.mixture.jacobian_pullback(t)
        grad_x += self.mixture.feature_gradient(inverse.feature_cross)
        grad_beta = self.mixture.coefficient_pullback(t) @ self.span.T
        gauge_pull = np.zeros_like(self._gauge_columns)
        for out, column in zip(gauge_pull, self._gauge_columns, strict=True):
            out[...] = factor.apply_border_inverse(column)
        return (0.5 * factor.logdet(), inverse.rows, inverse.border_trace, grad_x, grad_beta,
                gauge_pull)

    def exact_matrix(self) -> ArrowMatrix:
        """Exact Hessian plus the gauge terms, with dense coupling.

        Raises
        ------
        InputError
            Where the border is too large for a dense factor.
        """
        m, p = self.theta.beta.shape
        if m * p > EXACT_BORDER_LIMIT:
            raise InputError(
                f"curvature='exact' factorises a dense border of {m * p} parameters, the limit is "
                f"{EXACT_BORDER_LIMIT}; use curvature='majorizer' or fewer columns"
            )
        jacobian = self._restrict(self._jacobian) @ self.span.T
        slopes = self._restrict(self._feature_jacobian)
        coupling = self.features[:, None, :, None] * jacobian[:, :, None, :]
        coupling -= slopes[:, :, :, None] * self.residual[:, None, None, :]
        border = np.kron(self.precision * (self.features.T @ self.features), np.eye(p))
        for k, prior in enumerate(self.grams):
            where = self.model.layout.basis_slices[k]
            flat = slice(where.start * p, where.stop * p)
            border[flat, flat] += np.kron(prior, np.eye(p))
        columns = self._gauge_columns.reshape(self.n_gauge, m * p)
        border += self._gauge_weight * (columns.T @ columns)
        n, q = slopes.shape[:2]
        return ArrowMatrix(self.row_hessian("exact"),
                           self.precision * coupling.reshape(n, q, m * p), border)

    @cached_property
    def _feature_jacobian(self) -> Array:
        """d phi / dx, (N, K + D, M)."""
        n, k = self.mixture.a.shape
        width, m = k + self.model.layout.n_coordinates, self.theta.beta.shape[0]
        out = np.zeros((n, width, m))
        for j in range(width):
            unit = np.zeros((n, width))
            unit[:, j] = 1.0
            out[:, j] = self.mixture.feature_direction(unit)
        return out

    def _exact_logdet(self) -> tuple[float, Array, Array, Array, Array, Array]:
        # (1/2) d tr(G H) at fixed G, H the exact Hessian of the data fit:
        #   H_ab = s (eta_a . eta_b - r . eta_ab),  H_a,mo = s (phi_m eta_ao - dphi_m/da r_o)
        matrix = self.exact_matrix()
        factor = matrix.factorize()
        inverse = factor.selected_inverse()
        n = len(self.features)
        m, p = self.theta.beta.shape
        s = self.precision
        full, _ = self.model.mixture(self.theta, self.theta.beta, order=3)
        jacobian = full.jacobian()
        g_rows = self._lift(self._lift(inverse.rows).transpose(0, 2, 1))
        g_cross = self._lift(inverse.coupling.reshape(n, -1, m * p)).reshape(n, -1, m, p)
        blocks = inverse.border.reshape(m, p, m, p)
        border_trace = np.einsum("aobo->ab", blocks)
        t = s * (g_rows @ jacobian + np.einsum("namo,nm->nao", g_cross, self.features))
        tau = s * (np.einsum("namo,nao->nm", g_cross, jacobian) + self.features @ border_trace)
        w = s * np.einsum("namo,no->nam", g_cross, self.residual)
        curved = full.feature_hessian_contraction(g_rows)
        v = 0.5 * s * curved @ self.theta.beta
        v += s * np.einsum("nam,namo->no", self._feature_jacobian, g_cross)
        grad_x = full.jacobian_pullback(t) + full.feature_gradient(tau)
        grad_x -= 0.5 * s * full.residual_hessian_pullback(self.residual, g_rows)
        grad_x -= full.feature_jacobian_pullback(w)
        grad_x += np.einsum("nao,no->na", jacobian, v)
        grad_beta = full.coefficient_pullback(t)
        grad_beta += self.features.T @ v - 0.5 * s * curved.T @ self.residual
        flat = self._gauge_columns.reshape(self.n_gauge, m * p)
        gauge_pull = (flat @ inverse.border).reshape(self.n_gauge, m, p)
        return 0.5 * factor.logdet(), inverse.rows, border_trace, grad_x, grad_beta, gauge_pull

    @property
    def dispersion_energy(self) -> float:
        """RSS / (2 phi), the part of F that carries 1 / phi."""
        return 0.5 * self.precision * self.rss

    # --- outer parameters ------------------------------------------------------------------------

    def objective_rho(self) -> Array:
        """Gradient of F in rho at fixed theta, (n_rho,)."""
        out = np.zeros(len(self.rho))
        for term, target, _ in self.model.row_targets(self.theta):
            out[term.where] += term.penalty.grad_rho(target, term.rho(self.rho))
        for term in self.model.terms:
            if term.target == "decoder":
                b = self.theta.beta[self.model.layout.basis_slices[term.atom]]
                derivative = term.penalty.gram_rho(term.rho(self.rho))
                out[term.where] += 0.5 * np.einsum("jab,ab->j", derivative, b @ b.T)
        out[-1] = self.model.family.loss_log_dispersion(self.model.Z, self.eta, self.rho[-1])
        return out

    def gradient_rho_dot(self, u: Theta) -> Array:
        """Inner products of u with d grad F / d rho_m, (n_rho,)."""
        out = np.zeros(len(self.rho))
        ux = self._lift(u.xi)
        for term, target, index in self.model.row_targets(self.theta):
            mixed = term.penalty.grad_target_rho(target, term.rho(self.rho))
            out[term.where] += mixed @ ux[index, self._columns(term)].ravel()
        for term in self.model.terms:
            if term.target == "decoder":
                where = self.model.layout.basis_slices[term.atom]
                derivative = term.penalty.gram_rho(term.rho(self.rho))
                out[term.where] += np.einsum(
                    "jab,ab->j", derivative, u.beta[where] @ self.theta.beta[where].T)
        out[-1] = -u.dot(self._data_gradient)
        return out

    def log_normalizer(self) -> tuple[float, Array]:
        """Log partitions of all priors and their gradient in rho."""
        model = self.model
        n, p = model.shape
        gradient = np.zeros(len(self.rho))
        value = 0.0
        terms = [(t, n if t.target == "logits" else int(model.active[:, t.atom].sum()))
                 for t in model.terms if t.target != "decoder"]
        for term, count in terms:
            partition = term.penalty.log_partition(term.rho(self.rho), count)
            value += partition[0]
            gradient[term.where] += partition[1]
        if model.chart.dim and not any(t.target == "logits" for t in model.terms):
            value -= n * float(np.sum(np.log(np.arange(1, model.chart.n_atoms))))
        for k, atom in enumerate(model.atoms):
            if atom.prior_precision == 0:
                value += int(model.active[:, k].sum()) * atom.log_prior_volume()
            prior = self.grams[k]
            value += 0.5 * p * (len(prior) * np.log(2.0 * np.pi) - np.linalg.slogdet(prior)[1])
        for term in model.terms:
            if term.target == "decoder":
                derivative = term.penalty.gram_rho(term.rho(self.rho))
                inverse = np.linalg.inv(self.grams[term.atom])
                gradient[term.where] -= 0.5 * p * np.einsum("jab,ba->j", derivative, inverse)
        return float(value), gradient

    # --- chart -----------------------------------------------------------------------------------

    def _restrict(self, rows: Array) -> Array:
        """Apply the chart's transpose to axis 1: (N, K + D, ..) to (N, K - 1 + D, ..)."""
        k = self.model.chart.n_atoms
        head = np.tensordot(rows[:, :k], self.model.chart.basis, axes=([1], [0]))
        return np.concatenate([np.moveaxis(head, -1, 1), rows[:, k:]], axis=1)

    def _lift(self, rows: Array) -> Array:
        """Apply the chart to axis 1: (N, K - 1 + D, ..) to (N, K + D, ..)."""
        d = self.model.chart.dim
        head = np.tensordot(rows[:, :d], self.model.chart.basis, axes=([1], [1]))
        return np.concatenate([np.moveaxis(head, -1, 1), rows[:, d:]], axis=1)

    def _columns(self, term: PenaltyTerm) -> slice:
        k = self.model.chart.n_atoms
        if term.atom < 0:
            return slice(0, k)
        where = self.model.layout.coordinate_slices[term.atom]
        return slice(k + where.start, k + where.stop)

    def _apply_grams(self, beta: Array) -> Array:
        out = np.empty_like(beta)
        for k, prior in enumerate(self.grams):
            where = self.model.layout.basis_slices[k]
            out[where] = prior @ beta[where]
        return out
