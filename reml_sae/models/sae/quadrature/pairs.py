"""Quadrature of rows at nodes of each row's own: any likelihood, and linear coordinates.

Only nodes that hold some of the row's mass are kept, in one flat list of (row, node) pairs, sorted
by row, so that the cost follows the posterior, not the lattice. A linear coordinate given the
others is Gaussian: four Gauss-Hermite nodes of that Gaussian are exact for every moment of
`row_quadrature`, which are polynomials of degree six in it at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from reml_sae.linalg import batched_cholesky
from reml_sae.models.sae.quadrature.moments import QuadratureSums, RowQuadrature
from reml_sae.rows import RowResult
from reml_sae.typing import Array, Index

NEGLIGIBLE = 38.0
"""Nats below its best node at which a node of a row is dropped; exp(-38) is 3e-17."""
HERMITE = np.polynomial.hermite_e.hermegauss(4)


class RowPairs(RowQuadrature):
    """See `RowQuadrature`."""

    def _posterior(self, rows: slice) -> Iterator[tuple[Array, Pairs]]:
        """Pieces of a chunk of rows: their l_i, and their pairs of rows and nodes."""
        width, Z = self.beta.size + self.Z.shape[1], self.Z[rows]
        joint, mean = self._log_joint(Z)
        top = joint.max(axis=1, keepdims=True)
        mass = np.exp(joint - top)
        total = mass.sum(axis=1, keepdims=True)
        kept = joint > top - NEGLIGIBLE
        values = -(top + np.log(total))[:, 0]
        mass /= total
        # in pieces, so that what the pairs carry fits into memory too
        counts = kept.sum(axis=1) * len(self._hermite[0])
        piece = np.cumsum(counts) * width // self.row_map.elements
        for number in np.unique(piece):
            inside = np.flatnonzero(piece == number)
            own = slice(int(inside[0]), int(inside[-1]) + 1)
            yield values[own], self._pairs(Z[own], mass[own], kept[own], mean[own])

    @property
    def _n_outer(self) -> int:
        return len(self.psi) + len(self.lattice.prior_slopes)

    @cached_property
    def _hermite(self) -> tuple[Array, Array]:
        """Standard normal nodes (J, m) of the linear coordinates, and their weights (J,)."""
        m = self.lattice.n_linear
        axes = np.meshgrid(*[HERMITE[0]] * m, indexing="ij")
        points = np.stack([a.ravel() for a in axes], axis=1) if m else np.zeros((1, 0))
        weights = np.ones(1)
        for _ in range(m):
            weights = np.multiply.outer(weights, HERMITE[1] / HERMITE[1].sum()).ravel()
        return points, weights

    def _pairs(self, Z: Array, mass: Array, kept: NDArray[np.bool_], mean: Array) -> Pairs:
        rows, nodes = np.nonzero(kept)
        r, phi = mass[rows, nodes], self.lattice.basis[nodes]
        prior = self.lattice.prior_slopes[:, nodes]
        if mean.shape[2]:
            points, weights = self._hermite
            upper = np.linalg.inv(batched_cholesky(self._lines[1])).transpose(0, 2, 1)
            w = mean[rows, nodes][:, None] + np.einsum("gab,jb->gja", upper, points)[nodes]
            phi = phi[:, None] + w @ self.lattice.slopes[nodes]
            phi = phi.reshape(-1, phi.shape[2])
            r = (r[:, None] * weights).ravel()
            rows = np.repeat(rows, len(weights))
            prior = np.repeat(prior, len(weights), axis=1)
        return Pairs(Z, rows, r, phi, prior, self)

    # --- sums --------------------------------------------------------------------------------

    @cached_property
    def sums(self) -> QuadratureSums:
        """Value, gradients and curvature in one pass."""
        size = self.beta.size
        found = self._gather(self._chunk_sums)
        beta, outer, complete, spread, energy, edf, scores = found.sums
        known = complete.reshape(size, size)
        return QuadratureSums(
            found.each[0], beta, outer, known - spread, known, energy, edf, scores)

    def _chunk_sums(self, where: slice) -> RowResult:
        m, p = self.beta.shape
        rows, beta = [np.zeros(0)], np.zeros((m, p))
        outer, complete = np.zeros(self._n_outer), np.zeros((m, p, m, p))
        spread = np.zeros((m * p, m * p))
        energy, edf, scores = 0.0, 0.0, np.zeros((p, p))
        outputs = np.arange(p)
        for values, pairs in self._posterior(where):
            rows.append(values)
            beta -= pairs.phi.T @ (pairs.r[:, None] * pairs.s)
            outer += pairs.loss_outer() @ pairs.r
            blocks = (pairs.r[:, None] * pairs.h).T @ pairs.products
            complete[:, outputs, :, outputs] += blocks.reshape(p, m, m)
            root = np.sqrt((1.0 + pairs.tail) * pairs.r)
            slopes = pairs.slopes * root[:, None]  # BLAS forms half of A^T A
            spread += slopes.T @ slopes - pairs.mean_slope.T @ pairs.mean_slope
            energy += float(pairs.r @ pairs.energy())
            edf += pairs.information()
            root = pairs.s * np.sqrt(pairs.r / pairs.weight)[:, None]
            scores += root.T @ root
        return RowResult(
            (np.concatenate(rows),), (beta, outer, complete, spread, energy, edf, scores))

    def curvature_pullback(self, G: Array) -> tuple[Array, Array]:
        """Gradient in beta (M, p) and outer of <G, curvature> at symmetric G (M p, M p)."""
        beta, outer = self._gather(partial(self._chunk_pullback, G)).sums
        return beta, outer

    def _chunk_pullback(self, G: Array, where: slice) -> RowResult:
        m, p = self.beta.shape
        own = np.einsum("moko->mko", G.reshape(m, p, m, p)).reshape(m * m, p)
        beta, outer = np.zeros((m, p)), np.zeros(self._n_outer)
        psi = outer[:len(self.psi)]
        for _, a in self._posterior(where):
            q = a.products @ own
            c, v = a.contracted(G, own)
            weight = -a.r * (c - a.mean(c)[a.rows])
            w = np.einsum("am,amo->ao", a.phi, v.reshape(-1, m, p))
            beta += a.phi.T @ (a.r[:, None] * (a.turned(w) + a.bent(q)) - weight[:, None] * a.s)
            outer += a.loss_outer() @ weight
            psi += np.einsum("jao,ao->j", a.loss_eta_psi(1), a.r[:, None] * w)
            psi += np.einsum("jao,ao->j", a.loss_eta_psi(2), a.r[:, None] * q)
            if a.tail:
                square = np.einsum("aj,aj->a", a.slopes, a.slopes @ G)
                psi -= float(a.r @ square) * self.family.tail_psi(self.psi, p)
        return RowResult(sums=(beta, outer))

    def gradient_outer_dot(self, u: Array) -> Array:
        """Inner products of u (M, p) with d gradient / d outer, (n_outer,)."""
        out: Array = self._gather(partial(self._chunk_outer_dot, u)).sums[0]
        return out

    def _chunk_outer_dot(self, u: Array, where: slice) -> RowResult:
        out = np.zeros(self._n_outer)
        for _, a in self._posterior(where):
            along = a.slopes @ u.ravel()
            moved = a.phi @ u
            out[:len(self.psi)] += np.einsum("jao,ao->j", a.loss_eta_psi(1), a.r[:, None] * moved)
            out -= a.loss_outer() @ (a.r * (along - a.mean(along)[a.rows]))
        return RowResult(sums=(out,))

    def data_gradient(self, G: Array, u: Array) -> Array:
        """See `RowQuadrature`."""
        return self._gather(partial(self._chunk_data, G, u)).each[0]

    def _chunk_data(self, G: Array, u: Array, where: slice) -> RowResult:
        m, p = self.beta.shape
        own = np.einsum("moko->mko", G.reshape(m, p, m, p)).reshape(m * m, p)
        out = [np.zeros((0, p))]
        for _, a in self._posterior(where):
            c, v = a.contracted(G, own)
            along = a.slopes @ u.ravel()
            weight = along - a.mean(along)[a.rows] - 0.5 * (c - a.mean(c)[a.rows])
            direct = a.phi @ u - 0.5 * np.einsum("am,amo->ao", a.phi, v.reshape(-1, m, p))
            moved = a.turned(direct)
            if a.tail:
                moved -= 0.5 * a.bent(a.products @ own)
            out.append(a.mean((1.0 + weight)[:, None] * a.s + moved))
        return RowResult((np.concatenate(out),))


class Pairs:
    """(row, node) pairs of a piece of the rows, sorted by row.

    Attributes
    ----------
    rows : (a,) rows, counted within the piece
    r : (a,) posterior mass
    phi : (a, M) basis
    s, h : (a, p) score -dl/deta and curvature d2l/deta2 of the entries
    """

    def __init__(self, Z: Array, rows: Index, r: Array, phi: Array, prior: Array, of: RowPairs):
        self.rows, self.r, self.phi, self._prior = rows, r, phi, prior
        self._z, self._of = Z[rows], of
        self._eta = phi @ of.beta + of.offset
        self._starts = np.searchsorted(rows, np.arange(len(Z)))
        self.s = -self.loss_eta(1)
        self.h = self.loss_eta(2)
        self.tail = of.family.tail(of.psi, Z.shape[1])
        self.weight = of.family.row_weight(self._z, self._eta, of.psi)

    def turned(self, x: Array) -> Array:
        """Second derivative of a row's loss in eta times x, (a, p)."""
        out = self.h * x
        if self.tail:
            out -= self.tail * np.einsum("ao,ao->a", self.s, x)[:, None] * self.s
        return out

    def bent(self, q: Array) -> Array:
        """Derivative in eta of the sum of q h over a row, (a, p)."""
        return self._of.family.curvature_gradient(self._z, self._eta, self._of.psi, q)

    def loss_eta(self, order: int) -> Array:
        """Derivative of the entries' loss in eta, (a, p)."""
        return self._of.family.loss_eta(self._z, self._eta, self._of.psi, order)

    def loss_eta_psi(self, order: int) -> Array:
        """Its derivative in psi, (n_psi, a, p)."""
        return self._of.family.loss_eta_psi(self._z, self._eta, self._of.psi, order)

    def loss_outer(self) -> Array:
        """Derivative of F in the outer parameters, (n_outer, a)."""
        loss = self._of.family.loss_psi(self._z, self._eta, self._of.psi).sum(axis=2)
        return np.concatenate([loss, self._prior])

    def energy(self) -> Array:
        """Half the deviance over the dispersion, (a,)."""
        family, psi = self._of.family, self._of.psi
        return 0.5 * family.deviance(self._z, self._eta, psi).sum(axis=1) / family.dispersion(psi)

    def mean(self, values: Array) -> Array:
        """Posterior mean (n, ..) of values (a, ..)."""
        weighted = values * self.r.reshape(-1, *[1] * (values.ndim - 1))
        return np.asarray(np.add.reduceat(weighted, self._starts, axis=0), float)

    @cached_property
    def products(self) -> Array:
        """phi phi^T, (a, M^2)."""
        return (self.phi[:, :, None] * self.phi[:, None, :]).reshape(len(self.r), -1)

    @cached_property
    def slopes(self) -> Array:
        """g, (a, M p)."""
        return -(self.phi[:, :, None] * self.s[:, None, :]).reshape(len(self.r), -1)

    @cached_property
    def mean_slope(self) -> Array:
        """E_i[g], (n, M p)."""
        return self.mean(self.slopes)

    def contracted(self, G: Array, own: Array) -> tuple[Array, Array]:
        """c = <G, H> - (1 + kappa) g^T G g + 2 g^T G E_i[g] (a,), and its derivative in g.

        That is (a, M p).

        ``own`` (M^2, p) are the blocks of G of one output.
        """
        turned, lever = (1.0 + self.tail) * (self.slopes @ G), (self.mean_slope @ G)[self.rows]
        c = np.einsum("ao,ao->a", self.h, self.products @ own)
        c += np.einsum("aj,aj->a", self.slopes, 2.0 * lever - turned)
        return c, 2.0 * (lever - turned)

    def information(self) -> float:
        """Sum over rows of tr(W Var_i[eta])."""
        apart = self._eta - self.mean(self._eta)[self.rows]
        return float(self.r @ (self.h * apart**2).sum(axis=1))
