"""The SAE-manifold's objective at one (theta, rho): its value, gradient and row curvature.

Notation of DESIGN A3: phi_i the scaled basis, j_i the row Jacobian in span coordinates, Q the
orthonormal basis of the decoders' row span. A family with one weight w_i / dispersion for all
entries of a row keeps the border a Kronecker product, reduced to the span, of rows that are scaled
by the root of w_i; another one has a border that is dense, and the span is then the whole space.
All row arrays are built in the full local parameters x = (z, t) of `mixture` and then restricted to
the chart.

Where every row uses one atom the same formulas hold for that atom's decoder and the intercept
alone, in the span of that decoder (`single`): what a row meets of the decoders is the `incidence`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from reml_sae.engine.protocol import Theta
from reml_sae.linalg import Incidence, MeetsAll, PackedRows
from reml_sae.models.sae.bound import CoupledRows
from reml_sae.models.sae.decoder_prior import DecoderPrior
from reml_sae.models.sae.gauge import Gauge, used_symmetries
from reml_sae.models.sae.outside import OutsidePart, OutsideRows, compact_axes
from reml_sae.models.sae.remainder import Remainder
from reml_sae.models.sae.row_prior import RowPrior
from reml_sae.models.sae.structure import SAEStructure
from reml_sae.typing import Array, Curvature


def _with_head(matrix: Array, rows: Array) -> Array:
    """Rows (N, b + D, ..) whose first b entries are multiplied by a matrix (a, b)."""
    a, b = matrix.shape
    out = np.empty((len(rows), a + rows.shape[1] - b, *rows.shape[2:]))
    if rows.ndim == 2:
        np.matmul(rows[:, :b], matrix.T, out=out[:, :a])
    else:
        np.matmul(matrix, rows[:, :b], out=out[:, :a])
    out[:, a:] = rows[:, b:]
    return out


def decoder_span(structure: SAEStructure, beta: Array) -> Array:
    """Q, an orthonormal basis (p, r) of the decoders' row span or of the whole space."""
    p, m = structure.shape[1], structure.layout.basis_size
    whole = m >= p or structure.has_dense_border
    return np.eye(p) if whole else np.asarray(np.linalg.qr(beta.T)[0], float)


class DecoderTerms:
    """What of the joint objective decoders alone decide, at one state, computed when asked for."""

    structure: SAEStructure
    theta: Theta
    rho: Array

    @cached_property
    def decoder_prior(self) -> DecoderPrior:
        """The prior of the decoders."""
        return DecoderPrior(self.structure, self.theta.beta, self.rho)

    @cached_property
    def gauge(self) -> Gauge:
        """Orbits of the decoders that rows use."""
        used = used_symmetries(self.structure.symmetries, self.structure.active)
        return Gauge(self.structure.layout, used, self.theta.beta, float(len(self.structure.Z)))


class SAEState(DecoderTerms):
    """The joint objective of rows and decoders at one state.

    Pieces are computed when asked for, once.

    Parameters
    ----------
    structure : SAEStructure
    theta : Theta
        Its decoders are (M, p), or (k, M, p) where rows meet one of k blocks.
    rho : (n_rho,) array
    span : (.., p, r) array, optional
        `decoder_span`, where it is known.
    incidence : Incidence, optional
        What rows meet of the decoders: all of them by default.
    """

    def __init__(
        self, structure: SAEStructure, theta: Theta, rho: Array, span: Array | None = None,
        incidence: Incidence | None = None,
    ):
        self.structure, self.theta, self.rho = structure, theta, rho
        self.psi = rho[structure.outer.psi]
        self.incidence: Incidence = MeetsAll() if incidence is None else incidence
        self._coupled: dict[Curvature, CoupledRows] = {}
        self.span = decoder_span(structure, theta.beta) if span is None else span
        self.mixture = structure.mixture(
            theta, self.incidence.of_rows(theta.beta @ self.span), order=2)
        self.features = self.mixture.features()
        self.eta = self.incidence.apply(self.features, theta.beta) + structure.offset
        self.score = -structure.family.loss_eta(structure.Z, self.eta, self.psi, 1)
        self.row_prior = RowPrior(structure, theta, rho, self.mixture.amplitudes)

    @cached_property
    def objective(self) -> float:
        """F + g."""
        return (float(self.structure.family.row_loss(self.structure.Z, self.eta, self.psi).sum())
                + self.structure.constant
                + self.row_prior.value() + self.decoder_prior.value())

    # --- first derivatives -------------------------------------------------------------------

    def row_gradient(self) -> Array:
        """Gradient of F in the rows' own parameters, (N, q)."""
        rows = self.row_prior.gradient()
        rows -= np.einsum("nar,nr->na", self.jacobian, self.span_score)
        return self.restrict(rows)

    def gradient(self) -> Theta:
        """Gradient of F in theta."""
        border = self.decoder_prior.gradient()
        border -= self.incidence.sums(self.features, self.score)
        return Theta(self.row_gradient(), border)

    @cached_property
    def jacobian(self) -> Array:
        """d eta / dx in span coordinates, (N, K + D, r)."""
        return self.mixture.jacobian()

    @cached_property
    def own_jacobian(self) -> Array:
        """d eta / d xi in span coordinates, in the chart, (N, q, r)."""
        return self.restrict(self.jacobian)

    @cached_property
    def span_score(self) -> Array:
        """The score in span coordinates, (N, r)."""
        return self.incidence.apply(self.score, self.span)

    # --- curvature ---------------------------------------------------------------------------

    @cached_property
    def score_hessian(self) -> Array:
        """The score times the second derivative of eta, (N, K + D, K + D)."""
        return self.mixture.residual_hessian(self.span_score)

    @cached_property
    def precision(self) -> float | None:
        """IRLS weight of all entries of a row of weight 1; None where those of a row differ."""
        family = self.structure.family
        return 1.0 / family.dispersion(self.psi) if family.row_weights else None

    @cached_property
    def row_weight(self) -> Array:
        """Weights w of the rows, (N,)."""
        return self.structure.family.row_weight(self.structure.Z, self.eta, self.psi)

    @cached_property
    def tail(self) -> float:
        """kappa of `Family.tail`."""
        return self.structure.family.tail(self.psi, self.structure.shape[1])

    @cached_property
    def weight(self) -> Array:
        """IRLS weights, (N, p)."""
        return self.structure.family.weight(self.structure.Z, self.eta, self.psi, 0)

    @cached_property
    def observed(self) -> Array:
        """Second derivative of the loss in eta, (N, p)."""
        return self.structure.family.loss_eta(self.structure.Z, self.eta, self.psi, 2)

    def weighted_jacobian(self, which: Curvature) -> Array:
        """`own_jacobian` times the weights or the observed curvature, (N, q, r)."""
        if self.precision is not None:
            return (self.precision * self.row_weight)[:, None, None] * self.own_jacobian
        weight = self.weight if which == "majorizer" else self.observed
        return self.own_jacobian * weight[:, None]

    def row_spread(self) -> Array:
        """Curvature (N, q) of the rows' losses along each parameter, by their means alone."""
        return np.einsum("nqr,nqr->nq", self.weighted_jacobian("majorizer"), self.own_jacobian)

    def row_hessian(self, curvature: Curvature) -> Array:
        """Row blocks D_i, (N, q, q): Gauss-Newton and majorizers, or the exact second derivative.

        A parameter that the row does not carry has a unit block of its own.
        """
        blocks = self.weighted_jacobian(curvature) @ self.own_jacobian.transpose(0, 2, 1)
        rest = self.row_prior.blocks(curvature)
        if curvature == "exact":
            rest = rest - self.score_hessian
            if self.tail:
                pulled = np.einsum("nar,nr->na", self.own_jacobian, self.span_score)
                blocks -= self.tail * pulled[:, :, None] * pulled[:, None, :]
        blocks += self.restrict_blocks(rest)
        index = np.arange(blocks.shape[1])
        blocks[:, index, index] += ~self.structure.carried
        return blocks

    @cached_property
    def remainder(self) -> Remainder:
        """What Laplace's method misses of the rows."""
        # where rows are coupled, a row's block is not its curvature
        bounded = [] if self.structure.couples_rows else self.structure.bounded
        curvature = np.einsum("naa->na", self.row_prior.blocks("majorizer"))
        return Remainder.of(self.row_inverse, bounded, self.structure.carried, curvature,
                            self.row_prior.gradient())

    @cached_property
    def row_inverse(self) -> Array:
        """D_i^-1 (N, q, q) of the majorizer; zero where it is singular, where there is no V."""
        packed = PackedRows(self.structure.carried)
        blocks = packed.pack_blocks(self.row_hessian("majorizer"))
        inverse, definite = np.zeros_like(blocks), np.linalg.slogdet(blocks)[0] > 0
        inverse[definite] = np.linalg.inv(blocks[definite])
        out = packed.unpack_blocks(inverse)
        out[~definite] = 0.0
        return out

    def outside_rows(self, k: int) -> OutsideRows:
        """What the rows that carry atom k do not know of its functions."""
        assert self.precision is not None
        axes = compact_axes(self.structure.atoms[k])
        columns = self.structure.coordinate_columns(k).start + np.array(axes, np.intp)
        own = self.structure.active[:, k]
        where, meets = (slice(None), self.incidence) if own.all() else (
            rows := np.flatnonzero(own), self.incidence.take(rows))
        return OutsideRows(where, columns, self.precision * self.row_weight[where],
                           self.mixture.feature_slopes(k, axes)[where], self.row_inverse[where],
                           meets)

    def outside_gradient(self, k: int, part: OutsidePart) -> Array:
        """Gradient (N, K + D) in x of U, of what its slopes have of it alone."""
        axes, own = compact_axes(self.structure.atoms[k]), part.slopes
        slopes = np.zeros((len(self.features), *own.shape[1:]))
        slopes[part.rows.where] = own
        return self.mixture.feature_slope_pullback(k, axes, slopes)

    def coupled(self, which: Curvature) -> CoupledRows:
        """What couples the rows, in chart coordinates."""
        if which not in self._coupled:
            self._coupled[which] = self._couple(which)
        return self._coupled[which]

    def _couple(self, which: Curvature) -> CoupledRows:
        full = self.row_prior.coupled(which)
        columns = np.zeros((len(full.columns), *self.theta.xi.shape))
        for column, lifted in zip(columns, full.columns, strict=True):
            column[...] = self.restrict(lifted)
        return replace(full, edges=self.restrict_blocks(full.edges), columns=columns)

    @cached_property
    def scaled_features(self) -> Array:
        """Features (N, M) at the roots of the rows' weights."""
        return np.asarray(np.sqrt(self.row_weight)[:, None] * self.features)

    @cached_property
    def data_gram(self) -> Array:
        """The data's part of the border's Gram matrix, (.., M, M); of rows with one weight each."""
        assert self.precision is not None
        scaled = self.scaled_features
        return self.precision * self.incidence.sums(scaled, scaled)

    @cached_property
    def _packed(self) -> PackedRows:
        """Places of what rows carry among their full local parameters; of the others eta is free.

        Shares move together, so that a row which carries some of them has the whole chart.
        """
        assignment, carried = self.structure.assignment, self.structure.carried
        if assignment.dim != assignment.n_atoms:
            carried = np.ones((len(carried), carried.shape[1] + 1), bool)
        return PackedRows(carried)

    @cached_property
    def _packed_jacobian(self) -> Array:
        """`jacobian` of what rows carry, (N, w, r)."""
        return self._packed.pack(self.jacobian)

    @cached_property
    def _packed_score_hessian(self) -> Array:
        """`score_hessian` of what rows carry, (N, w, w)."""
        return self._packed.pack(self._packed.pack(self.score_hessian).transpose(0, 2, 1))

    def moved(self, vx: Array, v: Array) -> Array:
        """Change of eta (N, p) along (vx, v), in full local parameters and (.., M, p)."""
        along = np.einsum("nar,na->nr", self._packed_jacobian, self._packed.pack(vx))
        out = self.incidence.apply(along, self.span.swapaxes(-1, -2))
        return out + self.incidence.apply(self.features, v)

    def loss_hvp(self, vx: Array, v: Array) -> tuple[Array, Array]:
        """Exact Hessian of the loss times (vx, v), in full local parameters and (.., M, p)."""
        meets, span = self.incidence, self.span
        along, vx = self.mixture.feature_direction(vx), self._packed.pack(vx)
        moved = np.einsum("nar,na->nr", self._packed_jacobian, vx)
        lever = meets.apply(self.score, v.swapaxes(-1, -2))
        if self.precision is None:
            pushed = self.observed * (moved + meets.apply(self.features, v))
            border = meets.sums(self.features, pushed)
        else:  # outside the span the border is the Gram matrix alone
            weight = self.row_weight[:, None]
            pushed = self.precision * weight * (moved + meets.apply(self.features, v @ span))
            border = self.data_gram @ v
            border += self.precision * meets.sums(
                self.features, weight * moved) @ span.swapaxes(-1, -2)
            if self.tail:
                lost = self.tail * (np.einsum("nr,nr->n", self.span_score, moved)
                                    + np.einsum("nm,nm->n", self.features, lever))
                pushed -= lost[:, None] * self.span_score
                border -= meets.sums(self.features, lost[:, None] * self.score)
        rows = np.einsum("nar,nr->na", self._packed_jacobian, pushed)
        rows -= np.einsum("nab,nb->na", self._packed_score_hessian, vx)
        rows = self._packed.unpack(rows) - self.mixture.feature_gradient(lever)
        return rows, border - meets.sums(along, self.score)

    # --- derivative of the log-determinant -------------------------------------------------------

    def row_trace(
        self, t: Array, tau: Array, missing: Array, by_gram: Array, by_weight: Array
    ) -> tuple[Array, Array, Array | None, Array]:
        """Parts of the gradient of (1/2) tr(G H), where all entries of a row have one weight.

        With the joint Jacobian calJ_i of a row, T = G calJ goes to the derivative of calJ, and
        calJ^T T to that of the weights.

        Parameters
        ----------
        t : (N, K + D, r) and tau : (N, M) arrays
            T, of rows that are scaled by the root of their weight.
        missing : (N, q, q) array
            What is added to the rows of G.
        by_gram : (.., M, M) array
            Derivative in the data's Gram matrix of what is added to (1/2) log|H|.
        by_weight : (N,) array
            Its derivative in the logs of the weights, at fixed Gram matrix and rows of H.

        Returns
        -------
        t, tau, u (N, p) in the means, None where the weights are known, and the gradient in psi
        """
        assert self.precision is not None
        root = np.sqrt(self.row_weight)
        own = root[:, None, None] * self.own_jacobian
        t = t + self.precision * self.lift(missing @ own)
        tau = tau + 2.0 * self.precision * self.incidence.apply(self.scaled_features, by_gram)
        if not self.tail:
            return t, tau, None, np.zeros(len(self.psi))
        t, tau = root[:, None, None] * t, root[:, None] * tau
        slope = np.einsum("nar,nar->n", t, self.jacobian)
        slope += np.einsum("nm,nm->n", tau, self.features) + 2.0 * by_weight
        slope *= 0.5 / self.row_weight
        u = (self.tail * slope * self.row_weight)[:, None] * self.score
        by_psi = self.structure.family.row_weight_psi(self.structure.Z, self.eta, self.psi)
        return t, tau, u, by_psi @ slope

    def pulled_back(self, t: Array, tau: Array, u: Array | None) -> tuple[Array, Array]:
        """Gradients (N, K + D) in x and (.., M, p) in the decoders of <T, calJ> and of <u, eta>."""
        grad_x = self.mixture.jacobian_pullback(t) + self.mixture.feature_gradient(tau)
        grad_beta = self.mixture.coefficient_pullback(t, self.incidence)
        grad_beta = grad_beta @ self.span.swapaxes(-1, -2)
        if u is not None:
            grad_x += np.einsum("nar,nr->na", self.jacobian, self.incidence.apply(u, self.span))
            grad_beta += self.incidence.sums(self.features, u)
        return grad_x, grad_beta

    def data_slope(self, moved: Array, by_mean: Array | None) -> Array:
        """Gradient of V in Gaussian rows (N, p), given what the adjoint moves eta by.

        ``by_mean`` is the gradient of the log-determinant in eta, where weights depend on it.
        """
        assert self.precision is not None
        out: Array = self.score + self.precision * self.row_weight[:, None] * moved
        if by_mean is not None:
            out -= self.tail * np.einsum("np,np->n", self.score, moved)[:, None] * self.score
            out -= by_mean
        return out

    # --- chart -----------------------------------------------------------------------------------

    def restrict(self, rows: Array) -> Array:
        """Apply the chart's transpose to axis 1: (N, K + D, ..) to (N, K - 1 + D, ..)."""
        assignment = self.structure.assignment
        if assignment.dim == assignment.n_atoms:  # the chart is the logits
            return rows
        return _with_head(assignment.basis.T, rows)

    def lift(self, rows: Array) -> Array:
        """Apply the chart to axis 1: (N, K - 1 + D, ..) to (N, K + D, ..)."""
        assignment = self.structure.assignment
        if assignment.dim == assignment.n_atoms:
            return rows
        return _with_head(assignment.basis, rows)

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
            (0, self.row_prior.n, self.row_prior.width))
