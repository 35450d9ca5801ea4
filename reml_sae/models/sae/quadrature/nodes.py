"""Quadrature of Gaussian rows at nodes that all rows share: matrix products alone.

With e_ig = z_i - eta_g the slopes are g_ig = -phi_g (x) e_ig / phi, so every sum over rows of a
node is one of three, of r, of r z and of r z z^T:

    sum_i r g g^T  = sum_g phi_g phi_g^T (x) C_g / phi^2,     C_g = sum_i r_ig e_ig e_ig^T
    E_i[g]         = -( E_i[phi] (x) z_i - E_i[phi (x) eta] ) / phi

and c of `row_quadrature` is quadratic in z_i with coefficients Gamma_g = phi_g^T G phi_g (p, p).
"""

from __future__ import annotations

from functools import cached_property, partial

import numpy as np

from reml_sae.models.sae.quadrature.lattice import squares
from reml_sae.models.sae.quadrature.moments import QuadratureSums, RowQuadrature
from reml_sae.rows import RowResult
from reml_sae.typing import Array


class RowNodes(RowQuadrature):
    """See `RowQuadrature`; the family has one weight, and no coordinate is linear."""

    @cached_property
    def _levers(self) -> Array:
        """phi_g (x) eta_g, (G, M p)."""
        levers = self.lattice.basis[:, :, None] * self._centre[:, None, :]
        return levers.reshape(len(levers), -1)

    @property
    def _dispersion(self) -> float:
        return self.family.dispersion(self.psi)

    def _posterior(self, Z: Array) -> tuple[Array, Array, Array]:
        """Of data (n, p): l_i (n,), r (n, G) and squared distances from the nodes (n, G)."""
        square = squares(Z, self._centre)
        joint = self._gaussian(Z, square)
        top = joint.max(axis=1, keepdims=True)
        mass = np.exp(joint - top)
        total = mass.sum(axis=1, keepdims=True)
        return -(top + np.log(total))[:, 0], mass / total, square

    def _mean_slopes(self, Z: Array, r: Array) -> Array:
        """E_i[g], (n, M p)."""
        mean = r @ self.lattice.basis
        crossed = (mean[:, :, None] * Z[:, None, :]).reshape(len(Z), -1)
        return (r @ self._levers - crossed) / self._dispersion

    @cached_property
    def sums(self) -> QuadratureSums:
        """Value, gradients and curvature in one pass."""
        (m, p), phi = self.beta.shape, self._dispersion
        basis, eta = self.lattice.basis, self._centre
        size = len(basis)
        found = self._gather(self._chunk_sums)
        mass, first, second, products, energy, known = found.sums
        residual = first - mass[:, None] * eta
        spread = second.reshape(size, p, p) - first[:, :, None] * eta[:, None, :]
        spread -= eta[:, :, None] * residual[:, None, :]
        pairs = (basis[:, :, None] * basis[:, None, :]).reshape(size, m * m)
        together = (pairs.T @ spread.reshape(size, p * p)).reshape(m, m, p, p) / phi**2
        missing = together.transpose(0, 2, 1, 3).reshape(m * p, m * p) - products
        gram = basis.T @ (mass[:, None] * basis) / phi
        complete = np.asarray(np.kron(gram, np.eye(p)), np.float64)
        outer = np.array([0.5 * self.Z.size - energy, *(self.lattice.prior_slopes @ mass)])
        return QuadratureSums(found.each[0], -basis.T @ residual / phi, outer, complete - missing,
                              complete, energy, known / phi, spread.sum(axis=0) / phi**2)

    def _chunk_sums(self, where: slice) -> RowResult:
        Z, p, eta = self.Z[where], self.Z.shape[1], self._centre
        values, r, square = self._posterior(Z)
        slopes, mean = self._mean_slopes(Z, r), r @ eta
        known = float((r @ np.einsum("gp,gp->g", eta, eta)).sum() - np.vdot(mean, mean))
        return RowResult((values,), (
            r.sum(axis=0), r.T @ Z,
            r.T @ (Z[:, :, None] * Z[:, None, :]).reshape(len(Z), p * p), slopes.T @ slopes,
            0.5 * float(np.vdot(r, square)) / self._dispersion, known))

    def curvature_pullback(self, G: Array) -> tuple[Array, Array]:
        """Gradient in beta (M, p) and outer of <G, curvature> at symmetric G (M p, M p)."""
        (m, p), phi = self.beta.shape, self._dispersion
        basis, eta = self.lattice.basis, self._centre
        size = len(basis)
        inner, level, turned = self._at_nodes(G)
        parts = self._gather(partial(self._chunk_pullback, G, inner, level, turned))
        beta, psi, first, levers, mass, weights = parts.sums
        residual = first - mass[:, None] * eta
        moved = np.einsum("gm,gmp->gp", basis, levers.reshape(size, m, p))
        moved += np.einsum("goq,gq->go", inner, residual) / phi
        beta += basis.T @ (weights[:, None] * eta + 2.0 * moved) / phi
        return beta, np.array([psi, *(self.lattice.prior_slopes @ weights)])

    def _at_nodes(self, G: Array) -> tuple[Array, Array, Array]:
        """Gamma_g (G, p, p), what c has without z (G,), and Gamma_g eta_g (G, p)."""
        (m, p), phi = self.beta.shape, self._dispersion
        basis, eta = self.lattice.basis, self._centre
        inner = np.einsum("gm,mokq,gk->goq", basis, G.reshape(m, p, m, p), basis, optimize=True)
        turned = np.einsum("goq,gq->go", inner, eta)
        level = np.einsum("goo->g", inner) / phi - np.einsum("go,go->g", turned, eta) / phi**2
        return inner, level, turned

    def _contracted(
        self, Z: Array, slopes: Array, G: Array, inner: Array, level: Array, turned: Array
    ) -> tuple[Array, Array, Array]:
        """G E_i[g] (n, M p); <G, H> - g^T G g and g^T G E_i[g] at the nodes, (n, G)."""
        (m, p), phi = self.beta.shape, self._dispersion
        u = slopes @ G
        pulled = np.einsum("nmp,np->nm", u.reshape(len(Z), m, p), Z)
        quadratic = (Z[:, :, None] * Z[:, None, :]).reshape(len(Z), p * p) @ (
            inner.reshape(len(inner), p * p).T)
        c = level - (quadratic - 2.0 * Z @ turned.T) / phi**2
        return u, c, -(pulled @ self.lattice.basis.T - u @ self._levers.T) / phi

    def _chunk_pullback(
        self, G: Array, inner: Array, level: Array, turned: Array, where: slice
    ) -> RowResult:
        phi, basis, Z = self._dispersion, self.lattice.basis, self.Z[where]
        _, r, square = self._posterior(Z)
        slopes = self._mean_slopes(Z, r)
        u, c, lever = self._contracted(Z, slopes, G, inner, level, turned)
        # sum over i, g of r (<G, H> - g^T G g) and of r g^T G E[g]: H and g go as 1 / phi
        own, mean = float(np.vdot(r, c)), float(np.vdot(slopes, u))
        curved = float(r.sum(axis=0) @ np.einsum("goo->g", inner)) / phi
        psi = 2.0 * (curved - own) - 2.0 * mean - curved
        c += 2.0 * lever
        weight = -r * (c - (r * c).sum(axis=1, keepdims=True))
        psi -= 0.5 * float(np.vdot(weight, square)) / phi
        return RowResult(sums=(
            -basis.T @ (weight.T @ Z) / phi, psi, r.T @ Z, r.T @ u, r.sum(axis=0),
            weight.sum(axis=0)))

    def gradient_outer_dot(self, u: Array) -> Array:
        """Inner products of u (M, p) with d gradient / d outer."""
        along = self.lattice.basis @ u
        total, others = self._gather(partial(self._chunk_outer_dot, along)).sums
        return np.array([total - float(np.vdot(self.sums.beta, u)), *others])

    def _chunk_outer_dot(self, along: Array, where: slice) -> RowResult:
        phi, Z = self._dispersion, self.Z[where]
        _, r, square = self._posterior(Z)
        slope = (np.einsum("gp,gp->g", along, self._centre) - Z @ along.T) / phi
        energy = -0.5 * square / phi
        centred = energy - (r * energy).sum(axis=1, keepdims=True)
        apart = r * (slope - (r * slope).sum(axis=1, keepdims=True))
        return RowResult(sums=(-float(np.vdot(r * centred, slope)),
                               -self.lattice.prior_slopes @ apart.sum(axis=0)))

    def data_gradient(self, G: Array, u: Array) -> Array:
        """See `RowQuadrature`."""
        along = self.lattice.basis @ u
        return self._gather(partial(self._chunk_data, G, *self._at_nodes(G), along)).each[0]

    def _chunk_data(
        self, G: Array, inner: Array, level: Array, turned: Array, along: Array, where: slice
    ) -> RowResult:
        (m, p), phi, eta, Z = self.beta.shape, self._dispersion, self._centre, self.Z[where]
        _, r, _ = self._posterior(Z)
        lead, c, lever = self._contracted(Z, self._mean_slopes(Z, r), G, inner, level, turned)
        c += 2.0 * lever
        out = (Z - r @ eta) / phi
        # of <G, curvature> / 2: through the masses, and through g itself
        out += 0.5 * (r * (c - (r * c).sum(axis=1, keepdims=True))) @ eta / phi
        mixed = (r @ inner.reshape(len(inner), p * p)).reshape(len(Z), p, p)
        out -= (np.einsum("noq,nq->no", mixed, Z) - r @ turned) / phi**2
        out -= np.einsum("nm,nmp->np", r @ self.lattice.basis, lead.reshape(len(Z), m, p)) / phi
        slope = (np.einsum("gp,gp->g", along, eta) - Z @ along.T) / phi
        apart = r * (slope - (r * slope).sum(axis=1, keepdims=True))
        return RowResult((out + (r @ along - apart @ eta) / phi,))
