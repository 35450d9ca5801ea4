"""The point of an SAE-manifold that V is made of: its factor, log-determinant and derivatives.

Rows and decoders are integrated together by Laplace's method; notation of `state`.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.linalg import block_diag

from reml_sae.engine.protocol import LogDeterminant, Theta
from reml_sae.linalg import (
    ArrowMatrix,
    SpanArrowMatrix,
    SpanFactor,
    SpanSelectedInverse,
)
from reml_sae.models.sae.exact import (
    DataTrace,
    exact_matrix,
    exact_trace,
    output_products,
    weighted_border,
)
from reml_sae.models.sae.gauge import at_its_phase
from reml_sae.models.sae.outside import OutsidePart
from reml_sae.models.sae.row_scales import MissingScales
from reml_sae.models.sae.state import SAEState
from reml_sae.models.sae.structure import SAEStructure
from reml_sae.typing import Array, Curvature, Mask

COSTLY_BORDER = 800
"""Size inside the span from which a factor costs as much as many products with the Hessian."""


class SAEPoint(SAEState):
    """The joint objective of rows and decoders at one state; see `SAEState`."""

    # --- curvature ---------------------------------------------------------------------------

    def curvature(self, damping: float = 0.0) -> SpanArrowMatrix:
        """The majorized curvature H, plus damping times the diagonal of its blocks."""
        rows = self.row_hessian("majorizer")
        border = self.decoder_prior.border("majorizer")
        jacobians = self.own_jacobian
        if self.precision is None:
            gram = np.zeros((self.features.shape[1],) * 2)
            border = border + weighted_border(
                self.features, self.weight, self.structure.row_map)
            jacobians = self.weighted_jacobian("majorizer")
            features = self.features
        else:
            features = self.scaled_features
            jacobians = np.sqrt(self.row_weight)[:, None, None] * jacobians
            gram = self.data_gram.copy()
        own = self.decoder_prior
        grams = own.damped_grams if damping else own.curvature_grams
        for where, prior in zip(self.structure.layout.blocks, grams, strict=True):
            gram[where, where] += prior
        if damping:
            index = np.arange(rows.shape[1])
            rows[:, index, index] *= 1.0 + damping
            gram[np.diag_indices_from(gram)] *= 1.0 + damping
        coupled = self.coupled("majorizer")
        return SpanArrowMatrix(
            rows=rows, features=features, jacobians=jacobians,
            span=self.span, gram=gram,
            border_columns=np.sqrt(self.gauge.weight) * (self.gauge.columns @ self.span),
            scale=1.0 if self.precision is None else self.precision,
            heads=coupled.heads, tails=coupled.tails, edges=coupled.edges, dense_border=border,
            columns=coupled.columns, core=coupled.core, carried=self.structure.carried,
            met=_met(self.structure),
        )

    def factorize(self, damping: float = 0.0) -> SpanFactor:
        """Factor of H + damping * diag(H)."""
        return self.curvature(damping).factorize() if damping else self._factor

    @cached_property
    def _factor(self) -> SpanFactor:
        return self.curvature().factorize()

    @property
    def factor_is_costly(self) -> bool:
        """Whether the border inside the span is large."""
        return self.theta.beta.shape[0] * self.span.shape[1] >= COSTLY_BORDER

    def hvp(self, v: Theta) -> Theta:
        """Exact Hessian of F, plus the gauge terms, times a vector."""
        vx = self.lift(v.xi)
        rows, border = self.loss_hvp(vx, v.beta)
        rows = self.restrict(rows + self.row_prior.hvp(vx))
        border += self.decoder_prior.hvp(v.beta) + self.gauge.apply(v.beta)
        return Theta(rows + ~self.structure.carried * v.xi, border)

    # --- log-determinant -----------------------------------------------------------------------

    def half_logdet(self, curvature: Curvature = "majorizer") -> LogDeterminant:
        """(1/2) log|H| with the gauge volume, less g of `scale`, and its explicit gradients.

        With what Laplace's method misses of the rows; "exact" is the textbook's, without.
        """
        data = self._majorizer_trace() if curvature == "majorizer" else exact_trace(self)
        gauge_value, gauge_gradient = self.gauge.volume()
        blocks = self.lift_blocks(data.rows)
        if curvature == "majorizer":
            blocks = blocks + 2.0 * self.remainder.curvature[:, :, None] * np.eye(blocks.shape[1])
        rows = self.row_prior.half_trace_gradients(
            curvature, blocks, self.lift_blocks(data.edges), self.lift_columns(data.columns))
        border = curvature, self._traces(data.border_trace), data.border
        decoders = self.decoder_prior.half_trace_gradients(*border)
        scales = self.decoder_prior.scale_trace_gradients(*border)
        gauge_beta, gauge_trace = self.gauge.half_trace(self.gauge.own(data.gauge_pull))
        grad_x, grad_rho = data.grad_x + rows[0], rows[1] + decoders[1] + scales[1]
        grad_beta = data.grad_beta + decoders[0] + scales[0] + gauge_gradient + gauge_beta
        correction, correction_beta, correction_rho = self.decoder_prior.scale_correction()
        grad_beta -= correction_beta
        grad_rho -= correction_rho
        edf = self.structure.n_carried - rows[2] - decoders[2] - scales[2] - gauge_trace
        if curvature == "majorizer":
            edf += 2.0 * self.remainder.scaling
            edf += 2.0 * sum(part.terms.scaling for part in self._outside.values())
            outside_beta, outside_rho = self.decoder_prior.gram_gradients(
                {k: part.terms.prior for k, part in self._outside.items()},
                {k: part.terms.scales for k, part in self._outside.items()},
                {k: part.terms.volume for k, part in self._outside.items()})
            grad_beta += outside_beta
            grad_rho += outside_rho
        # at the weights of its rows, every entry of the data part of H carries 1 / phi
        grad_rho[self.structure.outer.psi] += data.grad_psi
        if curvature == "majorizer" and (phi := self.structure.outer.dispersion) is not None:
            grad_rho[phi] -= 0.5 * edf
        value = data.half_logdet + gauge_value - correction
        if curvature == "majorizer":
            value += float(self.remainder.values.sum())
            value += sum(part.terms.value for part in self._outside.values())
            grad_x += self.row_prior.hvp(self.remainder.slope)
            grad_rho += self.row_prior.gradient_rho_dot(self.remainder.slope)
        if self.tail:
            value -= self._missing_scales.value
        return LogDeterminant(value, Theta(self.restrict(grad_x), grad_beta), grad_rho, edf)

    def _majorizer_trace(self) -> DataTrace:
        factor, inverse = self._factor, self._selected_inverse
        t, tau = self.lift(inverse.jac_cross), inverse.feature_cross
        grad_psi = np.zeros(len(self.psi))
        u = None
        missing = 2.0 * self.remainder.blocks
        for part in self._outside.values():
            missing[part.rows.where] += 2.0 * part.blocks
        if self.precision is None:
            t, tau, u, grad_psi = self._weighted_trace(factor, inverse, missing)
        else:
            by_gram = np.zeros_like(self.data_gram)
            by_weight = np.zeros(len(self.features))
            for k, part in self._outside.items():
                where = self.structure.layout.basis_slices[k]
                by_gram[where, where] += part.terms.data
                by_weight[part.rows.where] += part.by_weight
            if self.tail:
                by_gram -= self._missing_scales.data
            t, tau, u, grad_psi = self.row_trace(t, tau, missing, by_gram, by_weight)
            if self.tail:
                grad_psi = grad_psi - self._missing_scales.psi
        grad_x, grad_beta = self.pulled_back(t, tau, u)
        for k, part in self._outside.items():
            grad_x += self.outside_gradient(k, part)
        gauge_pull = factor.apply_border_inverse(self.gauge.columns)
        size = self.theta.beta.size
        border = (factor.border_inverse().reshape(size, size) if self.structure.has_dense_border
                  else np.zeros((0, 0)))
        return DataTrace(0.5 * factor.logdet(), inverse.rows + missing, inverse.edges,
                         inverse.columns, self._prior_trace, border, grad_x, grad_beta,
                         gauge_pull, grad_psi, by_mean=u)

    @cached_property
    def _outside(self) -> dict[int, OutsidePart]:
        """U of every atom whose border is a Kronecker product of independent rows."""
        structure, prior = self.structure, self.decoder_prior
        if self.precision is None or structure.couples_rows or structure.has_dense_border:
            return {}
        out = {}
        for k, where in enumerate(structure.layout.basis_slices):
            if structure.active[:, k].any():
                A = self.data_gram[where, where]
                out[k] = OutsidePart.of(
                    self.outside_rows(k), A, prior.grams[k], prior.volume_grams[k],
                    A + prior.curvature_grams[k], structure.shape[1])
        return out

    @property
    def _prior_trace(self) -> Array:
        """Twice the derivative in the priors (M, M) of (1/2) log|H| less what it has too much."""
        trace = self._selected_inverse.border_trace
        return trace - 2.0 * self._missing_scales.prior if self.tail else trace

    def _traces(self, border_trace: Array) -> list[Array]:
        """Blocks of a matrix (M, M) of the border, by the layout."""
        return [border_trace[where, where] for where in self.structure.layout.blocks]

    @cached_property
    def _missing_scales(self) -> MissingScales:
        return MissingScales.of(self.structure, self.psi, self.data_gram,
                                block_diag(*self.decoder_prior.curvature_grams))

    def _weighted_trace(
        self, factor: SpanFactor, inverse: SpanSelectedInverse, missing: Array
    ) -> tuple[Array, Array, Array, Array]:
        """Parts of the gradient of (1/2) tr(G H), where the weights differ between entries.

        With the joint Jacobian calJ_io = (j_io, phi_i) of an entry, T = G calJ w goes to the
        derivative of calJ, and the leverage calJ^T G calJ to that of w.

        Returns
        -------
        t (N, K + D, p), tau (N, M), u (N, p) with u = w' leverage / 2, and the gradient in psi
        """
        family, Z, phi = self.structure.family, self.structure.Z, self.features
        jacobian, weighted = self.own_jacobian, self.weighted_jacobian("majorizer")
        within = inverse.rows @ weighted
        cross = inverse.jac_cross - within  # G_ib (phi (x) I), for scale 1 and unit weights
        own = np.einsum("aobo->oab", factor.border_inverse())
        t = self.lift(within + missing @ weighted + cross * self.weight[:, None])
        tau = inverse.feature_cross - phi @ inverse.border_trace
        tau += output_products(self.weight, own, phi)
        leverage = np.einsum(
            "nao,nao->no", (inverse.rows + missing) @ jacobian + 2.0 * cross, jacobian)
        leverage += np.einsum("nm,omk,nk->no", phi, own, phi, optimize=True)
        u = 0.5 * family.weight(Z, self.eta, self.psi, 1) * leverage
        grad_psi = 0.5 * (family.weight_psi(Z, self.eta, self.psi) * leverage).sum((1, 2))
        return t, tau, u, grad_psi

    def exact_matrix(self) -> ArrowMatrix[Array]:
        """Exact Hessian plus the gauge terms, with dense coupling; rows that couple left out."""
        return exact_matrix(self)

    def decoder_posterior(self, k: int) -> tuple[float, Array]:
        """Effective degrees of freedom of decoder k, and its covariance for every output.

        Its p M_k coefficients less the trace of H^-1 times the curvature of its penalties, and
        (p, M_k, M_k), at its phase.
        """
        where = self.structure.layout.basis_slices[k]
        border_trace = self._selected_inverse.border_trace
        trace = float(np.vdot(self.decoder_prior.curvature_grams[k], border_trace[where, where]))
        p = self.structure.shape[1]
        if self.structure.has_dense_border:
            flat = slice(where.start * p, where.stop * p)
            size = self.theta.beta.size
            inverse = self._factor.border_inverse().reshape(size, size)[flat, flat]
            trace += float(np.vdot(self.decoder_prior.border("majorizer")[flat, flat], inverse))
        edf = (where.stop - where.start) * p - trace
        own = self.gauge.columns[self.gauge.of_atom(k)]
        pulled = self._factor.apply_border_inverse(own) if len(own) else own
        return edf, at_its_phase(self._factor.coefficient_covariance(where),
                                 own[:, where], pulled[:, where])

    def score_moments(self) -> Array:
        """Sums of E_i[s s^T / w] for the scores s = -dl/deta of rows in each metric, (G, p, p).

        Of Gaussian rows of weights w, at these decoders, to the first order about their modes.
        """
        assert self.precision is not None
        weight, structure = self.row_weight[:, None], self.structure
        jacobian, score = self.own_jacobian, self.score / np.sqrt(weight)
        spread = weight[:, :, None] * (self.row_inverse @ jacobian)
        r, out = jacobian.shape[2], []
        for metric in range(structure.noise.n_metrics):
            own = structure.metrics == metric
            within = jacobian[own].reshape(-1, r).T @ spread[own].reshape(-1, r)
            out.append(score[own].T @ score[own]
                       + self.precision**2 * self.span @ within @ self.span.T)
        return np.array(out)

    def row_variances(self) -> Array:
        """Posterior variances (N, q) of what rows carry, with those of the decoders."""
        return np.einsum("naa->na", self._selected_inverse.rows)

    @cached_property
    def _selected_inverse(self) -> SpanSelectedInverse:
        return self._factor.selected_inverse()

    def sparse_backend(self) -> str | None:
        """The sparse Cholesky that ran for penalties that couple rows; None where none did."""
        return self._factor.backend if self.structure.couples_rows else None

    def explained(self) -> float:
        """Share of the null deviance that the fit explains; of a Gaussian, of the variance."""
        return explained_share(self.structure, self.eta, self.row_weight, self.psi)

    @property
    def dispersion_energy(self) -> float:
        """Half the deviance over the dispersion, the part of F that carries 1 / phi."""
        family = self.structure.family
        deviance = family.deviance(self.structure.Z, self.eta, self.psi).sum()
        return 0.5 * float(deviance) / family.dispersion(self.psi)

    # --- outer parameters ------------------------------------------------------------------------

    def objective_rho(self) -> Array:
        """Gradient of F in rho at fixed theta, (n_rho,)."""
        out = self.row_prior.value_rho() + self.decoder_prior.value_rho()
        own = self.structure.family.loss_psi(self.structure.Z, self.eta, self.psi)
        out[self.structure.outer.psi] += own.sum((1, 2))
        return out

    def normalizer_in_objective_rho(self) -> Array:
        """What quadratic strengths have of their normaliser within F: its gradient, (n_rho,)."""
        return self.row_prior.quadratic_constant_rho()

    def gradient_rho_dot(self, u: Theta) -> Array:
        """Inner products of u with d grad F / d rho_m, (n_rho,)."""
        ux = self.lift(u.xi)
        out = self.row_prior.gradient_rho_dot(ux) + self.decoder_prior.gradient_rho_dot(u.beta)
        own = self.structure.family.loss_eta_psi(self.structure.Z, self.eta, self.psi, 1)
        out[self.structure.outer.psi] += np.einsum("jno,no->j", own, self.moved(ux, u.beta))
        return out

    def data_gradient(self, adjoint: Theta, curvature: Curvature) -> Array:
        """Gradient of V in the rows Z (N, p), of a Gaussian, given the adjoint of `criterion`."""
        moved = self.moved(self.lift(adjoint.xi), adjoint.beta)
        if curvature == "exact":
            bend = exact_trace(self).bend
            assert bend is not None
            moved -= bend
        return self.data_slope(moved, self._majorizer_trace().by_mean if self.tail else None)

    def precision_gradient(
        self, adjoint: Theta, curvature: Curvature
    ) -> tuple[Array, Array]:
        """Gradients (K,) of V in the logs of the precisions of curves and of centres."""
        trace = exact_trace(self).border_trace if curvature == "exact" else self._prior_trace
        outside = {k: part.terms.prior for k, part in self._outside.items()
                   if curvature == "majorizer"}
        return self.decoder_prior.precision_gradient(self._traces(trace), adjoint.beta, outside)

    def log_normalizer(self) -> tuple[float, Array]:
        """Log partitions of all priors, less the log number of equal modes; gradient in rho."""
        rows, decoders = self.row_prior.log_partition(), self.decoder_prior.log_partition()
        return rows[0] + decoders[0] - self.structure.log_multiplicity, rows[1] + decoders[1]


def _met(structure: SAEStructure) -> Mask | None:
    """Which rows of the decoders (N, M) a row can meet under hard gates; None elsewhere."""
    if not structure.assignment.chooses_support:
        return None
    own = np.repeat(structure.is_open, [atom.basis_size for atom in structure.atoms], axis=1)
    return np.column_stack([own, *[np.ones(len(own), bool)] * structure.layout.has_intercept])


def explained_share(structure: SAEStructure, eta: Array, weight: Array, psi: Array) -> float:
    """Share of the null deviance that predictors eta (N, p) explain; of a Gaussian, of variance.

    Rows of unequal scale are taken at the weights (N,) that the fit gives them.
    """
    family = structure.family
    Z, offset = structure.coloured, np.broadcast_to(structure.offset, eta.shape)
    eta, offset = (structure.noise.colour_rows(part, structure.metrics) for part in (eta, offset))
    if family.tail(psi, structure.shape[1]):
        null, left = (float(weight @ ((Z - mean) ** 2).sum(axis=1)) for mean in (offset, eta))
    else:
        null = float(family.deviance(Z, offset, psi).sum())
        left = float(family.deviance(Z, eta, psi).sum())
    return 1.0 - left / null if null else 0.0
