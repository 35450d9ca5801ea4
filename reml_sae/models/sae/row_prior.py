"""The prior of the rows' own parameters: its value and derivatives, and its normaliser (DESIGN A1).

Parts are the penalties on logits, amplitudes and coordinates, the manifolds' own priors, the
density that the assignment's chart carries, and the prior on the pattern of open gates. The
criterion V takes the sums over rows, row evidence the same parts row by row.

Row arrays are in the full local parameters x = (z_1 .. z_K, t_1 .. t_D) of `mixture`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
from scipy.linalg import block_diag

from reml_sae.assignments import Amplitudes
from reml_sae.engine.protocol import Theta
from reml_sae.models.sae.bound import (
    NOWHERE,
    Bound,
    CoupledRows,
    ManifoldPrior,
    bind_gates,
    bind_rows,
    log_partition,
    manifold_priors,
)
from reml_sae.models.sae.structure import SAEStructure
from reml_sae.penalties import RowCurvature, RowInverse
from reml_sae.typing import Array, Curvature, Index, Mask


class GatePrior:
    """The prior on which atoms rows use, at binary gates: it moves with rho alone.

    Parameters
    ----------
    structure : SAEStructure
    rho : (n_rho,) array
    """

    def __init__(self, structure: SAEStructure, rho: Array):
        self._bound = [bind_gates(structure, term, rho) for term in structure.terms
                       if term.target == "gates"]
        self._n_rho = len(rho)

    def value(self) -> float:
        """Of all patterns together."""
        return float(sum(bound.value() for bound in self._bound))

    def value_rho(self) -> Array:
        """Its gradient in rho, (n_rho,)."""
        out = np.zeros(self._n_rho)
        for bound in self._bound:
            out[bound.term.where] += bound.penalty.grad_rho(bound.target, bound.rho)
        return out

    def log_partition(self) -> tuple[float, Array]:
        """Log partition and its gradient in rho."""
        return log_partition(self._bound, self._n_rho)


@dataclass(frozen=True)
class _Share:
    """A part of the log partition.

    Attributes
    ----------
    total : float
        Of all rows together.
    rows : index or mask of rows, optional
        Those that have some of it, where others do not; None where all have the same.
    each : callable
        What each of these rows has.
    where : slice
        Part of rho on which it depends.
    slope : array
        Derivative of the total there.
    """

    total: float
    rows: Index | Mask | None = None
    each: Callable[[], float | Array] = float
    where: slice = field(default_factory=partial(slice, 0))
    slope: Array | float = 0.0


class RowPrior:
    """The prior of rows at one state.

    Parameters
    ----------
    structure : SAEStructure
    theta : Theta
    rho : (n_rho,) array
    amplitudes : Amplitudes
    """

    def __init__(
        self, structure: SAEStructure, theta: Theta, rho: Array, amplitudes: Amplitudes
    ):
        self.structure, self.theta, self.rho, self.amplitudes = structure, theta, rho, amplitudes
        self.n, self.k_atoms = amplitudes.a.shape
        self.width = self.k_atoms + structure.layout.n_coordinates
        self.bound = [bind_rows(structure, term, theta, rho) for term in structure.row_terms]
        self._parts: dict[Curvature, list[RowCurvature]] = {}

    @cached_property
    def _gates(self) -> GatePrior:
        return GatePrior(self.structure, self.rho)

    @cached_property
    def _manifolds(self) -> list[ManifoldPrior]:
        """The manifolds' priors with their derivatives to order 3."""
        return manifold_priors(self.structure, self.theta, 3)

    def _curvature(self, which: Curvature) -> list[RowCurvature]:
        """Curvatures of the penalties, computed once."""
        if which not in self._parts:
            self._parts[which] = [bound.curvature(which) for bound in self.bound]
        return self._parts[which]

    # --- value and normaliser ----------------------------------------------------------------

    def value(self) -> float:
        """Negative log density up to its partition, of all rows."""
        total = sum(bound.value() for bound in self.bound) + self._gates.value()
        total += sum(float(prior.jet[0].sum())
                     for prior in manifold_priors(self.structure, self.theta, 0))
        return total + float(self.amplitudes.log_jacobian().sum())

    def values(self) -> Array:
        """What every row has of it, (N,), but of the penalties that couple rows.

        Of the prior on gates it is what its own cost, given those of the other rows.
        """
        out = self.structure.is_open @ self.structure.opening_costs(self.rho)
        out += self.amplitudes.log_jacobian()
        for prior in manifold_priors(self.structure, self.theta, 0):
            out[prior.rows] += prior.jet[0]
        for bound in self.bound:
            if not bound.term.couples_rows:
                np.add.at(out, bound.rows, bound.term.penalty.row_values(bound.target, bound.rho))
        return out

    def log_partition(self) -> tuple[float, Array]:
        """Log partition of all rows, less what Laplace's method loses; gradient in rho."""
        value, gradient = self._gates.log_partition()
        for share in self._shares():
            value += share.total
            gradient[share.where] += share.slope
        return value, gradient

    def log_partitions(self) -> Array:
        """What every row has of it, (N,), but what all rows share whatever they carry."""
        out = np.zeros(self.n)
        for share in self._shares():
            if share.rows is not None:
                np.add.at(out, share.rows, share.each())
        return out

    def shared_partition(self) -> float:
        """What a row has of it beside `log_partitions`: the part that all rows share alike."""
        return sum(share.total for share in self._shares() if share.rows is None) / max(self.n, 1)

    def _shares(self) -> Iterator[_Share]:
        structure, assignment = self.structure, self.structure.assignment
        gain = assignment.shut_gain(structure.active)
        yield _Share(-float(gain.sum()), np.arange(self.n), lambda: -gain)
        for k, (atom, own) in enumerate(zip(structure.atoms, structure.has_manifold_prior,
                                            strict=True)):
            if own:
                volume, rows = atom.log_prior_volume(), structure.active[:, k]
                yield _Share(int(rows.sum()) * volume, rows, partial(float, volume))
        for bound in self.bound:
            yield from self._penalty_shares(bound)
        yield _Share(self.n * assignment.log_patterns())
        if not any(bound.term.target == "logits" and bound.penalty.is_normalised
                   for bound in self.bound):
            yield _Share(self.n * assignment.log_volume())

    def _penalty_shares(self, bound: Bound) -> Iterator[_Share]:
        """The penalty's own partition, and what shut gates lack of it."""
        partition = bound.log_partition()
        if partition is not None:
            alike = bound.term.target == "logits" or bound.term.couples_rows
            yield _Share(partition[0], None if alike else bound.rows,
                         partial(_partitions, bound), bound.term.where, partition[1])
        if bound.term.target == "amplitudes":
            assignment, atoms = self.structure.assignment, np.arange(self.k_atoms)
            own = atoms == bound.term.atom if bound.term.atom >= 0 else atoms >= 0
            shut = assignment.shut(self.structure.logits(self.theta), self.structure.active)
            rows = np.nonzero(shut & own)[0]
            cost, slope = assignment.shut_cost(float(bound.penalty.strengths(bound.rho)[0]))
            yield _Share(len(rows) * cost, rows, partial(float, cost), bound.term.where,
                         len(rows) * slope)

    # --- derivatives -----------------------------------------------------------------------------

    def gradient(self) -> Array:
        """Gradient in x, (N, K + D)."""
        out = np.zeros((self.n, self.width))
        out[:, : self.k_atoms] = self.amplitudes.log_jacobian_gradient()
        for prior in self._manifolds:
            out[prior.rows, prior.columns] += prior.jet[1]
        for bound in self.bound:
            out[bound.at] += bound.penalty.row_gradient(bound.target, bound.rho)
        return out

    def blocks(self, which: Curvature) -> Array:
        """Row blocks of the curvature, (N, K + D, K + D)."""
        k = self.k_atoms
        out = np.zeros((self.n, self.width, self.width))
        out[:, :k, :k] = self.amplitudes.log_jacobian_hessian()
        for prior in self._manifolds:
            out[prior.rows, prior.columns, prior.columns] += prior.jet[2]
        for bound, parts in zip(self.bound, self._curvature(which), strict=True):
            out[bound.pairs] += parts.blocks
        return out

    @cached_property
    def _exact_blocks(self) -> Array:
        """`blocks` of the exact curvature, for products with it."""
        return self.blocks("exact")

    def coupled(self, which: Curvature) -> CoupledRows:
        """What couples the rows."""
        heads, tails, edges, columns, cores = [], [], [], [], [np.zeros((0, 0))]
        for bound, parts in zip(self.bound, self._curvature(which), strict=True):
            if len(parts.edges):
                block = np.zeros((len(parts.edges), self.width, self.width))
                block[np.ix_(np.arange(len(block)), bound.columns[0], bound.columns[0])] = (
                    parts.edges)
                heads.append(bound.rows[parts.heads])
                tails.append(bound.rows[parts.tails])
                edges.append(block)
            if len(parts.columns):
                column = np.zeros((len(parts.columns), self.n, self.width))
                column[(slice(None), *bound.at)] = parts.columns
                columns.append(column)
                cores.append(parts.core)
        none = np.zeros(0, np.intp)
        return CoupledRows(
            np.concatenate([none, *heads]), np.concatenate([none, *tails]),
            np.concatenate([np.zeros((0, self.width, self.width)), *edges]),
            np.concatenate([np.zeros((0, self.n, self.width)), *columns]), block_diag(*cores),
        )

    def hvp(self, v: Array) -> Array:
        """Exact Hessian times v (N, K + D)."""
        out: Array = np.einsum("nab,nb->na", self._exact_blocks, v)
        for bound, parts in zip(self.bound, self._curvature("exact"), strict=True):
            if not parts.is_row_block:
                out[bound.at] += parts.between(v[bound.at])
        return out

    def half_trace_gradients(
        self, which: Curvature, blocks: Array, edges: Array, columns: Array
    ) -> tuple[Array, Array, float]:
        """Gradients of half the trace of G times the curvature at fixed G.

        Parameters
        ----------
        which : "majorizer" or "exact"
        blocks : (N, K + D, K + D) row blocks of G
        edges : (e, K + D, K + D) blocks of G on the edges of `coupled`
        columns : (c, N, K + D) G U for its low-rank columns U

        Returns
        -------
        grad_x (N, K + D), grad_rho (n_rho,), and the whole trace
        """
        k = self.k_atoms
        grad_x, grad_rho = np.zeros((self.n, self.width)), np.zeros(len(self.rho))
        wz = blocks[:, :k, :k]
        grad_x[:, :k] += 0.5 * self.amplitudes.log_jacobian_hessian_vjp(wz)
        trace = float(np.vdot(wz, self.amplitudes.log_jacobian_hessian()))
        for prior in self._manifolds:
            inside = blocks[prior.rows, prior.columns, prior.columns]
            grad_x[prior.rows, prior.columns] += 0.5 * np.einsum(
                "nab,nabc->nc", inside, prior.jet[3])
            trace += float(np.vdot(inside, prior.jet[2]))
        first_edge = first_column = 0
        for bound, parts in zip(self.bound, self._curvature(which), strict=True):
            last_edge = first_edge + len(parts.edges)
            last_column = first_column + len(parts.columns)
            across = bound.columns[0] if len(bound.rows) else NOWHERE
            G = RowInverse(blocks[bound.pairs],
                           edges[np.ix_(np.arange(first_edge, last_edge), across, across)],
                           columns[first_column:last_column][(slice(None), *bound.at)])
            first_edge, first_column = last_edge, last_column
            arguments = (bound.target, bound.rho, G, which)
            grad_x[bound.at] += 0.5 * bound.penalty.curvature_vjp(*arguments)
            grad_rho[bound.term.where] += 0.5 * bound.penalty.curvature_rho(*arguments)
            trace += G.inner(parts)
        return grad_x, grad_rho, trace

    # --- outer parameters ----------------------------------------------------------------------

    def value_rho(self) -> Array:
        """Gradient of the value in rho at fixed theta, (n_rho,)."""
        out = self._gates.value_rho()
        for bound in self.bound:
            out[bound.term.where] += bound.penalty.grad_rho(bound.target, bound.rho)
        return out

    def quadratic_constant_rho(self) -> Array:
        """Gradient in rho of what quadratic penalties are at a target of zero, (n_rho,)."""
        out = np.zeros(len(self.rho))
        for bound in self.bound:
            if bound.penalty.is_quadratic:
                out[bound.term.where] += bound.penalty.grad_rho(
                    np.zeros_like(bound.target), bound.rho)
        return out

    def gradient_rho_dot(self, u: Array) -> Array:
        """Inner products of u (N, K + D) with the mixed derivatives d gradient / d rho."""
        out = np.zeros(len(self.rho))
        for bound in self.bound:
            mixed = bound.penalty.grad_target_rho(bound.target, bound.rho)
            out[bound.term.where] += np.einsum("jna,na->j", mixed, u[bound.at])
        return out


def _partitions(bound: Bound) -> float | Array:
    """Log partition of a penalty on rows, the same for each of its rows or one a row."""
    penalty, n = bound.term.penalty, len(bound.rows)
    if penalty.restrict(np.arange(n), n) is penalty:
        return float(penalty.log_partition(bound.rho, 1)[0])
    return np.array([penalty.restrict(row, n).log_partition(bound.rho, 1)[0]
                     for row in np.arange(n)[:, None]])
