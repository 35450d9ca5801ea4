"""The point of an SAE-manifold whose rows use one atom at most: sums over the kinds of atoms.

The same joint objective as that of `models.sae.point`, with the same derivatives; its curvature is
a nested arrowhead (`linalg.NestedFactor`), so that time and memory are linear in the atoms. Rows
that use none have a block of unit curvature there, which nothing meets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from scipy.linalg import block_diag

from reml_sae.engine.protocol import LogDeterminant, Theta
from reml_sae.linalg import BlockInverse, BorderBlocks, NestedFactor
from reml_sae.models.sae.gauge import at_its_phase
from reml_sae.models.sae.outside import Outside, OutsidePart
from reml_sae.models.sae.point import SAEPoint, explained_share
from reml_sae.models.sae.row_prior import GatePrior
from reml_sae.models.sae.row_scales import MissingScales
from reml_sae.models.sae.single.kinds import Kind, packed, unpacked, width
from reml_sae.models.sae.state import DecoderTerms, SAEState
from reml_sae.models.sae.structure import SAEStructure
from reml_sae.typing import Array, Curvature


class SingleFactor:
    """Factor of the curvature; vectors are (packed rows (N, w), decoders (M, p)).

    Parameters
    ----------
    factor : NestedFactor
        With a batch for every kind.
    kinds : sequence of Kind
    """

    def __init__(self, factor: NestedFactor, kinds: Sequence[Kind]):
        self.nested, self._kinds = factor, kinds

    def solve(self, g_rows: Array, g_border: Array) -> tuple[Array, Array]:
        """Solve H x = g; columns that a row does not have, have x = g."""
        rows, blocks, shared = self.nested.solve(
            [kind.own(g_rows) for kind in self._kinds],
            [g_border[kind.places[:, :-1]] for kind in self._kinds], g_border[-1])
        x_rows, x_border = g_rows.copy(), np.empty_like(g_border)
        for kind, own, block in zip(self._kinds, rows, blocks, strict=True):
            kind.put_own(x_rows, own)
            if kind.is_open:
                x_border[kind.places[:, :-1]] = block
        x_border[-1] = shared
        return x_rows, x_border

    def logdet(self) -> float:
        """Log-determinant of H."""
        return self.nested.logdet()


class SinglePoint(DecoderTerms):
    """The joint objective of rows and decoders at one state; tangents are packed.

    Parameters
    ----------
    structure : SAEStructure
        Its rows use one atom each.
    kinds : sequence of Kind
        Those of the structure.
    theta : Theta
    rho : (n_rho,) array
    """

    factor_is_costly = False

    def __init__(self, structure: SAEStructure, kinds: Sequence[Kind], theta: Theta, rho: Array):
        self.structure, self.theta, self.rho, self.kinds = structure, theta, rho, kinds
        self.psi = rho[structure.outer.psi]
        self.states = [kind.state(theta, rho) for kind in kinds]
        self.gate_prior = GatePrior(structure, rho)
        self.precision = 1.0 / structure.family.dispersion(self.psi)
        self.tail = structure.family.tail(self.psi, structure.shape[1])

    @property
    def _parts(self) -> list[tuple[Kind, SAEState]]:
        return list(zip(self.kinds, self.states, strict=True))

    def _tangent(self) -> Array:
        """What rows have of a packed tangent, zero as yet: (N, w)."""
        return np.zeros((len(self.structure.Z), width(self.kinds)))

    def _of_rows(self, values: Sequence[Array]) -> Array:
        """What the rows of every kind have, of all rows: (N, ..)."""
        out = np.empty((len(self.structure.Z), *values[0].shape[1:]))
        for kind, own in zip(self.kinds, values, strict=True):
            out[kind.rows] = own
        return out

    @cached_property
    def eta(self) -> Array:
        """Predictor of all rows, (N, p)."""
        return self._of_rows([state.eta for state in self.states])

    @cached_property
    def objective(self) -> float:
        """F + g."""
        family = self.structure.family
        rows = sum(float(family.row_loss(state.structure.Z, state.eta, self.psi).sum())
                   + state.row_prior.value() for state in self.states)
        return (rows + self.structure.constant + self.gate_prior.value()
                + self.decoder_prior.value())

    def gradient(self) -> Theta:
        """Gradient of F in theta."""
        xi, beta = self._tangent(), self.decoder_prior.gradient()
        for kind, state in self._parts:
            kind.put_own(xi, state.row_gradient())
            kind.add_beta(beta, -state.incidence.sums(state.features, state.score))
        return Theta(xi, beta)

    def hvp(self, v: Theta) -> Theta:
        """Exact Hessian of F, plus the gauge terms, times a vector."""
        xi = v.xi.copy()
        beta = self.decoder_prior.hvp(v.beta) + self.gauge.apply(v.beta)
        for kind, state in self._parts:
            vx = kind.own(v.xi)
            rows, border = state.loss_hvp(vx, kind.beta(v.beta))
            kind.put_own(xi, rows + state.row_prior.hvp(vx))
            kind.add_beta(beta, border)
        return Theta(xi, beta)

    # --- curvature ---------------------------------------------------------------------------

    def factorize(self, damping: float = 0.0) -> SingleFactor:
        """Factor of H + damping * diag(H)."""
        return self._factorized(damping) if damping else self._factor

    @cached_property
    def _factor(self) -> SingleFactor:
        return self._factorized(0.0)

    def _factorized(self, damping: float) -> SingleFactor:
        prior = self.decoder_prior
        grams = prior.damped_grams if damping else prior.curvature_grams
        batches = [self._blocks(kind, state, grams, damping) for kind, state in self._parts]
        shared = (1.0 + damping) * float(grams[-1][0, 0])
        return SingleFactor(NestedFactor(batches, self.precision, shared), self.kinds)

    def _blocks(
        self, kind: Kind, state: SAEState, grams: Sequence[Array], damping: float
    ) -> BorderBlocks:
        """The majorized curvature of one kind, plus damping times the diagonal of its blocks."""
        rows, gram = state.row_hessian("majorizer"), state.data_gram.copy()
        if kind.is_open:
            gram[:, :-1, :-1] += np.stack([grams[k] for k in kind.atoms[:, 0]])
            rows *= 1.0 + damping * np.eye(rows.shape[1])
        gram *= 1.0 + damping * np.eye(gram.shape[1])
        if not kind.is_open:
            gram[:, :-1, :-1] = np.eye(gram.shape[1] - 1)
        used = (kind.incidence.counts > 0)[:, None, None, None]
        tangents = np.einsum("cab,kbp->kcap", kind.generators, state.theta.beta[:, :-1])
        columns = np.sqrt(self.gauge.weight) * used * (tangents @ state.span[:, None])
        jacobians = np.sqrt(state.row_weight)[:, None, None] * state.jacobian
        return BorderBlocks(rows, state.scaled_features, jacobians, kind.incidence, state.span,
                            gram, columns)

    # --- log-determinant -----------------------------------------------------------------------

    def row_variances(self) -> Array:
        """Posterior variances (N, q) of what rows carry, with those of the decoders."""
        out = np.zeros_like(self.theta.xi)
        for kind, inverse in zip(self.kinds, self._selected_inverse[0], strict=True):
            kind.put_xi(out, np.einsum("naa->na", inverse.rows))
        return out

    @cached_property
    def _selected_inverse(self) -> tuple[list[BlockInverse], float]:
        return self._factor.nested.selected_inverse()

    @cached_property
    def _traces(self) -> list[Array]:
        """Border of H^-1 at every block of the layout, traced over outputs."""
        inverses, shared = self._selected_inverse
        out = [np.full((1, 1), shared)] * len(self.structure.layout.blocks)
        for kind, inverse in zip(self.kinds, inverses, strict=True):
            if kind.is_open:
                for k, trace in zip(kind.atoms[:, 0], inverse.border_trace, strict=True):
                    out[k] = trace[:-1, :-1]
        return out

    @cached_property
    def _prior_traces(self) -> list[Array]:
        """Twice the derivatives in the priors of (1/2) log|H| less what it has too much."""
        excess = self._missing_scales
        if excess is None:
            return self._traces
        return [trace - 2.0 * excess.prior[where, where] for trace, where
                in zip(self._traces, self.structure.layout.blocks, strict=True)]

    @cached_property
    def _gauge_pulled(self) -> list[Array]:
        """H^-1 times every tangent of the gauge, in the decoder of its atom."""
        found: dict[int, list[Array]] = {}
        for number, (kind, state) in enumerate(self._parts):
            if not kind.is_open:
                continue
            pulled = [self._factor.nested.own_inverse(number, generator @ state.theta.beta[:, :-1])
                      for generator in kind.generators]
            for j, k in enumerate(kind.atoms[:, 0].tolist()):
                found[k] = [own[j] for own in pulled]
        used = dict.fromkeys(k for k, _, _ in self.gauge.symmetries)
        return [own for k in used for own in found[k]]

    def half_logdet(self, curvature: Curvature = "majorizer") -> LogDeterminant:
        """(1/2) log|H| with the gauge volume, less g of `scale`, and its explicit gradients.

        With what Laplace's method misses of the rows; "exact" is the textbook's, whose coupling is
        dense.
        """
        if curvature == "exact":
            found = SAEPoint(self.structure, self.theta, self.rho).half_logdet("exact")
            return replace(found, theta=Theta(packed(self.kinds, found.theta.xi),
                                              found.theta.beta))
        volume, volume_beta = self.gauge.volume()
        border = curvature, self._prior_traces, np.zeros((0, 0))
        prior_beta, grad_rho, prior_trace = self.decoder_prior.half_trace_gradients(*border)
        scale_beta, scale_rho, scale_trace = self.decoder_prior.scale_trace_gradients(*border)
        gauge_beta, gauge_trace = self.gauge.half_trace(self._gauge_pulled)
        correction, correction_beta, correction_rho = self.decoder_prior.scale_correction()
        xi = self._tangent()
        beta = prior_beta + scale_beta + volume_beta + gauge_beta - correction_beta
        grad_rho += scale_rho - correction_rho
        outside_beta, outside_rho = self.decoder_prior.gram_gradients(
            self._by_atom(lambda terms: terms.prior), self._by_atom(lambda terms: terms.scales),
            self._by_atom(lambda terms: terms.volume))
        beta += outside_beta
        grad_rho += outside_rho
        edf = self.structure.n_carried - prior_trace - scale_trace - gauge_trace
        value = 0.5 * self._factor.logdet() + volume - correction
        for (kind, state), part, inverse in zip(
                self._parts, self._outside, self._selected_inverse[0], strict=True):
            remainder = state.remainder
            own_x, own_beta, own_psi, _ = self._data_trace(kind, state, part, inverse)
            n, width = own_x.shape
            blocks = inverse.rows + 2.0 * _missing_blocks(state, part)
            blocks += 2.0 * remainder.curvature[:, :, None] * np.eye(width)
            prior_x, own_rho, trace = state.row_prior.half_trace_gradients(
                curvature, blocks, np.zeros((0, width, width)), np.zeros((0, n, width)))
            own_x += prior_x + state.row_prior.hvp(remainder.slope)
            own_rho += state.row_prior.gradient_rho_dot(remainder.slope)
            own_rho[state.structure.outer.psi] += own_psi
            kind.put_own(xi, own_x)
            kind.add_beta(beta, own_beta)
            grad_rho[kind.outer] += own_rho
            edf += 2.0 * remainder.scaling - trace
            value += float(remainder.values.sum())
            if part is not None:
                edf += 2.0 * part.terms.scaling
                value += part.terms.value
        if (excess := self._missing_scales) is not None:
            value -= excess.value
            grad_rho[self.structure.outer.psi] -= excess.psi
        # at the weights of its rows, every entry of the data part of H carries 1 / phi
        if (phi := self.structure.outer.dispersion) is not None:
            grad_rho[phi] -= 0.5 * edf
        return LogDeterminant(value, Theta(xi, beta), grad_rho, edf)

    @cached_property
    def _outside(self) -> list[OutsidePart | None]:
        """U of the atoms of every kind; None of the rows that use none."""
        prior, out = self.decoder_prior, list[OutsidePart | None]()
        for kind, state in self._parts:
            own, A = kind.atoms[:, 0], state.data_gram[:, :-1, :-1]
            out.append(OutsidePart.of(
                state.outside_rows(0), A, np.stack([prior.grams[k] for k in own]),
                np.stack([prior.volume_grams[k] for k in own]),
                A + np.stack([prior.curvature_grams[k] for k in own]), self.structure.shape[1])
                if kind.is_open else None)
        return out

    def _by_atom(self, derivative: Callable[[Outside], Array]) -> dict[int, Array]:
        """A derivative of U, atom by atom."""
        return {int(k): own for kind, part in zip(self.kinds, self._outside, strict=True)
                if part is not None
                for k, own in zip(kind.atoms[:, 0], derivative(part.terms), strict=True)}

    def _data_trace(
        self, kind: Kind, state: SAEState, part: OutsidePart | None, inverse: BlockInverse
    ) -> tuple[Array, Array, Array, Array | None]:
        """Gradients of the data's (1/2) tr(G H) in x, in decoders and in psi; and in the means."""
        scales, by_weight = self._missing_scales, np.zeros(len(kind.rows))
        by_gram = np.zeros_like(state.data_gram)
        if part is not None:
            by_gram[:, :-1, :-1] += part.terms.data
            by_weight += part.by_weight
        if scales is not None:
            by_gram -= scales.data[kind.places[:, :, None], kind.places[:, None, :]]
        t, tau, u, by_psi = state.row_trace(
            inverse.jac_cross, inverse.feature_cross, 2.0 * _missing_blocks(state, part),
            by_gram, by_weight)
        grad_x, grad_beta = state.pulled_back(t, tau, u)
        if part is not None:
            grad_x += state.outside_gradient(0, part)
        beyond = np.sqrt(state.row_weight)[:, None, None] * inverse.jac_beyond
        grad_beta += state.mixture.coefficient_pullback(beyond, kind.incidence) @ inverse.beyond
        return grad_x, grad_beta, by_psi, u

    @cached_property
    def _missing_scales(self) -> MissingScales | None:
        """Of rows with scales of their own; None elsewhere."""
        if not self.tail:
            return None
        gram = np.zeros((self.structure.layout.basis_size,) * 2)
        for kind, state in self._parts:
            for places, own in zip(kind.places, state.data_gram, strict=True):
                gram[np.ix_(places, places)] += own
        return MissingScales.of(self.structure, self.psi, gram,
                                block_diag(*self.decoder_prior.curvature_grams))

    # --- posterior ---------------------------------------------------------------------------

    def decoder_posterior(self, k: int) -> tuple[float, Array]:
        """Effective degrees of freedom of decoder k, and its covariance for every output.

        Its p M_k coefficients less the trace of H^-1 times the curvature of its penalties, and
        (p, M_k, M_k), at its phase.
        """
        trace = float(np.vdot(self.decoder_prior.curvature_grams[k], self._traces[k]))
        number, block = next((number, int(np.flatnonzero(kind.atoms[:, 0] == k)[0]))
                             for number, kind in enumerate(self.kinds)
                             if kind.is_open and k in kind.atoms)
        m, p = self.structure.atoms[k].basis_size, self.structure.shape[1]
        own, shape, size = self.gauge.of_atom(k), (-1, m, p), m * p
        return size - trace, at_its_phase(
            self._factor.nested.covariance(number, block),
            np.reshape([self.gauge.tangents[a] for a in own], shape),
            np.reshape([self._gauge_pulled[a] for a in own], shape))

    def score_moments(self) -> Array:
        """Sums of E_i[s s^T / w] for the scores s = -dl/deta of rows in each metric, (G, p, p).

        Of Gaussian rows of weights w, at these decoders, to the first order about their modes.
        """
        p = self.structure.shape[1]
        out = np.zeros((self.structure.noise.n_metrics, p, p))
        for kind, state in self._parts:
            weight = state.row_weight[:, None]
            score, jacobian = state.score / np.sqrt(weight), state.jacobian
            spread = weight[:, :, None] * (state.row_inverse @ jacobian)
            for j, rows in kind.incidence:
                Q = state.span[j]
                within = np.tensordot(jacobian[rows], spread[rows], axes=([0, 1], [0, 1]))
                out[state.structure.metrics[rows][0]] += (
                    score[rows].T @ score[rows] + self.precision**2 * Q @ within @ Q.T)
        return out

    def sparse_backend(self) -> None:
        """None: no sparse Cholesky."""

    def explained(self) -> float:
        """Share of the null deviance that the fit explains; of a Gaussian, of the variance."""
        weight = self._of_rows([state.row_weight for state in self.states])
        return explained_share(self.structure, self.eta, weight, self.psi)

    @property
    def dispersion_energy(self) -> float:
        """Half the deviance over the dispersion, the part of F that carries 1 / phi."""
        family = self.structure.family
        deviance = sum(float(family.deviance(state.structure.Z, state.eta, self.psi).sum())
                       for state in self.states)
        return 0.5 * deviance / family.dispersion(self.psi)

    # --- outer parameters ------------------------------------------------------------------------

    def objective_rho(self) -> Array:
        """Gradient of F in rho at fixed theta, (n_rho,)."""
        out = self.gate_prior.value_rho() + self.decoder_prior.value_rho()
        for kind, state in self._parts:
            own = state.row_prior.value_rho()
            loss = state.structure.family.loss_psi(state.structure.Z, state.eta, self.psi)
            own[state.structure.outer.psi] += loss.sum((1, 2))
            out[kind.outer] += own
        return out

    def normalizer_in_objective_rho(self) -> Array:
        """What quadratic strengths have of their normaliser within F: its gradient, (n_rho,)."""
        out = np.zeros_like(self.rho)
        for kind, state in self._parts:
            out[kind.outer] += state.row_prior.quadratic_constant_rho()
        return out

    def gradient_rho_dot(self, u: Theta) -> Array:
        """Inner products of u with d grad F / d rho_m, (n_rho,)."""
        out = self.decoder_prior.gradient_rho_dot(u.beta)
        for kind, state in self._parts:
            ux = kind.own(u.xi)
            own = state.row_prior.gradient_rho_dot(ux)
            mixed = state.structure.family.loss_eta_psi(state.structure.Z, state.eta, self.psi, 1)
            own[state.structure.outer.psi] += np.einsum(
                "jno,no->j", mixed, state.moved(ux, kind.beta(u.beta)))
            out[kind.outer] += own
        return out

    def data_gradient(self, adjoint: Theta, curvature: Curvature) -> Array:
        """Gradient of V in the rows Z (N, p), of a Gaussian, given the adjoint of `criterion`."""
        if curvature == "exact":
            return SAEPoint(self.structure, self.theta, self.rho).data_gradient(
                Theta(unpacked(self.kinds, adjoint.xi, self.theta.xi.shape[1]), adjoint.beta),
                "exact")
        out = []
        for (kind, state), part, inverse in zip(
                self._parts, self._outside, self._selected_inverse[0], strict=True):
            moved = state.moved(kind.own(adjoint.xi), kind.beta(adjoint.beta))
            u = self._data_trace(kind, state, part, inverse)[3]
            out.append(state.data_slope(moved, u))
        return self._of_rows(out)

    def precision_gradient(
        self, adjoint: Theta, curvature: Curvature
    ) -> tuple[Array, Array]:
        """Gradients (K,) of V in the logs of the precisions of curves and of centres."""
        if curvature == "exact":
            return SAEPoint(self.structure, self.theta, self.rho).precision_gradient(
                adjoint, "exact")
        return self.decoder_prior.precision_gradient(
            self._prior_traces, adjoint.beta, self._by_atom(lambda terms: terms.prior))

    def log_normalizer(self) -> tuple[float, Array]:
        """Log partitions of all priors, less the log number of equal modes; gradient in rho."""
        value, gradient = self.decoder_prior.log_partition()
        gates = self.gate_prior.log_partition()
        value += gates[0] + len(self.structure.Z) * self.structure.assignment.log_patterns()
        gradient += gates[1]
        for kind, state in self._parts:
            own = state.row_prior.log_partition()
            value += own[0]
            gradient[kind.outer] += own[1]
        return value - self.structure.log_multiplicity, gradient


def _missing_blocks(state: SAEState, part: OutsidePart | None) -> Array:
    """Derivative in D_i, (n, q, q), of what (1/2) log|H| lacks."""
    blocks = state.remainder.blocks
    return blocks if part is None else blocks + part.blocks
