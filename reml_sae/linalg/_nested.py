"""An arrowhead whose border is an arrowhead itself (DESIGN H1).

Every row meets one block of the border, b_k (m, p), and one row c (1, p) that all blocks share, as
where a row uses one atom and atoms share an intercept. So the Schur complement S on the border has
a block for each k, and one column of blocks for c:

    S = [ S_kk   S_k0 ]        Sigma = S_00 - sum_k S_0k S_kk^-1 S_k0
        [ .      S_00 ]        log|S| = sum_k log|S_kk| + log|Sigma|

Block k couples to its rows inside its own span Q_k (p, r) alone: with G the Gram matrix of b_k and
c, S_kk is G_kk on the p - r directions outside and T_kk, (m r) x (m r), inside, as in
`SpanArrowMatrix`. With F = T_kk^-1 T_k0, f = G_kk^-1 g_k0 and sigma_k = g_00 - g_0k f,

    S_kk^-1 S_k0 = F on Q_k, f (x) I outside
    Sigma = sum_k [ sigma_k I + Q_k (T_00 - T_0k F - sigma_k I) Q_k^T ]

Blocks of one size are one batch. No array has an axis of all blocks twice: time is linear in their
number, and in that of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reml_sae.errors import NotPositiveDefiniteError
from reml_sae.linalg._batched import (
    batched_cholesky,
    batched_cholesky_solve,
    factor_logdet,
)
from reml_sae.linalg._dense import DenseCholesky
from reml_sae.linalg._incidence import MeetsBlock
from reml_sae.linalg._rows import EliminatedRows
from reml_sae.typing import Array


@dataclass(frozen=True)
class BorderBlocks:
    """Blocks of the border of one size, and the rows that meet them.

    Attributes
    ----------
    rows : (n, q, q) row blocks D_i, sorted by block
    features : (n, m + 1) scaled basis phi_i; the last one is that of c
    jacobians : (n, q, r) row Jacobians j_i in coordinates of the span of their block
    incidence : MeetsBlock
    spans : (k, p, r) orthonormal columns Q_k
    grams : (k, m + 1, m + 1) G
    columns : (k, c, m, r) extra rank-one terms of every block, in its span
    """

    rows: Array
    features: Array
    jacobians: Array
    incidence: MeetsBlock
    spans: Array
    grams: Array
    columns: Array


@dataclass(frozen=True)
class BlockInverse:
    """What `SpanSelectedInverse` has, of one batch of blocks.

    Attributes
    ----------
    rows : (n, q, q) blocks of H^-1
    border_trace : (k, m + 1, m + 1) trace over outputs of the border block of H^-1
    jac_cross : (n, q, r) rows of T_i, in coordinates of the span of their block
    feature_cross : (n, m + 1) border rows of T_i, traced over outputs
    jac_beyond : (n, q, r) and beyond : (k, r, p)
        Their product is what the rows of T_i have outside that span, by way of c.
    """

    rows: Array
    border_trace: Array
    jac_cross: Array
    feature_cross: Array
    jac_beyond: Array
    beyond: Array


class NestedBorder:
    """Factor of the Schur complement S on the border, whose rows are gone but for their sums.

    Parameters
    ----------
    batches : sequence of BlockFactor
    shared : float
        What c has in S_00 beside the Gram matrices of the batches.

    Raises
    ------
    NotPositiveDefiniteError
        Naming the part of the border that failed.
    """

    def __init__(self, batches: Sequence[BlockFactor], shared: float):
        self._blocks = batches
        p = batches[0].spans.shape[1]
        sigma = shared * np.eye(p)
        for batch in batches:
            sigma += batch.left()
        self._shared = DenseCholesky.of(sigma, "the Schur complement on the border's shared row")

    def logdet(self) -> float:
        """Log-determinant of S."""
        return sum(batch.logdet_border() for batch in self._blocks) + self._shared.logdet()

    @cached_property
    def _shared_inverse(self) -> Array:
        return self._shared.inverse()

    def covariance(self, batch: int, block: int) -> Array:
        """The block of S^-1 of one block of the border for every output, (p, m, m)."""
        return self._blocks[batch].covariance(block, self._shared_inverse)

    def own_inverse(self, batch: int, v: Array) -> Array:
        """Apply the diagonal block of S^-1 at every block of a batch to v (k, m, p)."""
        own = self._blocks[batch]
        half = own.solve(v)
        return half + own.from_shared(self._shared.solve(own.towards_shared(half).T).T)


class NestedFactor(NestedBorder):
    """Factor of a nested arrowhead; vectors are (rows of every batch, blocks of every batch, c).

    Parameters
    ----------
    batches : sequence of BorderBlocks
    scale : float
        s of every batch.
    shared : float
        What c has in S_00 beside the Gram matrices of the batches.

    Raises
    ------
    NotPositiveDefiniteError
        Naming the row of its batch, or the part of the border that failed.
    """

    def __init__(self, batches: Sequence[BorderBlocks], scale: float, shared: float):
        self.batches = [_Batch(blocks, scale) for blocks in batches]
        super().__init__(self.batches, shared)

    def logdet(self) -> float:
        """Log-determinant of H."""
        return sum(batch.rows.logdet() for batch in self.batches) + super().logdet()

    def solve(
        self, g_rows: Sequence[Array], g_blocks: Sequence[Array], g_shared: Array
    ) -> tuple[list[Array], list[Array], Array]:
        """Solve H x = g for g = ((n, q) of every batch, (k, m, p) of every batch, (p,))."""
        halves, right = [], g_shared.copy()
        for batch, rows, blocks in zip(self.batches, g_rows, g_blocks, strict=True):
            taken = batch.rows.towards_border(batch.rows.solve(rows)) @ batch.transposed
            half = batch.solve(blocks - taken[:, :-1])
            halves.append(half)
            right -= taken[:, -1].sum(axis=0) + batch.towards_shared(half).sum(axis=0)
        shared = self._shared.solve(right)
        x_rows, x_blocks = [], []
        for batch, rows, half in zip(self.batches, g_rows, halves, strict=True):
            blocks = half - batch.from_shared(np.broadcast_to(shared, (len(half), len(shared))))
            met = np.concatenate(
                [blocks, np.broadcast_to(shared, (len(blocks), 1, len(shared)))], axis=1)
            # not D^-1 g - (D^-1 C) x_b, whose terms may cancel
            x_rows.append(batch.rows.solve(rows - batch.rows.from_border(met @ batch.spans)))
            x_blocks.append(blocks)
        return x_rows, x_blocks, shared

    def selected_inverse(self) -> tuple[list[BlockInverse], float]:
        """The parts of H^-1 that derivatives of log|H| need, and its trace at c."""
        inverse = self._shared_inverse
        total = float(np.trace(inverse))
        return [batch.selected_inverse(inverse, total) for batch in self.batches], total


class BlockFactor:
    """What the blocks of one batch have of the factor of S.

    Parameters
    ----------
    spans : (k, p, r) array
        Orthonormal columns Q_k.
    grams : (k, m + 1, m + 1) array
        G.
    columns : (k, c, m, r) array
        Extra rank-one terms of every block, in its span.
    coupling : (k, m + 1, r, m + 1, r) array
        C^T D^-1 C of the rows, inside the spans.
    """

    def __init__(self, spans: Array, grams: Array, columns: Array, coupling: Array):
        self.spans, self.transposed = spans, spans.swapaxes(1, 2)
        (k, p, r), m = spans.shape, grams.shape[1] - 1
        self._k, self._m, self._r, self.outside = k, m, r, p - r
        inside = np.einsum("kab,rs->karbs", grams, np.eye(r)) - coupling
        inside[:, :m, :, :m] += np.einsum("kcar,kcbs->karbs", columns, columns)
        inside = inside.reshape(k, (m + 1) * r, (m + 1) * r)
        own = m * r
        self._inside = _cholesky(inside[:, :own, :own], "the Schur complement")
        self._pull = batched_cholesky_solve(self._inside, inside[:, :own, own:])  # F
        self._across = inside[:, :own, own:]
        self._left = inside[:, own:, own:] - self._across.swapaxes(1, 2) @ self._pull
        self._edge = grams[:, :m, m]
        # outside the spans the border is G alone; where a span is everything, G may be singular
        self._lean, self._sigma = np.zeros((k, m)), np.zeros(k)
        self._gram = np.empty((k, 0, 0))
        if self.outside:
            self._gram = _cholesky(grams[:, :m, :m], "the Gram matrix")
            self._lean = batched_cholesky_solve(self._gram, self._edge[:, :, None])[:, :, 0]  # f
            self._sigma = grams[:, m, m] - np.einsum("km,km->k", self._edge, self._lean)

    def left(self) -> Array:
        """What the blocks leave to Sigma, (p, p)."""
        p = self.spans.shape[1]
        middle = self._left - self._sigma[:, None, None] * np.eye(self._r)
        turned = (self.spans @ middle).swapaxes(0, 1).reshape(p, -1)
        out: Array = turned @ self.spans.swapaxes(0, 1).reshape(p, -1).T
        return out + self._sigma.sum() * np.eye(p)

    def logdet_border(self) -> float:
        """Sum of log|S_kk|."""
        return (float(factor_logdet(self._inside).sum())
                + self.outside * float(factor_logdet(self._gram).sum()))

    def solve(self, v: Array) -> Array:
        """S_kk^-1 v for v (k, m, p)."""
        within = v @ self.spans
        flat = within.reshape(self._k, self._m * self._r, 1)
        solved = batched_cholesky_solve(self._inside, flat).reshape(within.shape)
        out: Array = solved @ self.transposed
        if self.outside:
            out += batched_cholesky_solve(self._gram, v - within @ self.transposed)
        return out

    def towards_shared(self, x: Array) -> Array:
        """S_0k x for x (k, m, p): (k, p)."""
        within = x @ self.spans
        inside = np.einsum("kar,kaq->kqr", within.reshape(self._k, -1, 1),
                           self._across)[:, :, 0]
        out = np.einsum("kpr,kr->kp", self.spans, inside)
        if self.outside:
            out += np.einsum("km,kmp->kp", self._edge, x - within @ self.transposed)
        return out

    def from_shared(self, x: Array) -> Array:
        """S_kk^-1 S_k0 x for x (k, p): (k, m, p)."""
        within = np.einsum("kpr,kp->kr", self.spans, x)
        inside = (self._pull @ within[:, :, None]).reshape(self._k, self._m, self._r)
        out: Array = inside @ self.transposed
        if self.outside:
            rest = x - np.einsum("kpr,kr->kp", self.spans, within)
            out += self._lean[:, :, None] * rest[:, None, :]
        return out

    def covariance(self, block: int, shared: Array) -> Array:
        """See `NestedBorder.covariance`."""
        Q, m, r = self.spans[block], self._m, self._r
        inside = _inverse(self._inside[block:block + 1])[0].reshape(m, r, m, r)
        out = np.einsum("or,arbs,os->oab", Q, inside, Q, optimize=True)
        # S_kk^-1 S_k0 = f (x) I + Q (F - f (x) I) Q^T, output by output
        lean = self._lean[block]
        bent = self._pull[block].reshape(m, r, r) - lean[:, None, None] * np.eye(r)
        turned = np.einsum("or,ars->oas", Q, bent)
        out += np.einsum("oas,st,obt->oab", turned, Q.T @ shared @ Q, turned, optimize=True)
        mixed = np.einsum("oas,os->oa", turned, shared @ Q)[:, :, None] * lean
        out += mixed + mixed.swapaxes(1, 2)
        out += np.diagonal(shared)[:, None, None] * np.outer(lean, lean)
        if self.outside:
            left = np.maximum(1.0 - np.einsum("or,or->o", Q, Q), 0.0)
            out += left[:, None, None] * _inverse(self._gram[block:block + 1])
        return out


class _Batch(BlockFactor):
    """The same with the rows that meet the blocks."""

    def __init__(self, blocks: BorderBlocks, scale: float):
        self.rows = EliminatedRows(blocks.rows, blocks.features, blocks.jacobians, scale,
                                   blocks.incidence)
        super().__init__(blocks.spans, blocks.grams, blocks.columns, self.rows.coupling())

    def selected_inverse(self, shared: Array, total: float) -> BlockInverse:
        """The parts of H^-1 here, from its block at c (p, p) and the trace of that."""
        k, m, r = self._k, self._m, self._r
        met = self.transposed @ shared
        within = met @ self.spans
        inside = np.empty((k, (m + 1) * r, (m + 1) * r))
        own, cross = m * r, self._pull @ within
        inside[:, :own, :own] = _inverse(self._inside) + cross @ self._pull.swapaxes(1, 2)
        inside[:, :own, own:] = -cross
        inside[:, own:, :own] = -cross.swapaxes(1, 2)
        inside[:, own:, own:] = within
        inside = inside.reshape(k, m + 1, r, m + 1, r)
        trace = np.einsum("karbr->kab", inside)
        lean = np.concatenate([self._lean, -np.ones((k, 1))], axis=1)
        if self.outside:
            rest = total - np.einsum("krr->k", within)
            trace += rest[:, None, None] * lean[:, :, None] * lean[:, None, :]
            trace[:, :m, :m] += self.outside * _inverse(self._gram)
        rows, jac_cross, feature_cross = self.rows.selected_inverse(inside, trace)
        # S^-1 from Q_k to outside is F X f of what a row meets, with X = G_00 and -1 for c
        unit = np.broadcast_to(-np.eye(r), (k, r, r))
        pull = np.concatenate([self._pull, unit], axis=1).reshape(k, m + 1, r * r)
        jac_beyond = self.rows.solved_jacobians() @ self.rows.met(pull).reshape(len(rows), r, r)
        jac_beyond *= -(self.rows.scale**2) * self.rows.met(lean[:, :, None])[:, :, None]
        return BlockInverse(rows, trace, jac_cross, feature_cross, jac_beyond,
                            met - within @ self.transposed)


def _inverse(lower: Array) -> Array:
    """Inverses (k, a, a) from lower factors."""
    unit = np.broadcast_to(np.eye(lower.shape[1]), lower.shape)
    return batched_cholesky_solve(lower, unit)


def _cholesky(blocks: Array, name: str) -> Array:
    """Factors of blocks of the border."""
    try:
        return batched_cholesky(blocks)
    except NotPositiveDefiniteError as error:
        raise NotPositiveDefiniteError(
            f"{name} on block {error.row} of the border is not positive definite") from None
