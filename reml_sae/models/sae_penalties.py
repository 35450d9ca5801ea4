"""All penalties of an SAE-manifold at one (theta, rho): their part of F and of its derivatives.

Row arrays are in the full local parameters x = (z_1 .. z_K, t_1 .. t_D) of `mixture`, and beta is
(M, p). Edges and low-rank columns touch coordinates alone, which the chart leaves as they are. The
chart's Jacobian, which belongs to the prior on the simplex, is counted here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from reml_sae.models._protocol import Curvature, Theta
from reml_sae.models.terms import PenaltyTerm
from reml_sae.penalties import MatrixPenalty, RowCurvature, RowInverse

if TYPE_CHECKING:
    from reml_sae.models.sae import SAEManifoldModel

Array = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class Bound:
    """A term with its target at one state.

    Attributes
    ----------
    term : PenaltyTerm
    target : array
        As the penalty takes it: (n, d) rows, or the decoder (M_k, p).
    rho : (rho_count,) array
    rows : (n,) rows that carry it; empty for decoders
    columns : slice
        Columns of x, or rows of beta.
    """

    term: PenaltyTerm
    target: Array
    rho: Array
    rows: Index
    columns: slice

    @property
    def penalty(self) -> MatrixPenalty:
        """The term's penalty."""
        penalty: MatrixPenalty = self.term.penalty
        return penalty

    def curvature(self, which: Curvature) -> RowCurvature:
        """Curvature of the penalty at the target."""
        return self.penalty.curvature(self.target, self.rho, which)


@dataclass(frozen=True)
class CoupledRows:
    """Penalty curvature between rows, in full local parameters.

    Attributes
    ----------
    heads, tails : (e,) rows that an edge couples
    edges : (e, q, q) blocks between them
    columns : (c, N, q) low-rank columns
    core : (c, c)
    """

    heads: Index
    tails: Index
    edges: Array
    columns: Array
    core: Array


class PenaltyPoint:
    """The penalties at one state.

    Parameters
    ----------
    model : SAEManifoldModel
    theta : Theta
    rho : (n_rho,) array
    log_a : (N, K) log assignments
    """

    def __init__(self, model: SAEManifoldModel, theta: Theta, rho: Array, log_a: Array):
        self.model, self.rho = model, rho
        self.a, self.log_a = np.exp(log_a), log_a
        self.beta = theta.beta
        self.width = model.chart.n_atoms + model.layout.n_coordinates
        self.grams = model.decoder_gram(rho)
        self.on_rows = [bind_rows(model, term, theta, rho) for term in model.row_terms]
        self.on_decoders = [self._bind_decoder(term) for term in model.terms
                            if term.target in ("decoder", "decoders")
                            and not term.is_quadratic_decoder]
        self._parts: dict[Curvature, tuple[list[RowCurvature], list[RowCurvature]]] = {}

    def _bind_decoder(self, term: PenaltyTerm) -> Bound:
        where = (slice(0, len(self.beta)) if term.target == "decoders"
                 else self.model.layout.basis_slices[term.atom])
        return Bound(term, self.beta[where], term.rho(self.rho), np.zeros(0, np.intp), where)

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
                    for bound in (*self.on_rows, *self.on_decoders))
        total += 0.5 * float(np.vdot(self.beta, self.apply_grams(self.beta)))
        if self.model.chart.dim:
            total += float(self.model.chart.log_jacobian(self.log_a).sum())
        return total

    def gradient(self) -> tuple[Array, Array]:
        """Gradient in x (N, K + D) and in beta (M, p)."""
        rows = np.zeros((len(self.a), self.width))
        if self.model.chart.dim:
            rows[:, : self.model.chart.n_atoms] = self.model.chart.log_jacobian_gradient(self.a)
        for bound in self.on_rows:
            rows[bound.rows, bound.columns] += bound.penalty.row_gradient(bound.target, bound.rho)
        beta = self.apply_grams(self.beta)
        for bound in self.on_decoders:
            gradient = bound.penalty.grad_target(bound.target, bound.rho)
            beta[bound.columns] += gradient.reshape(bound.target.shape)
        return rows, beta

    def apply_grams(self, beta: Array) -> Array:
        """Quadratic priors of the decoders times (M, p)."""
        out = np.empty_like(beta)
        for where, prior in zip(self.model.layout.basis_slices, self.grams, strict=True):
            out[where] = prior @ beta[where]
        return out

    # --- curvature ---------------------------------------------------------------------------

    def row_blocks(self, which: Curvature) -> Array:
        """Row blocks of the curvature, (N, K + D, K + D)."""
        k = self.model.chart.n_atoms
        blocks = np.zeros((len(self.a), self.width, self.width))
        if self.model.chart.dim:
            blocks[:, :k, :k] = self.model.chart.log_jacobian_hessian(self.a)
        for bound, parts in zip(self.on_rows, self._curvature(which)[0], strict=True):
            blocks[bound.rows, bound.columns, bound.columns] += parts.blocks
        return blocks

    def coupled_rows(self, which: Curvature) -> CoupledRows:
        """What couples the rows."""
        heads, tails, edges, columns, cores = [], [], [], [], [np.zeros((0, 0))]
        for bound, parts in zip(self.on_rows, self._curvature(which)[0], strict=True):
            if len(parts.edges):
                block = np.zeros((len(parts.edges), self.width, self.width))
                block[:, bound.columns, bound.columns] = parts.edges
                heads.append(bound.rows[parts.heads])
                tails.append(bound.rows[parts.tails])
                edges.append(block)
            if len(parts.columns):
                column = np.zeros((len(parts.columns), len(self.a), self.width))
                column[:, bound.rows, bound.columns] = parts.columns
                columns.append(column)
                cores.append(parts.core)
        none = np.zeros(0, np.intp)
        return CoupledRows(
            np.concatenate([none, *heads]), np.concatenate([none, *tails]),
            np.concatenate([np.zeros((0, self.width, self.width)), *edges]),
            np.concatenate([np.zeros((0, len(self.a), self.width)), *columns]), block_diag(*cores),
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
        flat = np.arange(self.beta.size, dtype=float).reshape(self.beta.shape)[bound.columns]
        return bound.penalty.rows(flat).ravel().astype(np.intp)

    def hvp(self, vx: Array, vb: Array) -> tuple[Array, Array]:
        """Exact Hessian times vx (N, K + D) and vb (M, p)."""
        rows = np.zeros_like(vx)
        k = self.model.chart.n_atoms
        if self.model.chart.dim:
            rows[:, :k] = np.einsum("nab,nb->na", self._jacobian_hessian(), vx[:, :k])
        row_parts, decoder_parts = self._curvature("exact")
        for bound, parts in zip(self.on_rows, row_parts, strict=True):
            rows[bound.rows, bound.columns] += parts.matvec(vx[bound.rows, bound.columns])
        beta = self.apply_grams(vb)
        for bound, parts in zip(self.on_decoders, decoder_parts, strict=True):
            product = parts.matvec(bound.penalty.rows(vb[bound.columns]))
            beta[bound.columns] += bound.penalty.flat(product).reshape(bound.target.shape)
        return rows, beta

    def _jacobian_hessian(self) -> Array:
        return self.model.chart.log_jacobian_hessian(self.a)

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
        k = self.model.chart.n_atoms
        grad_x, grad_rho = np.zeros((len(self.a), self.width)), np.zeros(len(self.rho))
        grad_beta = np.zeros_like(self.beta)
        trace = 0.0
        if self.model.chart.dim:
            wz = blocks[:, :k, :k]
            grad_x[:, :k] += 0.5 * self.model.chart.log_jacobian_hessian_vjp(self.a, wz)
            trace += float(np.vdot(wz, self._jacobian_hessian()))
        first_edge = first_column = 0
        row_parts, decoder_parts = self._curvature(which)
        for bound, parts in zip(self.on_rows, row_parts, strict=True):
            last_edge = first_edge + len(parts.edges)
            last_column = first_column + len(parts.columns)
            where = bound.columns
            G = RowInverse(blocks[bound.rows, where, where],
                           edges[first_edge:last_edge, where, where],
                           columns[first_column:last_column][:, bound.rows, where])
            first_edge, first_column = last_edge, last_column
            arguments = (bound.target, bound.rho, G, which)
            grad_x[bound.rows, where] += 0.5 * bound.penalty.curvature_vjp(*arguments)
            grad_rho[bound.term.where] += 0.5 * bound.penalty.curvature_rho(*arguments)
            trace += G.inner(parts)
        for bound, parts in zip(self.on_decoders, decoder_parts, strict=True):
            index = self._border_index(bound)
            G = RowInverse.of_dense(border[np.ix_(index, index)], parts)
            arguments = (bound.target, bound.rho, G, which)
            pulled = bound.penalty.flat(bound.penalty.curvature_vjp(*arguments))
            grad_beta[bound.columns] += 0.5 * pulled.reshape(bound.target.shape)
            grad_rho[bound.term.where] += 0.5 * bound.penalty.curvature_rho(*arguments)
            trace += G.inner(parts)
        for term, where, derivative in self._gram_derivatives():
            grad_rho[term.where] += 0.5 * np.einsum(
                "jab,ab->j", derivative, border_trace[where, where])
        for where, prior in zip(self.model.layout.basis_slices, self.grams, strict=True):
            trace += float(np.vdot(prior, border_trace[where, where]))
        return grad_x, grad_beta, grad_rho, trace

    def _gram_derivatives(self) -> list[tuple[PenaltyTerm, slice, Array]]:
        """Every quadratic decoder term with its rows of beta and d gram / d rho."""
        return [(term, self.model.layout.basis_slices[term.atom],
                 term.penalty.gram_rho(term.rho(self.rho)))
                for term in self.model.terms if term.is_quadratic_decoder]

    # --- outer parameters ----------------------------------------------------------------------

    def value_rho(self) -> Array:
        """Gradient of the value in rho at fixed theta, (n_rho,)."""
        out = np.zeros(len(self.rho))
        for bound in (*self.on_rows, *self.on_decoders):
            out[bound.term.where] += bound.penalty.grad_rho(bound.target, bound.rho)
        for term, where, derivative in self._gram_derivatives():
            b = self.beta[where]
            out[term.where] += 0.5 * np.einsum("jab,ab->j", derivative, b @ b.T)
        return out

    def gradient_rho_dot(self, ux: Array, ub: Array) -> Array:
        """Inner products of (ux, ub) with the mixed derivatives d gradient / d rho, (n_rho,)."""
        out = np.zeros(len(self.rho))
        for bound in self.on_rows:
            mixed = bound.penalty.grad_target_rho(bound.target, bound.rho)
            out[bound.term.where] += np.einsum("jna,na->j", mixed, ux[bound.rows, bound.columns])
        for bound in self.on_decoders:
            mixed = bound.penalty.grad_target_rho(bound.target, bound.rho)
            out[bound.term.where] += np.einsum(
                "jna,na->j", mixed, bound.penalty.rows(ub[bound.columns]))
        for term, where, derivative in self._gram_derivatives():
            out[term.where] += np.einsum("jab,ab->j", derivative, ub[where] @ self.beta[where].T)
        return out

    def log_normalizer(self) -> tuple[float, Array]:
        """Log partitions of all priors and their gradient in rho."""
        model, (n, p) = self.model, self.model.shape
        gradient, value = np.zeros(len(self.rho)), 0.0
        for bound in (*self.on_rows, *self.on_decoders):
            partition = bound.penalty.log_partition(
                bound.rho, len(bound.penalty.rows(bound.target)))
            if partition is not None:
                value += partition[0]
                gradient[bound.term.where] += partition[1]
        on_simplex = any(bound.term.target == "logits" and bound.penalty.is_normalised
                         for bound in self.on_rows)
        if model.chart.dim and not on_simplex:
            value -= n * float(np.sum(np.log(np.arange(1, model.chart.n_atoms))))
        for k, atom in enumerate(model.atoms):
            if atom.prior_precision == 0:
                value += int(model.active[:, k].sum()) * atom.log_prior_volume()
            if model.has_gaussian_decoder[k]:
                prior = self.grams[k]
                value += 0.5 * p * (len(prior) * np.log(2.0 * np.pi) - np.linalg.slogdet(prior)[1])
        for term, _, derivative in self._gram_derivatives():
            inverse = np.linalg.inv(self.grams[term.atom])
            gradient[term.where] -= 0.5 * p * np.einsum("jab,ba->j", derivative, inverse)
        return float(value), gradient


def bind_rows(model: SAEManifoldModel, term: PenaltyTerm, theta: Theta, rho: Array) -> Bound:
    """A term on logits or coordinates with its target at a state."""
    if term.target == "logits":
        target = model.chart.logits(theta.xi[:, : model.chart.dim])
        return Bound(term, target, term.rho(rho), np.arange(len(target)),
                     slice(0, model.chart.n_atoms))
    rows = np.flatnonzero(model.active[:, term.atom])
    where = model.layout.coordinate_slices[term.atom]
    return Bound(model.restricted(term, rows), theta.xi[rows, model.coordinate_columns(term.atom)],
                 term.rho(rho), rows,
                 slice(model.chart.n_atoms + where.start, model.chart.n_atoms + where.stop))
