"""Rows integrated out by quadrature: value, gradient and curvature of their sum (DESIGN A8).

For a row with F_i(t, beta) = loss and density of its prior at nodes t_g,

    l_i      = -log sum_g exp(w_g - F_ig),            r_ig = exp(w_g - F_ig + l_i)
    dl_i     = E_i[g],                                 g = dF_i / dbeta = -phi (x) s
    d2l_i    = E_i[H] - Var_i[g],                      H = phi phi^T (x) diag(h)      (Louis 1982)

with s = -dl/deta and h = d2l/deta2 of the entries' loss l, E_i over the row's own posterior r_i.
With one node it is Laplace's arrow; with the exact posterior, its moments stand for D_i^-1.

The derivative of T = <G, sum_i d2l_i> at fixed G, which the gradient of log|d2L| needs, follows
from dr_ig = -r_ig (dF_ig - E_i[dF]) with c = <G, H> - g^T G g + 2 g^T G E_i[g]:

    dT = -sum_ig r_ig (c - E_i[c]) dF_ig + sum_ig r_ig ( 2 (G E_i[g] - G g)^T dg + <G, dH> ).

Only nodes that hold some of the row's mass are carried past the first line: they are kept in one
flat list of (row, node) pairs, sorted by row, so that the cost follows the posterior, not the
lattice. A linear coordinate given the others is Gaussian: four Gauss-Hermite nodes of that Gaussian
are exact for every moment above, which are polynomials of degree six in it at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from reml_sae.families import Family
from reml_sae.linalg import batched_cholesky
from reml_sae.models.row_lattice import Lattice

Array = NDArray[np.float64]
Index = NDArray[np.intp]

NEGLIGIBLE = 38.0
"""Nats below its best node at which a node of a row is dropped; exp(-38) is 3e-17."""
CHUNK_ELEMENTS = 4_000_000
HERMITE = np.polynomial.hermite_e.hermegauss(4)


@dataclass(frozen=True)
class QuadratureSums:
    """Sums over rows.

    Attributes
    ----------
    rows : (n,) l_i
    beta : (M, p) gradient in the decoders
    psi : (n_psi,) gradient in the family's outer parameters
    curvature : (M p, M p) second derivative in the decoders
    complete : (M p, M p) sum of E_i[H], what it would be at known coordinates
    energy : float
        E of half the deviance over the dispersion.
    edf : float
        Sum over rows of tr(W Var_i[eta]), what their coordinates spend.
    """

    rows: Array
    beta: Array
    psi: Array
    curvature: Array
    complete: Array
    energy: float
    edf: float


class RowQuadrature:
    """Rows of one atom at one decoder.

    Parameters
    ----------
    Z : (n, p) array
    lattice : Lattice
    beta : (M, p) array
    offset : (p,) array
    family : Family
    psi : (n_psi,) array
    """

    def __init__(self, Z: Array, lattice: Lattice, beta: Array, offset: Array, family: Family,
                 psi: Array):
        self.Z, self.lattice, self.beta, self.offset = Z, lattice, beta, offset
        self.family, self.psi = family, psi

    # --- posterior of the rows ---------------------------------------------------------------

    def _chunks(self) -> Iterator[slice]:
        """Rows whose whole lattice fits into memory."""
        wide = len(self.lattice.log_weights) * (1 + self.lattice.slopes.shape[1])
        if not self.family.equal_weights:
            wide *= self.Z.shape[1]
        size = max(1, CHUNK_ELEMENTS // wide)
        for start in range(0, len(self.Z), size):
            yield slice(start, min(start + size, len(self.Z)))

    def _log_joint(self, Z: Array) -> tuple[Array, Array]:
        """w_g - F_ig (n, G) without the linear coordinates, and the means (n, G, m) of these."""
        family, lattice = self.family, self.lattice
        centre = lattice.basis @ self.beta + self.offset
        n, size = len(Z), len(centre)
        if not family.equal_weights:
            loss = family.loss(Z[:, None], np.broadcast_to(centre, (n, *centre.shape)), self.psi)
            return lattice.log_weights - loss.sum(axis=2), np.zeros((n, size, 0))
        phi = family.dispersion(self.psi)
        square = np.einsum("np,np->n", Z, Z)[:, None] - 2.0 * Z @ centre.T
        square += np.einsum("gp,gp->g", centre, centre)
        out = lattice.log_weights - 0.5 * square / phi - float(
            family.saturated_loss(Z[:1], self.psi).sum())
        m = lattice.slopes.shape[1]
        if not m:
            return out, np.zeros((n, size, 0))
        lines, precision = self._lines
        pull = (Z @ lines.reshape(-1, lines.shape[2]).T).reshape(n, size, m)
        pull -= np.einsum("gmp,gp->gm", lines, centre)
        pull /= phi
        mean = np.einsum("gab,ngb->nga", np.linalg.inv(precision), pull)
        out += 0.5 * np.einsum("nga,nga->ng", pull, mean) - 0.5 * np.linalg.slogdet(precision)[1]
        return out, mean

    @cached_property
    def _lines(self) -> tuple[Array, Array]:
        """X = d eta / dw (G, m, p), and the precision P of the linear coordinates (G, m, m)."""
        lines = self.lattice.slopes @ self.beta
        phi = self.family.dispersion(self.psi)
        return lines, np.eye(lines.shape[1]) + lines @ lines.transpose(0, 2, 1) / phi

    def _posterior(self) -> Iterator[tuple[slice, Array, Pairs]]:
        """Chunks of rows with their l_i and their pairs of rows and nodes."""
        width = self.beta.size + self.Z.shape[1]
        for where in self._chunks():
            joint, mean = self._log_joint(self.Z[where])
            top = joint.max(axis=1, keepdims=True)
            mass = np.exp(joint - top)
            total = mass.sum(axis=1, keepdims=True)
            kept = joint > top - NEGLIGIBLE
            values = -(top + np.log(total))[:, 0]
            mass /= total
            # rows in pieces, so that what the pairs carry fits into memory too
            counts = kept.sum(axis=1) * len(self._hermite[0])
            piece = np.cumsum(counts) * width // CHUNK_ELEMENTS
            for number in np.unique(piece):
                rows = np.flatnonzero(piece == number)
                own = slice(int(rows[0]), int(rows[-1]) + 1)
                inside = slice(where.start + own.start, where.start + own.stop)
                yield inside, values[own], self._pairs(self.Z[inside], mass[own], kept[own],
                                                       mean[own])

    @cached_property
    def _hermite(self) -> tuple[Array, Array]:
        """Standard normal nodes (J, m) of the linear coordinates, and their weights (J,)."""
        m = self.lattice.slopes.shape[1]
        axes = np.meshgrid(*[HERMITE[0]] * m, indexing="ij")
        points = np.stack([a.ravel() for a in axes], axis=1) if m else np.zeros((1, 0))
        weights = np.ones(1)
        for _ in range(m):
            weights = np.multiply.outer(weights, HERMITE[1] / HERMITE[1].sum()).ravel()
        return points, weights

    def _pairs(self, Z: Array, mass: Array, kept: NDArray[np.bool_], mean: Array) -> Pairs:
        rows, nodes = np.nonzero(kept)
        r, phi = mass[rows, nodes], self.lattice.basis[nodes]
        if mean.shape[2]:
            points, weights = self._hermite
            upper = np.linalg.inv(batched_cholesky(self._lines[1])).transpose(0, 2, 1)
            w = mean[rows, nodes][:, None] + np.einsum("gab,jb->gja", upper, points)[nodes]
            phi = phi[:, None] + w @ self.lattice.slopes[nodes]
            phi = phi.reshape(-1, phi.shape[2])
            r = (r[:, None] * weights).ravel()
            rows = np.repeat(rows, len(weights))
        return Pairs(Z, rows, r, phi, self)

    def row_values(self) -> Array:
        """l_i (n,), the negative log marginal density of every row given the decoders."""
        out = np.empty(len(self.Z))
        for where in self._chunks():
            joint = self._log_joint(self.Z[where])[0]
            top = joint.max(axis=1, keepdims=True)
            out[where] = -(top[:, 0] + np.log(np.exp(joint - top).sum(axis=1)))
        return out

    def modes(self) -> Array:
        """Coordinates (n, d) of the best node of every row, linear ones at their mean."""
        out = np.empty((len(self.Z), self.lattice.nodes.shape[1]))
        for where in self._chunks():
            joint, mean = self._log_joint(self.Z[where])
            best = joint.argmax(axis=1)
            found = self.lattice.nodes[best].copy()
            found[:, list(self.lattice.linear)] = mean[np.arange(len(best)), best]
            out[where] = found
        return out

    # --- sums --------------------------------------------------------------------------------

    @cached_property
    def sums(self) -> QuadratureSums:
        """Value, gradients and curvature in one pass."""
        m, p = self.beta.shape
        rows, beta = np.empty(len(self.Z)), np.zeros((m, p))
        psi, complete = np.zeros(len(self.psi)), np.zeros((m, p, m, p))
        spread = np.zeros((m * p, m * p))
        energy = edf = 0.0
        outputs = np.arange(p)
        for where, values, pairs in self._posterior():
            rows[where] = values
            beta -= pairs.phi.T @ (pairs.r[:, None] * pairs.s)
            psi += pairs.loss_psi() @ pairs.r
            blocks = np.einsum("am,ao,ak->omk", pairs.phi, pairs.r[:, None] * pairs.h, pairs.phi,
                               optimize=True)
            complete[:, outputs, :, outputs] += blocks
            slopes = pairs.slopes
            spread += (slopes * pairs.r[:, None]).T @ slopes - pairs.mean_slope.T @ pairs.mean_slope
            energy += float(pairs.r @ pairs.energy())
            edf += pairs.information()
        known = complete.reshape(m * p, m * p)
        return QuadratureSums(rows, beta, psi, known - spread, known, energy, edf)

    def curvature_pullback(self, G: Array) -> tuple[Array, Array]:
        """Gradient in beta (M, p) and psi (n_psi,) of <G, curvature> at symmetric G (M p, M p)."""
        m, p = self.beta.shape
        own = np.einsum("aobo->oab", G.reshape(m, p, m, p))
        beta, psi = np.zeros((m, p)), np.zeros(len(self.psi))
        for _, _, a in self._posterior():
            q = np.einsum("am,omk,ak->ao", a.phi, own, a.phi, optimize=True)
            turned = a.slopes @ G
            lever = (a.mean_slope @ G)[a.rows]
            c = np.einsum("ao,ao->a", a.h, q) - np.einsum("aj,aj->a", turned, a.slopes)
            c += 2.0 * np.einsum("aj,aj->a", a.slopes, lever)
            weight = -a.r * (c - a.mean(c)[a.rows])
            v = 2.0 * (lever - turned).reshape(-1, m, p)
            w = np.einsum("am,amo->ao", a.phi, v)
            beta += a.phi.T @ (a.r[:, None] * (a.h * w + a.loss_eta(3) * q)
                               - weight[:, None] * a.s)
            psi += a.loss_psi() @ weight
            psi += np.einsum("jao,ao->j", a.loss_eta_psi(1), a.r[:, None] * w)
            psi += np.einsum("jao,ao->j", a.loss_eta_psi(2), a.r[:, None] * q)
        return beta, psi

    def gradient_psi_dot(self, u: Array) -> Array:
        """Inner products of u (M, p) with d gradient / d psi, (n_psi,)."""
        out = np.zeros(len(self.psi))
        for _, _, a in self._posterior():
            along = a.slopes @ u.ravel()
            moved = a.phi @ u
            out += np.einsum("jao,ao->j", a.loss_eta_psi(1), a.r[:, None] * moved)
            out -= a.loss_psi() @ (a.r * (along - a.mean(along)[a.rows]))
        return out


class Pairs:
    """(row, node) pairs of a piece of the rows, sorted by row.

    Attributes
    ----------
    rows : (a,) rows, counted within the piece
    r : (a,) posterior mass
    phi : (a, M) basis
    s, h : (a, p) score -dl/deta and curvature d2l/deta2 of the entries
    """

    def __init__(self, Z: Array, rows: Index, r: Array, phi: Array, of: RowQuadrature):
        self.rows, self.r, self.phi = rows, r, phi
        self._z, self._of = Z[rows], of
        self._eta = phi @ of.beta + of.offset
        self._starts = np.searchsorted(rows, np.arange(len(Z)))
        self.s = -self.loss_eta(1)
        self.h = self.loss_eta(2)

    def loss_eta(self, order: int) -> Array:
        """Derivative of the entries' loss in eta, (a, p)."""
        return self._of.family.loss_eta(self._z, self._eta, self._of.psi, order)

    def loss_eta_psi(self, order: int) -> Array:
        """Its derivative in psi, (n_psi, a, p)."""
        return self._of.family.loss_eta_psi(self._z, self._eta, self._of.psi, order)

    def loss_psi(self) -> Array:
        """Derivative of the rows' loss in psi, (n_psi, a)."""
        return self._of.family.loss_psi(self._z, self._eta, self._of.psi).sum(axis=2)

    def energy(self) -> Array:
        """Half the deviance over the dispersion, (a,)."""
        family, psi = self._of.family, self._of.psi
        return 0.5 * family.deviance(self._z, self._eta, psi).sum(axis=1) / family.dispersion(psi)

    def mean(self, values: Array) -> Array:
        """Posterior mean (n, ..) of values (a, ..)."""
        weighted = values * self.r.reshape(-1, *[1] * (values.ndim - 1))
        return np.asarray(np.add.reduceat(weighted, self._starts, axis=0), float)

    @cached_property
    def slopes(self) -> Array:
        """g, (a, M p)."""
        return -(self.phi[:, :, None] * self.s[:, None, :]).reshape(len(self.r), -1)

    @cached_property
    def mean_slope(self) -> Array:
        """E_i[g], (n, M p)."""
        return self.mean(self.slopes)

    def information(self) -> float:
        """Sum over rows of tr(W Var_i[eta])."""
        apart = self._eta - self.mean(self._eta)[self.rows]
        return float(self.r @ (self.h * apart**2).sum(axis=1))
