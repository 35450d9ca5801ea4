"""The row blocks D of an arrowhead on their own: (1/2) log|D| and its gradients.

D is block diagonal, or sparse where a penalty couples rows. It is what the integral over the rows'
own parameters leaves behind when it is taken by Laplace's method. Coordinates and amplitudes are
integrated out; shares on the simplex stay at their mode. A share does not absorb noise as a
coordinate does, at a vertex not at all, and the density of its logit there has the shape of
exp(u - s exp(u)) at any s: its curvature at the mode is one, and says nothing of the decoders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reml_sae.inner._protocol import Theta
from reml_sae.linalg import (
    LowRankUpdate,
    PackedRows,
    SpanArrowMatrix,
    SpanFactor,
    batched_cholesky,
    batched_inverse,
    factor_logdet,
)
from reml_sae.manifolds import Manifold

if TYPE_CHECKING:
    from reml_sae.models.sae_point import SAEPoint

Array = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class RowTrace:
    """(1/2) log|D| of the majorized blocks with its explicit gradients.

    Attributes
    ----------
    value : float
    theta : Theta
        Gradient in the rows' own parameters (chart coordinates) and in beta.
    rho : (n_rho,) gradient in rho at fixed theta
    """

    value: float
    theta: Theta
    rho: Array

    def plus(self, other: RowTrace, factor: float = 1.0) -> RowTrace:
        """The sum with ``factor`` times another."""
        return RowTrace(self.value + factor * other.value, self.theta.plus(other.theta, factor),
                        self.rho + factor * other.rho)

    def scaled(self, factor: float) -> RowTrace:
        """All of it times ``factor``."""
        return RowTrace(factor * self.value, self.theta.scaled(factor), factor * self.rho)


class RowBlocks:
    """D at one point: the blocks of what is integrated out.

    Parameters
    ----------
    point : SAEPoint
    """

    def __init__(self, point: SAEPoint):
        self.point = point
        self._inside = slice(point.model.first_integrated, None)

    @cached_property
    def _packed(self) -> PackedRows:
        return PackedRows(self.point.model.carried[:, self._inside])

    @cached_property
    def _blocks(self) -> Array:
        """D_i of what rows carry, (N, w, w)."""
        blocks = self.point.row_hessian("majorizer")[:, self._inside, self._inside]
        return self._packed.pack_blocks(blocks)

    @cached_property
    def _factor(self) -> SpanFactor:
        """Factor of D alone, as an arrowhead without a border, where rows couple."""
        coupled, p = self.point.coupled("majorizer"), self.point.model.shape[1]
        rows = self.point.row_hessian("majorizer")[:, self._inside, self._inside]
        n, q, _ = rows.shape
        factor = SpanArrowMatrix(
            rows=rows, features=np.zeros((n, 0)), jacobians=np.zeros((n, q, 0)),
            span=np.zeros((p, 0)), gram=np.zeros((0, 0)), border_columns=np.zeros((0, 0, 0)),
            scale=1.0, heads=coupled.heads, tails=coupled.tails,
            edges=coupled.edges[:, self._inside, self._inside]).factorize()
        if not len(coupled.columns):
            return factor
        return LowRankUpdate(factor, coupled.columns[:, :, self._inside], coupled.core)

    @cached_property
    def _inverse(self) -> tuple[float, Array, Array, Array]:
        """(1/2) log|D|, and D^-1 on its pattern: rows (N, q, q), edges and columns."""
        coupled = self.point.coupled("majorizer")
        width = self.point.theta.xi.shape[1]
        n, first = len(self.point.theta.xi), self._inside.start
        rows = np.zeros((n, width, width))
        if not self.point.model.couples_rows:
            lower = batched_cholesky(self._blocks)
            inverse = batched_inverse(self._blocks, lower)
            rows[:, first:, first:] = self._packed.unpack_blocks(inverse)
            return (0.5 * float(factor_logdet(lower).sum()), rows, coupled.edges,
                    coupled.columns)
        found = self._factor.selected_inverse()
        rows[:, first:, first:] = found.rows
        edges = np.zeros((len(found.edges), width, width))
        edges[:, first:, first:] = found.edges
        columns = np.zeros((len(found.columns), n, width))
        columns[:, :, first:] = found.columns
        return 0.5 * self._factor.logdet(), rows, edges, columns

    @cached_property
    def half_logdet(self) -> RowTrace:
        """(1/2) log|D| and its gradients: those of (1/2) tr(G D) at G = D^-1."""
        return self._trace(*self._inverse)

    @cached_property
    def value(self) -> float:
        """(1/2) log|D| with `volume`."""
        if self.point.model.couples_rows:
            return self._inverse[0] + self._compact[0]
        return float(self.row_values.sum())

    @cached_property
    def row_values(self) -> Array:
        """(1/2) log|D_i| with `volume` of every row, (N,), where rows do not couple.

        Infinite where a block is singular.
        """
        blocks = self._blocks
        sign, logdet = np.linalg.slogdet(blocks)
        regular = (sign > 0.0) & np.isfinite(logdet)
        blocks = np.where(regular[:, None, None], blocks, np.eye(blocks.shape[1]))
        out = np.where(regular, 0.5 * logdet, np.inf)
        if any(atom.compact_axes for atom in self.point.model.atoms):
            sigma = np.zeros((len(out), *[self.point.theta.xi.shape[1]] * 2))
            sigma[:, self._inside, self._inside] = self._packed.unpack_blocks(
                np.asarray(np.linalg.inv(blocks), np.float64))
            for rows, _, own, atom in self._compact_parts(sigma):
                out[rows] += atom.log_volume_ratio(-0.5 * np.linalg.slogdet(own)[1])[0]
        return out

    @cached_property
    def volume(self) -> RowTrace:
        """What compact coordinates add to (1/2) log|D|, and its gradients."""
        _, _, edges, columns = self._inverse
        return self._trace(*self._compact, np.zeros_like(edges), np.zeros_like(columns))

    @cached_property
    def _compact(self) -> tuple[float, Array]:
        """Value of `volume`, and G (N, q, q) whose (1/2) tr(G D) has its gradient.

        A Gaussian of which little is inside the manifold is no approximation of its integral, and
        the less a row knows the further it goes wrong: without bound. With Sigma = D^-1 and
        u = -(1/2) log|Sigma_cc| of the coordinates c of a compact factor, f(u) of the manifold
        replaces the Gaussian's volume by that of the distribution of the same curvature there; its
        gradient is that of (1/2) tr(G D) at G = f'(u) Sigma_:c Sigma_cc^-1 Sigma_c:.
        """
        sigma = self._inverse[1]
        value, G = 0.0, np.zeros_like(sigma)
        for rows, wide, own, atom in self._compact_parts(sigma):
            f, slope = atom.log_volume_ratio(-0.5 * np.linalg.slogdet(own)[1])
            value += float(f.sum())
            turned = np.linalg.solve(own, wide.transpose(0, 2, 1))
            G[rows] += slope[:, None, None] * (wide @ turned)
        return value, G

    def _compact_parts(self, sigma: Array) -> Iterator[tuple[Index, Array, Array, Manifold]]:
        """Rows, Sigma_:c (n, q, c), Sigma_cc (n, c, c) and atom of every compact factor."""
        model = self.point.model
        for k, atom in enumerate(model.atoms):
            rows = np.flatnonzero(model.active[:, k])
            first = model.coordinate_columns(k).start
            for axes in atom.compact_axes if rows.size else ():
                columns = first + np.array(axes)
                wide = sigma[rows][:, :, columns]
                yield rows, wide, wide[:, columns], atom

    def _trace(self, value: float, rows: Array, edges: Array, columns: Array) -> RowTrace:
        """A value with the gradients of (1/2) tr(G D) at fixed G."""
        point, model = self.point, self.point.model
        weighted = point.restrict(point.weighted_jacobian("majorizer"))
        t = point.lift(rows @ weighted)
        x = point.mixture.jacobian_pullback(t)
        beta = point.mixture.coefficient_pullback(t) @ point.span.T
        jacobian = point.restrict(point.jacobian)
        leverage = np.einsum("nao,nao->no", rows @ jacobian, jacobian)
        if point.precision is None:
            u = 0.5 * model.family.weight(model.Z, point.eta, point.psi, 1) * leverage
            x += np.einsum("nao,no->na", point.jacobian, u)
            beta += point.features.T @ u
            psi = 0.5 * (model.family.weight_psi(model.Z, point.eta, point.psi)
                         * leverage).sum((1, 2))
        else:  # every entry of the data part of D carries 1 / phi
            psi = np.array([-0.5 * point.precision * float(leverage.sum())])
        size = point.theta.beta.shape[0]
        whole = point.theta.beta.size if model.has_dense_border else 0
        half = point.penalties.half_trace_gradients(
            "majorizer", point.lift_blocks(rows), point.lift_blocks(edges),
            point.lift_columns(columns), np.zeros((size, size)), np.zeros((whole, whole)))
        rho = half[2].copy()
        rho[len(rho) - len(psi):] += psi
        return RowTrace(value, Theta(point.restrict(x + half[0]), beta + half[1]), rho)
