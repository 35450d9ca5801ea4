"""The decoders' marginal objective with the rows integrated out by quadrature (DESIGN A8).

    L(beta) = sum_i l_i(beta) + priors of beta,    V = L(beta) + (1/2) log|d2(L + g)| + gauge + ..

at the mode of L + g, with l_i, its derivatives and its curvature from `parts`, and g from `scale`,
of the decoders' volume alone. The log-determinant is bounded by the prior (`width`). The rows have
no parameters; their coordinates are carried along as codes.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from reml_sae.engine.protocol import LogDeterminant, Theta
from reml_sae.linalg import DenseCholesky
from reml_sae.models.sae.decoder_prior import DecoderPrior
from reml_sae.models.sae.gauge import Gauge, at_its_phase, used_symmetries
from reml_sae.models.sae.quadrature.parts import RowParts
from reml_sae.models.sae.quadrature.width import HeldByPrior
from reml_sae.models.sae.row_prior import GatePrior
from reml_sae.models.sae.structure import SAEStructure
from reml_sae.typing import Array, Curvature


class DenseBorderFactor:
    """Factor of a border without rows.

    Parameters
    ----------
    matrix : (M p, M p) array
    shape : (M, p)
    """

    def __init__(self, matrix: Array, shape: tuple[int, ...]):
        self.cholesky = DenseCholesky.of(matrix, "the curvature of the decoders")
        self.shape = shape

    def solve(self, g_rows: Array, g_border: Array) -> tuple[Array, Array]:
        """S x = g_border; rows are zero."""
        return np.zeros_like(g_rows), self.cholesky.solve(g_border.ravel()).reshape(self.shape)

    def logdet(self) -> float:
        """Log-determinant."""
        return self.cholesky.logdet()


class QuadraturePoint:
    """L + g of an SAE-manifold whose rows use one atom each, at its decoders.

    Parameters
    ----------
    structure : SAEStructure
    theta : Theta
    rho : (n_rho,) array
    rows : RowParts
        The rows under these decoders.
    """

    factor_is_costly = False

    def __init__(self, structure: SAEStructure, theta: Theta, rho: Array, rows: RowParts):
        self.structure, self.theta, self.rho, self.rows = structure, theta, rho, rows
        self.decoder_prior = DecoderPrior(structure, theta.beta, rho, at_modes=False)
        self.gate_prior = GatePrior(structure, rho)
        # the coordinates of all open atoms are integrated, whichever the rows carry
        used = used_symmetries(structure.symmetries, structure.is_open)
        self.gauge = Gauge(structure.layout, used, theta.beta, float(structure.shape[0]))

    @cached_property
    def objective(self) -> float:
        """L + g."""
        rows = float(self.rows.row_values().sum())
        return rows + self.structure.constant + self.gate_prior.value() + self.decoder_prior.value()

    def _border(self, beta: Array) -> Theta:
        return Theta(np.zeros_like(self.theta.xi), beta)

    def gradient(self) -> Theta:
        """Gradient of L + g in beta; zero for the rows."""
        return self._border(self.rows.sums.beta + self.decoder_prior.gradient())

    # --- curvature ---------------------------------------------------------------------------

    def _prior(self, curvature: Curvature) -> Array:
        """Curvature of the priors of beta, (M p, M p)."""
        p = self.structure.shape[1]
        size = self.theta.beta.size
        out = self.decoder_prior.border(curvature) if self.structure.has_dense_border else (
            np.zeros((size, size)))
        for where, gram in zip(self.structure.layout.blocks, self.decoder_prior.grams, strict=True):
            flat = slice(where.start * p, where.stop * p)
            out[flat, flat] += np.kron(gram, np.eye(p))
        return out

    def _curvature(self, curvature: Curvature) -> Array:
        return self.rows.sums.curvature + self._with_volume(self._prior(curvature)) + (
            self.gauge.weight * self._orbits.T @ self._orbits)

    def _with_volume(self, prior: Array) -> Array:
        """A curvature of the priors (M p, M p) with that of g."""
        out = prior.copy()
        self.decoder_prior.add_scales(out)
        return out

    @property
    def _orbits(self) -> Array:
        """Tangents of the gauge, (c, M p)."""
        return self.gauge.columns.reshape(len(self.gauge), self.theta.beta.size)

    def factorize(self, damping: float = 0.0) -> DenseBorderFactor:
        """Factor of d2(L + g) + damping times the curvature that known coordinates would give.

        The second is the curvature of the EM algorithm: it majorizes that of L.
        """
        if not damping:
            return self._factor
        return DenseBorderFactor(self._curvature("majorizer") + damping * self._complete,
                                 self.theta.beta.shape)

    @cached_property
    def _factor(self) -> DenseBorderFactor:
        return DenseBorderFactor(self._curvature("majorizer"), self.theta.beta.shape)

    @property
    def _complete(self) -> Array:
        return self.rows.sums.complete + self._prior("majorizer")

    def score_moments(self) -> Array:
        """Sums of E_i[s s^T / w] for the scores s = -dl/deta of rows in each metric, (G, p, p)."""
        return self.rows.score_moments(self.structure.noise.n_metrics, self.structure.metrics)

    def hvp(self, v: Theta) -> Theta:
        """Hessian of L + g (plus the gauge terms) times the border of v."""
        flat = v.beta.ravel()
        out = (self.rows.sums.curvature @ flat).reshape(v.beta.shape)
        return self._border(out + self.decoder_prior.hvp(v.beta) + self.gauge.apply(v.beta))

    # --- criterion -------------------------------------------------------------------------------

    @cached_property
    def _held(self) -> HeldByPrior:
        return HeldByPrior.of(self._factor.cholesky, self._prior("majorizer"))

    def _volume(self, curvature: Curvature) -> HeldByPrior:
        """The curvature of the log-determinant, and what bounds it."""
        if curvature == "majorizer":
            return self._held
        factor = DenseBorderFactor(self._curvature(curvature), self.theta.beta.shape)
        return HeldByPrior.of(factor.cholesky, self._prior(curvature))

    def half_logdet(self, curvature: Curvature) -> LogDeterminant:
        """(1/2) log|d2(L + g)|, bounded, with the gauge volume, less g, and its gradients."""
        held = self._volume(curvature)
        prior_beta, prior_rho, _ = self.decoder_prior.half_trace_gradients(
            curvature, self._traces(held.by_prior), held.by_prior)
        scale_beta, scale_rho, _ = self.decoder_prior.scale_trace_gradients(
            curvature, self._traces(held.by_curvature), held.by_curvature)
        beta, outer = self.rows.curvature_pullback(held.by_curvature)
        volume, volume_beta = self.gauge.volume()
        pulled = (self._orbits @ held.by_curvature).reshape(self.gauge.columns.shape)
        gauge_beta, _ = self.gauge.half_trace(self.gauge.own(pulled))
        correction, correction_beta, correction_rho = self.decoder_prior.scale_correction()
        grad_beta = 0.5 * beta + prior_beta + scale_beta + volume_beta + gauge_beta
        grad_beta -= correction_beta
        rho = prior_rho + scale_rho + 0.5 * outer - correction_rho
        spent = float(np.vdot(held.covariance, self._with_volume(self._prior(curvature))))
        spent += self.gauge.weight * float(np.vdot(self._orbits @ held.covariance, self._orbits))
        edf = self.theta.beta.size - spent + self.rows.sums.edf
        value = held.half_logdet() + volume - correction
        return LogDeterminant(value, self._border(grad_beta), rho, edf)

    def _traces(self, border: Array) -> list[Array]:
        """A matrix (M p, M p) at every block of the layout, traced over outputs."""
        shape = self.theta.beta.shape
        trace = np.einsum("aobo->ab", border.reshape(*shape, *shape))
        return [trace[where, where] for where in self.structure.layout.blocks]

    def objective_rho(self) -> Array:
        """Gradient of L + g in rho at fixed beta, (n_rho,)."""
        return (self.gate_prior.value_rho() + self.decoder_prior.value_rho()
                + self.rows.sums.outer)

    def normalizer_in_objective_rho(self) -> Array:
        """Zero: rows have no strengths."""
        return np.zeros_like(self.rho)

    def gradient_rho_dot(self, u: Theta) -> Array:
        """Inner products of u with d grad (L + g) / d rho_m, (n_rho,)."""
        return self.decoder_prior.gradient_rho_dot(u.beta) + self.rows.gradient_outer_dot(u.beta)

    def data_gradient(self, adjoint: Theta, curvature: Curvature) -> Array:
        """Gradient of V in the rows Z (N, p), of a Gaussian, given the adjoint of `criterion`."""
        return self.rows.data_gradient(self._volume(curvature).by_curvature, adjoint.beta)

    def precision_gradient(
        self, adjoint: Theta, curvature: Curvature
    ) -> tuple[Array, Array]:
        """Gradients (K,) of V in the logs of the precisions of curves and of centres."""
        return self.decoder_prior.precision_gradient(
            self._traces(self._volume(curvature).by_prior), adjoint.beta, {})

    def log_normalizer(self) -> tuple[float, Array]:
        """Log partitions of decoders and gates, less the log number of equal modes."""
        value, gradient = self.decoder_prior.log_partition()
        gates = self.gate_prior.log_partition()
        value += gates[0] + len(self.structure.Z) * self.structure.assignment.log_patterns()
        return value - self.structure.log_multiplicity, gradient + gates[1]

    def decoder_posterior(self, k: int) -> tuple[float, Array]:
        """Effective degrees of freedom of decoder k; covariance (p, M_k, M_k) at its phase."""
        where, p = self.structure.layout.basis_slices[k], self.structure.shape[1]
        m, flat = where.stop - where.start, slice(where.start * p, where.stop * p)
        own = self._held.covariance[flat, flat]
        prior = self._with_volume(self._prior("majorizer"))[flat, flat]
        edf = m * p - float(np.vdot(own, prior))
        tangents = self.gauge.columns[self.gauge.of_atom(k), where]
        pulled = (tangents.reshape(-1, m * p) @ own).reshape(tangents.shape)
        return edf, at_its_phase(np.einsum("aobo->oab", own.reshape(m, p, m, p)),
                                 tangents, pulled)

    @property
    def dispersion_energy(self) -> float:
        """Half the expected deviance over the dispersion."""
        return self.rows.sums.energy
