"""All penalties of an SAE-manifold at one (theta, rho): their part of F and of its derivatives.

Row arrays are in the full local parameters x = (z_1 .. z_K, t_1 .. t_D) of `mixture`, and beta is
(M, p). Edges and low-rank columns touch coordinates alone, which the chart leaves as they are. The
manifolds' own priors and the chart's Jacobian, which belongs to the prior on the simplex, are
counted here too.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import block_diag

from reml_sae.assignments._base import Amplitudes
from reml_sae.engine.protocol import Curvature, Theta
from reml_sae.models.sae.bound import (
    NOWHERE,
    Bound,
    CoupledRows,
    ManifoldPrior,
    bind_gates,
    bind_rows,
    manifold_priors,
)
from reml_sae.models.sae.scale import Scale, scale_terms
from reml_sae.models.sae.terms import PenaltyTerm
from reml_sae.penalties import RowCurvature, RowInverse
from reml_sae.typing import Array, Index

if TYPE_CHECKING:
    from reml_sae.models.sae.model import SAEManifoldModel


class PenaltyPoint:
    """The penalties at one state.

    Parameters
    ----------
    model : SAEManifoldModel
    theta : Theta
    rho : (n_rho,) array
    amplitudes : Amplitudes
    gated : SAEManifoldModel, optional
        Whose pattern of open gates has the prior, where the model itself is of none of its rows.
    """

    def __init__(
        self, model: SAEManifoldModel, theta: Theta, rho: Array, amplitudes: Amplitudes,
        gated: SAEManifoldModel | None = None,
    ):
        self.model, self.rho, self.amplitudes = model, rho, amplitudes
        self.theta, self.beta = theta, theta.beta
        self.n, self.k_atoms = amplitudes.a.shape
        self.width = self.k_atoms + model.layout.n_coordinates
        self.grams = model.decoder_gram(rho)
        self.on_rows = [bind_rows(model, term, theta, rho) for term in model.row_terms]
        self.on_decoders = [self._bind_decoder(term) for term in model.terms
                            if term.target in ("decoder", "decoders")
                            and not term.is_quadratic_decoder]
        self.on_gates = [bind_gates(gated or model, term, rho) for term in model.terms
                         if term.target == "gates"]
        self.scales = self._scales()
        self._parts: dict[Curvature, tuple[list[RowCurvature], list[RowCurvature]]] = {}

    def _bind_decoder(self, term: PenaltyTerm) -> Bound:
        slices = self.model.layout.basis_slices
        where = (slice(0, slices[-1].stop) if term.target == "decoders"
                 else slices[term.atom])
        return Bound(term, self.beta[where], term.rho(self.rho), NOWHERE, NOWHERE, where)

    def _scales(self) -> list[tuple[slice, Scale]]:
        """Every decoder whose coordinates are those of independent rows, and g there."""
        out, floor = [], self.model.scale_floor(self.rho)
        for k, (atom, where) in enumerate(zip(self.model.atoms, self.model.layout.basis_slices,
                                              strict=True)):
            n = float(self.model.active[:, k].sum())
            if n and not self.model.always_carried[k]:
                out += [(where, Scale(w * n, C, self.beta[where], P, floor))
                        for w, C, P in scale_terms(atom)]
        return out

    def scale_correction(self) -> tuple[float, Array, Array]:
        """The sum of g over atoms, its gradient in beta (M, p) and in rho (n_rho,)."""
        beta = np.zeros_like(self.beta)
        for where, scale in self.scales:
            beta[where] += scale.gradient()
        return sum(scale.value() for _, scale in self.scales), beta, self._scale_rho()

    def _scale_rho(self) -> Array:
        """Gradient of the sum of g in rho, (n_rho,)."""
        out = np.zeros(len(self.rho))
        if self.model.family.has_dispersion:
            out[-1] = sum(scale.value_rho() for _, scale in self.scales)
        return out

    def curvature_grams(self) -> list[Array]:
        """Parts of the border that are the same for every output, block by block."""
        grams = list(self.grams)
        for k, block in enumerate(self.model.layout.blocks):
            for where, scale in self.scales:
                if where == block:
                    grams[k] = grams[k] + scale.gram
        return grams

    @cached_property
    def _priors(self) -> list[ManifoldPrior]:
        """The manifolds' priors with their derivatives to order 3."""
        return manifold_priors(self.model, self.theta, 3)

    def _curvature(self, which: Curvature) -> tuple[list[RowCurvature], list[RowCurvature]]:
        """Curvatures of the terms on rows and of those on decoders, computed once."""
        if which not in self._parts:
            self._parts[which] = ([bound.curvature(which) for bound in self.on_rows],
                                  [bound.curvature(which) for bound in self.on_decoders])
        return self._parts[which]

    # --- value and gradient ------------------------------------------------------------------

    def value(self) -> float:
        """All penalties and the chart's Jacobian."""
        total = sum(bound.penalty.value(bound.target, bound.rho)
                    for bound in (*self.on_rows, *self.on_decoders, *self.on_gates))
        total += 0.5 * float(np.vdot(self.beta, self.apply_grams(self.beta)))
        total += sum(scale.value() for _, scale in self.scales)
        total += sum(float(prior.jet[0].sum())
                     for prior in manifold_priors(self.model, self.theta, 0))
        return total + float(self.amplitudes.log_jacobian().sum())

    def gradient(self) -> tuple[Array, Array]:
        """Gradient in x (N, K + D) and in beta (M, p)."""
        rows = np.zeros((self.n, self.width))
        rows[:, : self.k_atoms] = self.amplitudes.log_jacobian_gradient()
        for prior in self._priors:
            rows[prior.rows, prior.columns] += prior.jet[1]
        for bound in self.on_rows:
            rows[bound.at] += bound.penalty.row_gradient(bound.target, bound.rho)
        beta = self.apply_grams(self.beta)
        for where, scale in self.scales:
            beta[where] += scale.gradient()
        for bound in self.on_decoders:
            gradient = bound.penalty.grad_target(bound.target, bound.rho)
            beta[bound.where] += gradient.reshape(bound.target.shape)
        return rows, beta

    def apply_grams(self, beta: Array) -> Array:
        """Quadratic priors of the decoders times (M, p)."""
        out = np.empty_like(beta)
        for where, prior in zip(self.model.layout.blocks, self.grams, strict=True):
            out[where] = prior @ beta[where]
        return out

    # --- curvature ---------------------------------------------------------------------------

    def row_blocks(self, which: Curvature) -> Array:
        """Row blocks of the curvature, (N, K + D, K + D)."""
        k = self.k_atoms
        blocks = np.zeros((self.n, self.width, self.width))
        blocks[:, :k, :k] = self.amplitudes.log_jacobian_hessian()
        for prior in self._priors:
            blocks[prior.rows, prior.columns, prior.columns] += prior.jet[2]
        for bound, parts in zip(self.on_rows, self._curvature(which)[0], strict=True):
            blocks[bound.pairs] += parts.blocks
        return blocks

    def coupled_rows(self, which: Curvature) -> CoupledRows:
        """What couples the rows."""
        heads, tails, edges, columns, cores = [], [], [], [], [np.zeros((0, 0))]
        for bound, parts in zip(self.on_rows, self._curvature(which)[0], strict=True):
            if len(parts.edges):
                block = np.zeros((len(parts.edges), self.width, self.width))
                block[np.ix_(np.arange(len(block)), bound.columns[0], bound.columns[0])] = (
                    parts.edges)
                heads.append(bound.rows[parts.heads])
                tails.append(bound.rows[parts.tails])
                edges.append(block)
            if len(parts.columns):
                column = np.zeros((len(parts.columns), self.n, self.width))
                column[(slice(None), *bound.at)] = parts.columns
                columns.append(column)
                cores.append(parts.core)
        none = np.zeros(0, np.intp)
        return CoupledRows(
            np.concatenate([none, *heads]), np.concatenate([none, *tails]),
            np.concatenate([np.zeros((0, self.width, self.width)), *edges]),
            np.concatenate([np.zeros((0, self.n, self.width)), *columns]), block_diag(*cores),
        )

    def border(self, which: Curvature) -> Array:
        """Dense part of the border, (M p, M p), or of size 0 where the model has none."""
        if not self.model.has_dense_border:
            return np.zeros((0, 0))
        out = np.zeros((self.beta.size, self.beta.size))
        for bound, parts in zip(self.on_decoders, self._curvature(which)[1], strict=True):
            index = self._border_index(bound)
            out[np.ix_(index, index)] += parts.to_dense()
        return out

    def _border_index(self, bound: Bound) -> Index:
        """Places in the flat beta of the entries of the penalty's matrix view, in its order."""
        flat = np.arange(self.beta.size, dtype=float).reshape(self.beta.shape)[bound.where]
        return bound.penalty.rows(flat).ravel().astype(np.intp)

    def hvp(self, vx: Array, vb: Array) -> tuple[Array, Array]:
        """Exact Hessian times vx (N, K + D) and vb (M, p)."""
        rows = np.zeros_like(vx)
        k = self.k_atoms
        rows[:, :k] = np.einsum(
            "nab,nb->na", self.amplitudes.log_jacobian_hessian(), vx[:, :k])
        for prior in self._priors:
            rows[prior.rows, prior.columns] += np.einsum(
                "nab,nb->na", prior.jet[2], vx[prior.rows, prior.columns])
        row_parts, decoder_parts = self._curvature("exact")
        for bound, parts in zip(self.on_rows, row_parts, strict=True):
            rows[bound.at] += parts.matvec(vx[bound.at])
        beta = self.apply_grams(vb)
        for where, scale in self.scales:
            beta[where] += scale.hvp(vb[where])
        for bound, parts in zip(self.on_decoders, decoder_parts, strict=True):
            product = parts.matvec(bound.penalty.rows(vb[bound.where]))
            beta[bound.where] += bound.penalty.flat(product).reshape(bound.target.shape)
        return rows, beta

    # --- derivatives of (1/2) <G, H> at fixed G ------------------------------------------------

    def half_trace_gradients(
        self, which: Curvature, blocks: Array, edges: Array, columns: Array,
        border_trace: Array, border: Array,
    ) -> tuple[Array, Array, Array, float]:
        """Gradients of half the trace of G times the penalties' curvature.

        Parameters
        ----------
        which : "majorizer" or "exact"
        blocks : (N, K + D, K + D) row blocks of G
        edges : (e, K + D, K + D) blocks of G on the edges of `coupled_rows`
        columns : (c, N, K + D) G U for its low-rank columns U
        border_trace : (M, M) border of G, traced over outputs
        border : (M p, M p) border of G; read where a dense part is

        Returns
        -------
        grad_x (N, K + D), grad_beta (M, p), grad_rho (n_rho,), and the whole trace
        """
        k = self.k_atoms
        grad_x, grad_rho = np.zeros((self.n, self.width)), np.zeros(len(self.rho))
        grad_beta = np.zeros_like(self.beta)
        wz = blocks[:, :k, :k]
        grad_x[:, :k] += 0.5 * self.amplitudes.log_jacobian_hessian_vjp(wz)
        trace = float(np.vdot(wz, self.amplitudes.log_jacobian_hessian()))
        for prior in self._priors:
            inside = blocks[prior.rows, prior.columns, prior.columns]
            grad_x[prior.rows, prior.columns] += 0.5 * np.einsum(
                "nab,nabc->nc", inside, prior.jet[3])
            trace += float(np.vdot(inside, prior.jet[2]))
        first_edge = first_column = 0
        row_parts, decoder_parts = self._curvature(which)
        for bound, parts in zip(self.on_rows, row_parts, strict=True):
            last_edge = first_edge + len(parts.edges)
            last_column = first_column + len(parts.columns)
            across = bound.columns[0] if len(bound.rows) else NOWHERE
            G = RowInverse(blocks[bound.pairs],
                           edges[np.ix_(np.arange(first_edge, last_edge), across, across)],
                           columns[first_column:last_column][(slice(None), *bound.at)])
            first_edge, first_column = last_edge, last_column
            arguments = (bound.target, bound.rho, G, which)
            grad_x[bound.at] += 0.5 * bound.penalty.curvature_vjp(*arguments)
            grad_rho[bound.term.where] += 0.5 * bound.penalty.curvature_rho(*arguments)
            trace += G.inner(parts)
        for bound, parts in zip(self.on_decoders, decoder_parts, strict=True):
            index = self._border_index(bound)
            G = RowInverse.of_dense(border[np.ix_(index, index)], parts)
            arguments = (bound.target, bound.rho, G, which)
            pulled = bound.penalty.flat(bound.penalty.curvature_vjp(*arguments))
            grad_beta[bound.where] += 0.5 * pulled.reshape(bound.target.shape)
            grad_rho[bound.term.where] += 0.5 * bound.penalty.curvature_rho(*arguments)
            trace += G.inner(parts)
        trace += self._scale_trace(which, border_trace, border, grad_beta, grad_rho)
        for term, where, derivative in self._gram_derivatives():
            grad_rho[term.where] += 0.5 * np.einsum(
                "jab,ab->j", derivative, border_trace[where, where])
        for where, gram in zip(self.model.layout.blocks, self.grams, strict=True):
            trace += float(np.vdot(gram, border_trace[where, where]))
        return grad_x, grad_beta, grad_rho, trace

    def _scale_trace(
        self, which: Curvature, border_trace: Array, border: Array, grad_beta: Array,
        grad_rho: Array,
    ) -> float:
        """Trace of G times the curvature of g; half its gradients are added in place."""
        total, p = 0.0, self.beta.shape[1]
        for where, scale in self.scales:
            if which == "majorizer":
                own = border_trace[where, where]
                total += float(np.vdot(scale.gram, own))
                grad_beta[where] += 0.5 * scale.gram_pull(own)
                along = float(np.vdot(scale.gram_rho(), own))
            else:
                flat = slice(where.start * p, where.stop * p)
                own = border[flat, flat]
                total += float(np.vdot(scale.dense(), own))
                grad_beta[where] += 0.5 * scale.dense_pull(own)
                along = scale.dense_rho(own)
            if self.model.family.has_dispersion:
                grad_rho[-1] += 0.5 * along
        return total

    def _gram_derivatives(self) -> list[tuple[PenaltyTerm, slice, Array]]:
        """Every quadratic decoder term with its rows of beta and d gram / d rho."""
        return [(term, self.model.layout.basis_slices[term.atom],
                 term.penalty.gram_rho(term.rho(self.rho)))
                for term in self.model.terms if term.is_quadratic_decoder]

    # --- outer parameters ----------------------------------------------------------------------

    def value_rho(self) -> Array:
        """Gradient of the value in rho at fixed theta, (n_rho,)."""
        out = np.zeros(len(self.rho))
        for bound in (*self.on_rows, *self.on_decoders, *self.on_gates):
            out[bound.term.where] += bound.penalty.grad_rho(bound.target, bound.rho)
        out += self._scale_rho()
        for term, where, derivative in self._gram_derivatives():
            b = self.beta[where]
            out[term.where] += 0.5 * np.einsum("jab,ab->j", derivative, b @ b.T)
        return out

    def quadratic_constant_rho(self) -> Array:
        """Gradient in rho of what quadratic penalties of rows are at a target of zero, (n_rho,)."""
        out = np.zeros(len(self.rho))
        for bound in self.on_rows:
            if bound.penalty.is_quadratic:
                out[bound.term.where] += bound.penalty.grad_rho(
                    np.zeros_like(bound.target), bound.rho)
        return out

    def gradient_rho_dot(self, ux: Array, ub: Array) -> Array:
        """Inner products of (ux, ub) with the mixed derivatives d gradient / d rho, (n_rho,)."""
        out = np.zeros(len(self.rho))
        for bound in self.on_rows:
            mixed = bound.penalty.grad_target_rho(bound.target, bound.rho)
            out[bound.term.where] += np.einsum("jna,na->j", mixed, ux[bound.at])
        for bound in self.on_decoders:
            mixed = bound.penalty.grad_target_rho(bound.target, bound.rho)
            out[bound.term.where] += np.einsum(
                "jna,na->j", mixed, bound.penalty.rows(ub[bound.where]))
        for where, scale in self.scales:
            if self.model.family.has_dispersion:
                out[-1] += float(np.vdot(scale.gradient_rho(), ub[where]))
        for term, where, derivative in self._gram_derivatives():
            out[term.where] += np.einsum("jab,ab->j", derivative, ub[where] @ self.beta[where].T)
        return out

    def log_normalizer(self) -> tuple[float, Array]:
        """Log partitions of all priors and their gradient in rho."""
        model, (n, p) = self.model, self.model.shape
        gradient, value = np.zeros(len(self.rho)), 0.0
        for bound in (*self.on_rows, *self.on_decoders, *self.on_gates):
            partition = bound.penalty.log_partition(
                bound.rho, len(bound.penalty.rows(bound.target)))
            if partition is not None:
                value += partition[0]
                gradient[bound.term.where] += partition[1]
        for bound in self.on_rows:
            if bound.term.target == "amplitudes":
                cost, slope = model.assignment.shut_cost(
                    float(bound.penalty.strengths(bound.rho)[0]))
                shut = int(model.assignment.shut(model.logits(self.theta), model.active)[
                    :, bound.term.atom].sum())
                value += shut * cost
                gradient[bound.term.where] += shut * slope
        if not any(bound.term.target == "logits" and bound.penalty.is_normalised
                   for bound in self.on_rows):
            value += n * model.assignment.log_volume()
        value += n * model.assignment.log_patterns()
        value -= float(model.assignment.shut_gain(model.active).sum())
        for k, atom in enumerate(model.atoms):
            if model.has_manifold_prior[k]:
                value += int(model.active[:, k].sum()) * atom.log_prior_volume()
        for prior, gaussian in zip(self.grams, [*model.has_gaussian_decoder, True], strict=False):
            if gaussian:
                value += 0.5 * p * (len(prior) * np.log(2.0 * np.pi) - np.linalg.slogdet(prior)[1])
        for term, _, derivative in self._gram_derivatives():
            inverse = np.linalg.inv(self.grams[term.atom])
            gradient[term.where] -= 0.5 * p * np.einsum("jab,ba->j", derivative, inverse)
        return float(value), gradient
