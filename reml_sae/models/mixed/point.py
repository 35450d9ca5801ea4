"""Values and derivatives of a mixed model's objective at one (theta, rho).

    F = sum_i loss(y_i, eta_i; psi) + (1/2) sum_g b_g^T Psi^-1 b_g + (1/2) beta^T S_lambda beta
    H = J^T W J + blockdiag(Psi^-1, .., Psi^-1, S_lambda)

W is the expected second derivative of the loss ("majorizer") or the observed one ("exact"). With
h_i = j_i^T H^-1 j_i the leverages, every derivative of the log-determinant is a weighted sum:

    d (1/2) log|H| = (1/2) sum_i h_i dw_i + (1/2) tr(H^-1 d prior).

H is factorised in the spherical coordinates of the effects and the graded ones of the smooths,

    [L^T D L + I    L^T C T              ]      log|H| = log|H'| - G log|Psi|,
    [T^T C^T L      T^T A T + T^T S_l T  ]

where it stays well conditioned as a variance goes to zero or a strength to infinity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reml_sae.engine.protocol import LogDeterminant, Theta
from reml_sae.linalg import ArrowFactor, ArrowMatrix
from reml_sae.models.mixed.covariance import stepped
from reml_sae.models.mixed.grouped import GroupedPoint, InverseBlocks
from reml_sae.models.mixed.structure import MixedStructure
from reml_sae.typing import Array, Curvature


@dataclass(frozen=True)
class ScaledFactor:
    """Factor of H, made in spherical and graded coordinates.

    Attributes
    ----------
    arrow : ArrowFactor
        Of H'.
    row_map : (q, q) array
        L: effects are L times their spherical coordinates.
    border_map : (P, P) array
        T, orthogonal: coefficients are T times their graded coordinates.
    """

    arrow: ArrowFactor[Array]
    row_map: Array
    border_map: Array

    def solve(self, g_rows: Array, g_border: Array) -> tuple[Array, Array]:
        """Solve H x = g for (G, q) and (P, 1)."""
        rows, border = self.arrow.solve(g_rows @ self.row_map, self.border_map.T @ g_border[:, 0])
        return rows @ self.row_map.T, (self.border_map @ border)[:, None]

    def logdet(self) -> float:
        """Log-determinant of H."""
        scale = np.abs(np.diagonal(self.row_map))
        return self.arrow.logdet() - 2.0 * self.arrow.matrix.n_rows * float(np.log(scale).sum())


class MixedPoint(GroupedPoint):
    """One point of a `MixedModel`; pieces are computed when asked for, once."""

    structure: MixedStructure

    def __init__(self, structure: MixedStructure, theta: Theta, rho: Array):
        super().__init__(structure, theta, rho)
        self.smooths = structure.smooth_prior(rho)
        self.eta = structure.predictor(theta, rho)
        self.objective = float(structure.family.loss(structure.data.y, self.eta, self.psi).sum())
        self.objective += 0.5 * float((self.effects.spherical(theta.xi) ** 2).sum())
        self.objective += 0.5 * float(self.smooths.energies(self.beta, self.beta).sum())

    # --- first derivatives and Hessian products --------------------------------------------------

    def _prior_times(self, v: Theta) -> Theta:
        return Theta(self.effects.precision_times(v.xi), self.smooths.apply(v.beta[:, 0])[:, None])

    def _pull_back(self, v: Array) -> Theta:
        rows, border = self.structure.design.pull_back(v)
        return Theta(rows, border[:, None])

    def gradient(self) -> Theta:
        """Gradient of F in theta."""
        return self._pull_back(self._score).plus(self._prior_times(self.theta))

    def hvp(self, v: Theta) -> Theta:
        """Exact Hessian of F times a vector."""
        return self._pull_back(self._weights("exact") * self._along(v)).plus(self._prior_times(v))

    def _along(self, v: Theta) -> Array:
        """Change of eta along a vector, J v."""
        return self.structure.design.predictor(v.xi, v.beta[:, 0])

    # --- curvature -------------------------------------------------------------------------------

    def _weights(self, curvature: Curvature) -> Array:
        """W, (n,)."""
        if curvature == "exact":
            return self._observed
        return self._expected

    def matrix(self, curvature: Curvature, damping: float = 0.0) -> ArrowMatrix[Array]:
        """H' + damping * diag(H'), in spherical and graded coordinates."""
        D, C, A = self.structure.design.gram(self._weights(curvature))
        L, T = self.effects.factor, self.smooths.basis
        rows = L.T @ D @ L + np.eye(len(L))
        border = self.smooths.graded_matrix()
        if self.structure.smooths:
            A, C = T.T @ A @ T, C @ T
        border += 0.5 * (A + A.T)
        if damping:
            index = np.arange(len(L))
            rows[:, index, index] *= 1.0 + damping
            border[np.diag_indices_from(border)] *= 1.0 + damping
        return ArrowMatrix(0.5 * (rows + rows.transpose(0, 2, 1)), L.T @ C, border)

    def factorize(self, damping: float = 0.0) -> ScaledFactor:
        """Factor of H + damping * diag(H), with the expected weights."""
        return ScaledFactor(self._damped_factor(damping), self.effects.factor, self.smooths.basis)

    # --- log-determinant -------------------------------------------------------------------------

    def inverse_blocks(self, curvature: Curvature, integrated: NDArray[np.bool_]) -> InverseBlocks:
        """Inverse of H on the effects and some graded directions of the border, 0 elsewhere.

        Parameters
        ----------
        curvature : "majorizer" or "exact"
        integrated : (P,) bool
            Which graded directions belong to the matrix that is inverted.
        """
        factor = self._integrated_factor(curvature, integrated)
        found = factor.selected_inverse()
        graded = np.zeros((len(integrated), len(integrated)))
        graded[np.ix_(integrated, integrated)] = found.border
        L, T = self.effects.factor, self.smooths.basis[:, integrated]
        value = 0.5 * (factor.logdet() - self.structure.design.n_groups * self.effects.log_det)
        return InverseBlocks(value, L @ found.rows @ L.T, L @ (found.coupling @ T.T),
                             T @ found.border @ T.T, found.rows, graded)

    def leverages(self, blocks: InverseBlocks) -> Array:
        """h_i = j_i^T H^-1 j_i, (n,)."""
        return self.structure.design.leverages(blocks.rows, blocks.coupling, blocks.border)

    def half_logdet(self, curvature: Curvature = "majorizer") -> LogDeterminant:
        """(1/2) log|H| on the integrated directions, and its explicit gradients (DESIGN A5)."""
        family, y = self.structure.family, self.structure.data.y
        integrated = self.structure.integrated(self.smooths)
        blocks = self.inverse_blocks(curvature, integrated)
        h = self.leverages(blocks)
        if curvature == "exact":
            slope = self._loss_eta(3)
            by_psi = family.loss_eta_psi(y, self.eta, self.psi, 2)
        else:
            slope = family.weight(y, self.eta, self.psi, 1)
            by_psi = family.weight_psi(y, self.eta, self.psi)
        pulled = 0.5 * slope * h
        rho = np.zeros_like(self.rho)
        outer = self.structure.outer
        rho[outer["covariance"]] = 0.5 * self.effects.traces(blocks.spherical_rows)
        rho[outer["smooths"]] = 0.5 * self.smooths.traces(blocks.graded_border)
        rho[outer["fixed"]] = self.structure.outer_X.T @ pulled
        rho[outer.psi] = 0.5 * by_psi @ h
        edf = (float(self._weights(curvature) @ h) if self.structure.method == "REML"
               else self.joint().edf())
        return LogDeterminant(blocks.half_logdet, self._pull_back(pulled), rho, edf)

    def stepped_factors(self) -> list[Array]:
        """Cholesky factors (q, q) of every term's covariance after one Fellner-Schall step.

        With c the spherical effects and G' their posterior covariances, V is stationary where
        S = sum c c^T equals R = sum (I - G'), and the step goes to L R^-1/2 S R^-1/2 L^T.
        """
        blocks = self.inverse_blocks("majorizer", self.structure.integrated(self.smooths))
        spherical = self.effects.spherical(self.theta.xi)
        found, begin = [], 0
        for term in self.structure.terms:
            own = slice(begin, begin + term.size)
            inside = np.eye(term.size) - blocks.spherical_rows[:, own, own]
            found.append(stepped(self.effects.factor[own, own],
                                 spherical[:, own].T @ spherical[:, own], inside.sum(axis=0)))
            begin = own.stop
        return found

    def edf(self, curvature: Curvature = "majorizer") -> float:
        """Effective degrees of freedom of all effects and coefficients, tr(H^-1 J^T W J)."""
        return float(self._weights(curvature) @ self.leverages(self.whole_inverse(curvature)))

    # --- outer parameters ------------------------------------------------------------------------

    def objective_rho(self) -> Array:
        """Gradient of F in rho at fixed theta, (n_rho,)."""
        out, outer = np.zeros_like(self.rho), self.structure.outer
        out[outer["covariance"]] = 0.5 * self.effects.energies(self.theta.xi, self.theta.xi)
        out[outer["smooths"]] = 0.5 * self.smooths.energies(self.beta, self.beta)
        out[outer["fixed"]] = self.structure.outer_X.T @ self._score
        loss_psi = self.structure.family.loss_psi(self.structure.data.y, self.eta, self.psi)
        out[outer.psi] = loss_psi.sum(axis=1)
        return out

    def normalizer_in_objective_rho(self) -> Array:
        """Zero: F has no part of a normaliser."""
        return np.zeros_like(self.rho)

    def gradient_rho_dot(self, u: Theta) -> Array:
        """Inner products of u with d grad F / d rho_m, (n_rho,)."""
        out, outer = np.zeros_like(self.rho), self.structure.outer
        along = self._along(u)
        out[outer["covariance"]] = self.effects.energies(self.theta.xi, u.xi)
        out[outer["smooths"]] = self.smooths.energies(self.beta, u.beta[:, 0])
        out[outer["fixed"]] = self.structure.outer_X.T @ (self._weights("exact") * along)
        by_psi = self.structure.family.loss_eta_psi(self.structure.data.y, self.eta, self.psi, 1)
        out[outer.psi] = by_psi @ along
        return out

    def log_normalizer(self) -> tuple[float, Array]:
        """Log partitions of the effects' and the smooths' priors, and their gradient in rho."""
        g, q = self.theta.xi.shape
        out, outer = np.zeros_like(self.rho), self.structure.outer
        value, out[outer["smooths"]] = self.smooths.log_normalizer()
        value += 0.5 * g * (q * np.log(2.0 * np.pi) + self.effects.log_det)
        out[outer["covariance"]] = 0.5 * g * self.effects.log_det_gradient
        return value, out
