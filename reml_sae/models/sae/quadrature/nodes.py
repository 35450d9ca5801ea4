"""Quadrature of Gaussian rows at nodes that all rows share: matrix products alone.

With x_i = z_i less the offset, and the curve y_g = phi_g B at node g, the slopes are
g_ig = -phi_g (x) (x_i - y_g) / phi. So all that is summed over rows and nodes is a moment of
phi (x) phi, which needs no array of nodes times columns squared:

    sum_ig r g g^T = sum_ig r phi phi^T (x) (x - y) (x - y)^T / phi^2
    E_i[g]         = -( E_i[phi] (x) x_i - E_i[phi phi^T] B ) / phi

and c of `row_quadrature` is quadratic in x_i - y_g with coefficients Gamma_g = phi_g^T G phi_g
(p, p).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from reml_sae.models.sae.quadrature.lattice import squares
from reml_sae.models.sae.quadrature.moments import QuadratureSums, RowQuadrature
from reml_sae.rows import RowResult
from reml_sae.typing import Array


class RowNodes(RowQuadrature):
    """See `RowQuadrature`; the family has one weight, and no coordinate is linear."""

    @cached_property
    def _pairs(self) -> Array:
        """phi_g (x) phi_g, (G, M M)."""
        return _outer(self.lattice.basis, self.lattice.basis)

    @cached_property
    def _curve(self) -> Array:
        """y, (G, p)."""
        return self.lattice.basis @ self.beta

    @property
    def _dispersion(self) -> float:
        return self.family.dispersion(self.psi)

    def _posterior(self, where: slice) -> tuple[Array, Array, Array]:
        """Of rows: l_i (n,), r (n, G) and squared distances from the nodes (n, G).

        Where all are one chunk they are kept: value, sums and gradients ask for the same.
        """
        return self._of_all if len(self._chunks) == 1 else self._of_rows(where)

    @cached_property
    def _of_all(self) -> tuple[Array, Array, Array]:
        return self._of_rows(slice(None))

    def _of_rows(self, where: slice) -> tuple[Array, Array, Array]:
        Z = self.Z[where]
        square = squares(Z, self._centre, self._dispersion)
        joint = self._gaussian(Z, square)
        top = joint.max(axis=1, keepdims=True)
        mass = np.exp(joint - top)
        total = mass.sum(axis=1, keepdims=True)
        return -(top + np.log(total))[:, 0], mass / total, square

    def _row_values(self, where: slice) -> RowResult:
        return RowResult((self._posterior(where)[0],))

    @property
    def _few(self) -> bool:
        """Whether functions are fewer than columns: their pairs then come first in a product."""
        return self.beta.shape[0] < self.beta.shape[1]

    @cached_property
    def _levers(self) -> Array:
        """phi_g (x) y_g, (G, M p)."""
        return _outer(self.lattice.basis, self._curve)

    def _mean_slopes(self, X: Array, r: Array) -> Array:
        """E_i[g], (n, M p)."""
        (m, _), n = self.beta.shape, len(X)
        along = ((r @ self._pairs).reshape(n * m, m) @ self.beta).reshape(n, -1) if self._few else (
            r @ self._levers)
        return np.asarray((along - _outer(r @ self.lattice.basis, X)) / self._dispersion)

    def _cubes(self, values: Array) -> Array:
        """Sum over g of phi (x) phi (x) v_g (x) phi for v (G, p): (M, M, p, M)."""
        m, p = self.beta.shape
        return (self._pairs.T @ _outer(values, self.lattice.basis)).reshape(m, m, p, m)

    def _along_curve(self, values: Array) -> Array:
        """Sum over g of phi (x) phi (x) v_g (x) y_g for v (G, p): (M, M, p, p)."""
        m, p = self.beta.shape
        if self._few:
            return np.asarray(self._cubes(values) @ self.beta, np.float64)
        return (self._pairs.T @ _outer(values, self._curve)).reshape(m, m, p, p)

    @cached_property
    def sums(self) -> QuadratureSums:
        """Value, gradients and curvature in one pass."""
        (m, p), phi = self.beta.shape, self._dispersion
        basis, curve = self.lattice.basis, self._curve
        found = self._gather(self._chunk_sums)
        mass, first, second, square, products, energy, known = found.sums
        residual = first - mass[:, None] * curve
        together = second.reshape(m, m, p, p) - self._along_curve(first)
        together -= self._along_curve(residual).swapaxes(2, 3)
        missing = together.transpose(0, 2, 1, 3).reshape(m * p, m * p) / phi**2 - products
        gram = basis.T @ (mass[:, None] * basis) / phi
        complete = np.asarray(np.kron(gram, np.eye(p)), np.float64)
        outer = np.array([0.5 * self.Z.size - energy, *(self.lattice.prior_slopes @ mass)])
        scores = (square - first.T @ curve - curve.T @ residual) / phi**2
        return QuadratureSums(found.each[0], -basis.T @ residual / phi, outer, complete - missing,
                              complete, energy, known / phi, scores)

    def _chunk_sums(self, where: slice) -> RowResult:
        X, curve = self._about_offset(where), self._curve
        values, r, square = self._posterior(where)
        mass, mean = r.sum(axis=0), r @ curve
        slopes = self._mean_slopes(X, r)
        known = float(mass @ np.einsum("gp,gp->g", curve, curve) - np.vdot(mean, mean))
        # in the cheaper order: of few functions the rows' moments of pairs come first
        second = np.linalg.multi_dot([self._pairs.T, r.T, _outer(X, X)])
        return RowResult((values,), (
            mass, r.T @ X, second, X.T @ X, slopes.T @ slopes,
            0.5 * float(np.vdot(r, square)) / self._dispersion, known))

    def _about_offset(self, where: slice) -> Array:
        """x, (n, p)."""
        return np.asarray(self.Z[where] - self.offset, np.float64)

    def curvature_pullback(self, G: Array) -> tuple[Array, Array]:
        """Gradient in beta (M, p) and outer of <G, curvature> at symmetric G (M p, M p)."""
        (m, p), phi, basis = self.beta.shape, self._dispersion, self.lattice.basis
        gradient = self._at_nodes(G)
        beta, psi, first, weights, mass = self._gather(
            partial(self._chunk_pullback, gradient)).sums
        residual = first - mass[:, None] * self._curve
        if self._few:
            moved = np.tensordot(self._cubes(residual), G.reshape(m, p, m, p),
                                 ([1, 2, 3], [0, 3, 2]))
        else:
            moved = basis.T @ _contract(basis, _outer(basis, residual) @ G)
        beta += basis.T @ (weights[:, None] * self._curve) / phi + 2.0 * moved / phi**2
        return beta, np.array([psi, *(self.lattice.prior_slopes @ weights)])

    def _at_nodes(self, G: Array) -> _CurvatureGradient:
        """What the nodes have of a gradient in the curvature."""
        (m, p), phi, basis = self.beta.shape, self._dispersion, self.lattice.basis
        blocks = G.reshape(m, p, m, p).transpose(0, 2, 1, 3).reshape(m * m, p * p)
        pulled = (self._pairs @ (G.reshape(m * p * m, p) @ self.beta.T).reshape(m * p, m * m).T
                  if self._few else self._levers @ G)
        turned = _contract(basis, pulled)
        trace = self._pairs @ blocks[:, :: p + 1].sum(axis=1)
        level = trace / phi - np.einsum("go,go->g", turned, self._curve) / phi**2
        return _CurvatureGradient(G, blocks, trace, level, turned)

    def _contracted(
        self, X: Array, slopes: Array, gradient: _CurvatureGradient
    ) -> tuple[Array, Array, Array]:
        """G E_i[g] (n, M p); <G, H> - g^T G g and g^T G E_i[g] at the nodes, (n, G)."""
        (m, p), n, phi = self.beta.shape, len(X), self._dispersion
        u = slopes @ gradient.G
        each = u.reshape(n, m, p)
        quadratic = np.linalg.multi_dot([_outer(X, X), gradient.blocks.T, self._pairs.T])
        c = gradient.level - (quadratic - 2.0 * X @ gradient.turned.T) / phi**2
        lever = (each @ X[:, :, None])[:, :, 0] @ self.lattice.basis.T
        lever -= ((each.reshape(n * m, p) @ self.beta.T).reshape(n, m * m) @ self._pairs.T
                  if self._few else u @ self._levers.T)
        return u, c, -lever / phi

    def _chunk_pullback(self, gradient: _CurvatureGradient, where: slice) -> RowResult:
        (m, p), phi, basis = self.beta.shape, self._dispersion, self.lattice.basis
        X = self._about_offset(where)
        _, r, square = self._posterior(where)
        slopes, mass = self._mean_slopes(X, r), r.sum(axis=0)
        u, c, lever = self._contracted(X, slopes, gradient)
        # sum over i, g of r (<G, H> - g^T G g) and of r g^T G E[g]: H and g go as 1 / phi
        own, mean = float(np.vdot(r, c)), float(np.vdot(slopes, u))
        curved = float(mass @ gradient.trace) / phi
        psi = 2.0 * (curved - own) - 2.0 * mean - curved
        c += 2.0 * lever
        weight = -r * (c - (r * c).sum(axis=1, keepdims=True))
        psi -= 0.5 * float(np.vdot(weight, square)) / phi
        if self._few:
            pairs = (r @ self._pairs).reshape(len(X), m, m).transpose(1, 0, 2)
            along = pairs.reshape(m, -1) @ u.reshape(-1, p)
        else:
            along = basis.T @ _contract(basis, r.T @ u)
        return RowResult(sums=((2.0 * along - basis.T @ (weight.T @ X)) / phi, psi, r.T @ X,
                               weight.sum(axis=0), mass))

    def gradient_outer_dot(self, u: Array) -> Array:
        """Inner products of u (M, p) with d gradient / d outer."""
        along = self.lattice.basis @ u
        total, others = self._gather(partial(self._chunk_outer_dot, along)).sums
        return np.array([total - float(np.vdot(self.sums.beta, u)), *others])

    def _chunk_outer_dot(self, along: Array, where: slice) -> RowResult:
        phi, X = self._dispersion, self._about_offset(where)
        _, r, square = self._posterior(where)
        slope = (np.einsum("gp,gp->g", along, self._curve) - X @ along.T) / phi
        energy = -0.5 * square / phi
        centred = energy - (r * energy).sum(axis=1, keepdims=True)
        apart = r * (slope - (r * slope).sum(axis=1, keepdims=True))
        return RowResult(sums=(-float(np.vdot(r * centred, slope)),
                               -self.lattice.prior_slopes @ apart.sum(axis=0)))

    def data_gradient(self, G: Array, u: Array) -> Array:
        """See `RowQuadrature`."""
        along = self.lattice.basis @ u
        return self._gather(partial(self._chunk_data, self._at_nodes(G), along)).each[0]

    def _chunk_data(
        self, gradient: _CurvatureGradient, along: Array, where: slice
    ) -> RowResult:
        (m, p), phi, curve = self.beta.shape, self._dispersion, self._curve
        X, basis = self._about_offset(where), self.lattice.basis
        n = len(X)
        _, r, _ = self._posterior(where)
        lead, c, lever = self._contracted(X, self._mean_slopes(X, r), gradient)
        c += 2.0 * lever
        out = (X - r @ curve) / phi
        # of <G, curvature> / 2: through the masses, and through g itself
        out += 0.5 * (r * (c - (r * c).sum(axis=1, keepdims=True))) @ curve / phi
        mixed = np.linalg.multi_dot([r, self._pairs, gradient.blocks]).reshape(n, p, p)
        out -= ((mixed @ X[:, :, None])[:, :, 0] - r @ gradient.turned) / phi**2
        out -= ((r @ basis)[:, None] @ lead.reshape(n, m, p))[:, 0] / phi
        slope = (np.einsum("gp,gp->g", along, curve) - X @ along.T) / phi
        apart = r * (slope - (r * slope).sum(axis=1, keepdims=True))
        return RowResult((out + (r @ along - apart @ curve) / phi,))


@dataclass(frozen=True)
class _CurvatureGradient:
    """A gradient G in the curvature, and what the nodes have of it.

    Attributes
    ----------
    G : (M p, M p) array
    blocks : (M M, p p) array
        Its blocks of columns, for every pair of functions.
    trace : (G,) traces of Gamma_g
    level : (G,) what c has without x
    turned : (G, p) Gamma_g y_g
    """

    G: Array
    blocks: Array
    trace: Array
    level: Array
    turned: Array


def _outer(x: Array, y: Array) -> Array:
    """x_i (x) y_i of rows (n, a) and (n, b): (n, a b)."""
    out: Array = x[:, :, None] * y[:, None, :]
    return out.reshape(len(x), -1)


def _contract(basis: Array, values: Array) -> Array:
    """Sum over a of phi_a v_a at every node, for v (G, M p): (G, p)."""
    return np.asarray((basis[:, None] @ values.reshape(*basis.shape, -1))[:, 0], np.float64)
