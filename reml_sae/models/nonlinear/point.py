"""Values and derivatives of a nonlinear mixed model's objective at one (theta, rho).

    F = sum_i loss(y_i, eta_i; psi) + (1/2) sum_g b_g^T Psi^-1 b_g,
    eta_i = f_i(phi_i),    phi_i = beta + E b_g(i),

E the columns of the identity of the parameters with an effect. With l', l'', l''' the derivatives
of the loss in eta, w its expected second one, and f_c, f_cd, f_cde those of f, the curvature of an
observation in its own parameters phi is

    M_i = w f_c f_d                  ("majorizer": Gauss-Newton, no second derivatives of f)
    M_i = l'' f_c f_d + l' f_cd      ("exact")

and the arrowhead holds sums of M_i over groups, S_g, restricted on the side of b by E. Conversely
the blocks of an inverse G of H give the covariance of a group's parameters,

    Sigma_g = E G_gg E^T + E G_gb + G_bg E^T + G_bb,

so that d (1/2) log|H| = (1/2) sum_i <dM_i, Sigma_g(i)> + (1/2) tr(G d prior), where in phi

    majorizer  (1/2) w' (f^T Sigma f) f_e + w f_ce Sigma_cd f_d
    exact      (1/2) l''' (f^T Sigma f) f_e + l'' f_ce Sigma_cd f_d
               + (1/2) l'' (f_cd Sigma_cd) f_e + (1/2) l' f_cde Sigma_cd.

H is factorised in the spherical coordinates of the effects, as `mixed_point` has it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reml_sae.engine.protocol import LogDeterminant, Theta
from reml_sae.errors import InnerConvergenceError
from reml_sae.linalg import ArrowMatrix
from reml_sae.models.mixed.grouped import GroupedPoint, InverseBlocks
from reml_sae.models.mixed.point import ScaledFactor
from reml_sae.models.mixed.smooths import SmoothPrior
from reml_sae.models.nonlinear.structure import NonlinearStructure
from reml_sae.typing import Array, Curvature


class NonlinearPoint(GroupedPoint):
    """One point of a `NonlinearMixedModel`; pieces are computed when asked for, once.

    Raises
    ------
    InnerConvergenceError
        Where the mean or one of its derivatives is not finite.
    """

    structure: NonlinearStructure

    def __init__(self, structure: NonlinearStructure, theta: Theta, rho: Array):
        super().__init__(structure, theta, rho)
        self.smooths = SmoothPrior((), len(self.beta), np.zeros(0))
        self.phi = structure.parameters(theta, rho)
        self.objective = structure.objective(theta, rho)
        self.eta, self.first, self.second = self._jets(2)

    def _jets(self, order: int) -> tuple[Array, ...]:
        parts = self.structure.jets(self.phi, order)
        if not (np.isfinite(self.objective) and all(np.isfinite(part).all() for part in parts)):
            raise InnerConvergenceError(
                "the mean, or one of its derivatives, is not finite at the coefficients "
                f"{self.structure.coefficients(self.theta, self.rho)}")
        return parts

    # --- first derivatives and Hessian products --------------------------------------------------

    def _pull_back(self, v: Array) -> Theta:
        """Parts in theta of a gradient v (n, P) in phi."""
        sums = self.structure.data.sums(v)
        border = self.structure.border.inner.T @ sums.sum(axis=0)
        return Theta(sums[:, self.structure.effect_columns], border[:, None])

    def _pull_back_fixed(self, v: Array) -> Array:
        """Its part in the fixed effects among the outer parameters."""
        return self.structure.border.outer.T @ v.sum(axis=0)

    def _along(self, v: Theta) -> Array:
        """Change of phi along a vector, (n, P)."""
        shared = self.structure.border.inner @ v.beta[:, 0]
        return shared + (v.xi @ self.structure.effect_map.T)[self.structure.data.group]

    def _curvature_times(self, moved: Array) -> Array:
        """Exact M_i times changes of phi, (n, P)."""
        slope = np.einsum("np,np->n", self.first, moved)
        out = (self._observed * slope)[:, None] * self.first
        return out + self._score[:, None] * np.einsum("npr,nr->np", self.second, moved)

    def gradient(self) -> Theta:
        """Gradient of F in theta."""
        data = self._pull_back(self._score[:, None] * self.first)
        return Theta(data.xi + self.effects.precision_times(self.theta.xi), data.beta)

    def hvp(self, v: Theta) -> Theta:
        """Exact Hessian of F times a vector."""
        data = self._pull_back(self._curvature_times(self._along(v)))
        return Theta(data.xi + self.effects.precision_times(v.xi), data.beta)

    # --- curvature -------------------------------------------------------------------------------

    def group_curvature(self, curvature: Curvature) -> Array:
        """S_g, sums of M_i over the groups, (G, P, P)."""
        weight = self._expected if curvature == "majorizer" else self._observed
        blocks = (weight[:, None] * self.first)[:, :, None] * self.first[:, None, :]
        if curvature == "exact":
            blocks += self._score[:, None, None] * self.second
        sums = self.structure.data.sums(blocks)
        return 0.5 * (sums + sums.transpose(0, 2, 1))

    def matrix(self, curvature: Curvature, damping: float = 0.0) -> ArrowMatrix[Array]:
        """H + damping * diag(H), in spherical coordinates of the effects."""
        S, L, E = self.group_curvature(curvature), self.effects.factor, self.structure.effect_map
        inner = self.structure.border.inner
        side = (E @ L).T
        rows = side @ S @ side.T + np.eye(len(L))
        border = inner.T @ S.sum(axis=0) @ inner
        if damping:
            index = np.arange(len(L))
            rows[:, index, index] *= 1.0 + damping
            border[np.diag_indices_from(border)] *= 1.0 + damping
        return ArrowMatrix(0.5 * (rows + rows.transpose(0, 2, 1)), side @ S @ inner,
                           0.5 * (border + border.T))

    def factorize(self, damping: float = 0.0) -> ScaledFactor:
        """Factor of the Gauss-Newton H + damping * diag(H)."""
        return ScaledFactor(self._damped_factor(damping), self.effects.factor,
                            np.eye(len(self.beta)))

    # --- log-determinant -------------------------------------------------------------------------

    def inverse_blocks(self, curvature: Curvature, integrated: NDArray[np.bool_]) -> InverseBlocks:
        """Inverse of H on the effects and some coefficients, 0 elsewhere.

        Parameters
        ----------
        curvature : "majorizer" or "exact"
        integrated : (r,) bool
            Which inner coefficients belong to the matrix that is inverted.
        """
        factor = self._integrated_factor(curvature, integrated)
        found, L = factor.selected_inverse(), self.effects.factor
        r = len(integrated)
        coupling, border = np.zeros((len(found.rows), len(L), r)), np.zeros((r, r))
        coupling[:, :, integrated] = L @ found.coupling
        border[np.ix_(integrated, integrated)] = found.border
        value = 0.5 * (factor.logdet() - self.structure.data.n_groups * self.effects.log_det)
        return InverseBlocks(value, L @ found.rows @ L.T, coupling, border, found.rows, border)

    def parameter_covariance(self, blocks: InverseBlocks) -> Array:
        """Sigma_g, the covariance of each group's parameters, (G, P, P)."""
        E, inner = self.structure.effect_map, self.structure.border.inner
        cross = E @ blocks.coupling @ inner.T
        return (E @ blocks.rows @ E.T + cross + cross.transpose(0, 2, 1)
                + inner @ blocks.border @ inner.T)

    def half_logdet(self, curvature: Curvature = "majorizer") -> LogDeterminant:
        """(1/2) log|H| on what the criterion integrates, and its explicit gradients."""
        family, y = self.structure.family, self.structure.data.y
        blocks = self.inverse_blocks(curvature, self.structure.integrated)
        sigma = self.parameter_covariance(blocks)[self.structure.data.group]
        spread = np.einsum("npr,nr->np", sigma, self.first)
        leverage = np.einsum("np,np->n", spread, self.first)
        bent = np.einsum("npr,nr->np", self.second, spread)
        if curvature == "exact":
            trace = np.einsum("npr,npr->n", self.second, sigma)
            along = 0.5 * (self._loss_eta(3) * leverage + self._observed * trace)
            pulled = along[:, None] * self.first + self._observed[:, None] * bent
            third = np.einsum("nprs,npr->ns", self._jets(3)[3], sigma)
            pulled += 0.5 * self._score[:, None] * third
            psi = (family.loss_eta_psi(y, self.eta, self.psi, 2) @ leverage
                   + family.loss_eta_psi(y, self.eta, self.psi, 1) @ trace)
        else:
            along = 0.5 * family.weight(y, self.eta, self.psi, 1) * leverage
            pulled = along[:, None] * self.first + self._expected[:, None] * bent
            psi = family.weight_psi(y, self.eta, self.psi) @ leverage
        rho, outer = np.zeros_like(self.rho), self.structure.outer
        rho[outer["covariance"]] = 0.5 * self.effects.traces(blocks.spherical_rows)
        rho[outer["fixed"]] = self._pull_back_fixed(pulled)
        rho[outer.psi] = 0.5 * psi
        edf = (self.edf(curvature) if self.structure.method == "REML"
               else self.joint().edf())
        return LogDeterminant(blocks.half_logdet, self._pull_back(pulled), rho, edf)

    def edf(self, curvature: Curvature = "majorizer") -> float:
        """Effective degrees of freedom of effects and coefficients, tr(H^-1 d2 loss)."""
        shrunk = np.einsum("gqq->", self.whole_inverse(curvature).spherical_rows)
        return self.theta.xi.size + len(self.beta) - float(shrunk)

    # --- outer parameters ------------------------------------------------------------------------

    def objective_rho(self) -> Array:
        """Gradient of F in rho at fixed theta, (n_rho,)."""
        out, outer = np.zeros_like(self.rho), self.structure.outer
        out[outer["covariance"]] = 0.5 * self.effects.energies(self.theta.xi, self.theta.xi)
        out[outer["fixed"]] = self._pull_back_fixed(self._score[:, None] * self.first)
        loss_psi = self.structure.family.loss_psi(self.structure.data.y, self.eta, self.psi)
        out[outer.psi] = loss_psi.sum(axis=1)
        return out

    def normalizer_in_objective_rho(self) -> Array:
        """Zero: F has no part of a normaliser."""
        return np.zeros_like(self.rho)

    def gradient_rho_dot(self, u: Theta) -> Array:
        """Inner products of u with d grad F / d rho_m, (n_rho,)."""
        out, outer = np.zeros_like(self.rho), self.structure.outer
        moved = self._along(u)
        out[outer["covariance"]] = self.effects.energies(self.theta.xi, u.xi)
        out[outer["fixed"]] = self._pull_back_fixed(self._curvature_times(moved))
        by_psi = self.structure.family.loss_eta_psi(self.structure.data.y, self.eta, self.psi, 1)
        out[outer.psi] = by_psi @ np.einsum("np,np->n", self.first, moved)
        return out

    def log_normalizer(self) -> tuple[float, Array]:
        """Log partition of the effects' prior, and its gradient in rho."""
        g, q = self.theta.xi.shape
        out = np.zeros_like(self.rho)
        out[self.structure.outer["covariance"]] = 0.5 * g * self.effects.log_det_gradient
        return 0.5 * g * (q * np.log(2.0 * np.pi) + self.effects.log_det), out
