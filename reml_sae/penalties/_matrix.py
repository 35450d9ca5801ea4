"""Penalties on targets with rows, and the pieces of their curvature that the engine asks for.

The target is seen as a matrix (n, d): rows of logits or coordinates, or a decoder. The engine reads
the curvature in the shapes of `RowCurvature`, its directional derivatives contracted with the
matching parts G of the inverse Hessian (`RowInverse`), and the mixed derivative in rho:

    curvature(target, rho, which)          B, or the exact Hessian
    curvature_vjp(target, rho, G, which)   d <G, B> / d target
    curvature_rho(target, rho, G, which)   d <G, B> / d rho
    grad_target_rho(target, rho)           d grad / d rho
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError
from reml_sae.penalties._base import Penalty, PenaltyTier
from reml_sae.penalties._curvature import RowCurvature, RowInverse
from reml_sae.typing import Array, Curvature


class Held:
    """Mixed into a kind whose normaliser is not known and whose one strength is its weight."""

    ZERO_WEIGHT: ClassVar[bool] = True

    @property
    def is_normalised(self) -> bool:
        """False: no normaliser is known, as a rule because exp(-P) has infinite mass."""
        return False

    def n_strengths(self) -> int:
        """None that rho moves."""
        return 0

    def log_partition(self, rho: Array, n_rows: int) -> None:
        """None."""
        return


class MatrixPenalty(Penalty):
    """A penalty on a matrix target (n, d).

    A subclass gives ``width``, ``value``, ``row_gradient``, ``curvature`` and ``curvature_vjp``.
    The derivatives in rho are those of a P that is linear in its one strength, unless overridden.
    """

    ROW_BLOCK_DIAGONAL: ClassVar[bool] = False
    TIER: ClassVar[PenaltyTier] = PenaltyTier.PSI

    @abstractmethod
    def width(self) -> int:
        """Columns d of the target's matrix view."""

    def majorizer_slack(self, target: Array, rho: Array) -> Array:
        """By how much the engine's B may exceed the contract's, to be smooth: a flat diagonal."""
        return np.zeros(np.size(target))

    @abstractmethod
    def row_gradient(self, target: Array, rho: Array) -> Array:
        """Exact gradient in the matrix view, (n, d)."""

    @abstractmethod
    def curvature(self, target: Array, rho: Array, which: Curvature) -> RowCurvature:
        """The exact Hessian, or a majorizer of it that is positive semidefinite and smooth."""

    @abstractmethod
    def curvature_vjp(
        self, target: Array, rho: Array, G: RowInverse, which: Curvature
    ) -> Array:
        """Gradient (n, d) of <G, B> in the target, at fixed G."""

    def by_output(self) -> bool:
        """Whether the target is a decoder (d, n) whose columns are the rows of the matrix view."""
        return False

    def n_rows_expected(self) -> int | None:
        """Rows that the penalty holds values for; None where it takes any number."""
        return None

    def restrict(self, index: NDArray[np.intp], n_rows: int) -> Self:
        """The penalty for some of its ``n_rows`` rows."""
        return self

    def null_space(self, n_rows: int) -> RowCurvature | None:
        """Projector on the directions of an (n, d) target along which P is flat; None for none.

        It is asked for where P is normalised: `log_partition` leaves these directions out.

        Raises
        ------
        InputError
            Where it would be too large.
        """
        return None

    def rows(self, target: Array) -> Array:
        """The target's matrix view, (n, d).

        Raises
        ------
        InputError
            Where the shape does not fit.
        """
        target = np.asarray(target, float)
        d = self.width()
        if self.by_output():
            if target.ndim > 2 or target.size % d or (target.ndim == 2 and len(target) != d):
                raise InputError(
                    f"{self.KIND_TAG}: the target must be ({d}, p) or flat with a multiple of {d} "
                    f"entries, got shape {target.shape}"
                )
            out = target.reshape(d, -1).T
        elif target.ndim == 2 and target.shape[1] == d:
            out = target
        elif target.ndim != 1 or target.size % d:
            raise InputError(
                f"{self.KIND_TAG}: the target must be (n, {d}) or flat with a multiple of {d} "
                f"entries, got shape {target.shape}"
            )
        else:
            out = target.reshape(-1, d)
        expected = self.n_rows_expected()
        if expected is not None and len(out) != expected:
            raise InputError(
                f"{self.KIND_TAG}: it holds values for {expected} rows, the target has {len(out)}"
            )
        return out

    def flat(self, matrix: Array) -> Array:
        """A matrix view back in the order of the flat target."""
        return (matrix.T if self.by_output() else matrix).ravel()

    # --- the contract ------------------------------------------------------------------------

    def grad_target(self, target: Array, rho: Array) -> Array:
        """Exact gradient, flat."""
        return self.flat(self.row_gradient(target, rho))

    def hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """Exact Hessian times a flat vector."""
        return self.flat(self.curvature(target, rho, "exact").matvec(self.rows(v)))

    def hessian_diag(self, target: Array, rho: Array) -> Array | None:
        """None: the Hessian is not diagonal."""
        return None

    def psd_majorizer_diag(self, target: Array, rho: Array) -> Array:
        """Diagonal of the majorizer, flat."""
        return self.flat(self.curvature(target, rho, "majorizer").diagonal())

    def psd_majorizer_hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """Majorizer times a flat vector."""
        return self.flat(self.curvature(target, rho, "majorizer").matvec(self.rows(v)))

    # --- linear in the one strength ----------------------------------------------------------

    def strength(self, rho: Array) -> float:
        """The one strength; the weight where the penalty owns none."""
        strengths = self.strengths(rho)
        return float(strengths[0]) if strengths.size else float(self.weight)

    def grad_rho(self, target: Array, rho: Array) -> Array:
        """P itself: P is linear in the strength."""
        return np.full(self.rho_count(), self.value(target, rho))

    def grad_target_rho(self, target: Array, rho: Array) -> Array:
        """The gradient itself in the matrix view, (rho_count, n, d)."""
        return np.repeat(self.row_gradient(target, rho)[None], self.rho_count(), axis=0)

    def curvature_rho(
        self, target: Array, rho: Array, G: RowInverse, which: Curvature
    ) -> Array:
        """<G, B> itself, (rho_count,)."""
        if not self.rho_count():
            return np.zeros(0)
        return np.full(self.rho_count(), G.inner(self.curvature(target, rho, which)))


class RowPenalty(MatrixPenalty):
    """A penalty whose Hessian is block diagonal over the rows of an (n, d) target.

    A subclass gives ``row_values`` and the blocks. Where P is convex it gives ``row_blocks`` and
    ``row_blocks_vjp`` alone: the majorizer is the Hessian.
    """

    ROW_BLOCK_DIAGONAL: ClassVar[bool] = True

    @abstractmethod
    def row_values(self, target: Array, rho: Array) -> Array:
        """P of every row, (n,)."""

    @abstractmethod
    def row_blocks(self, target: Array, rho: Array) -> Array:
        """Exact Hessian blocks, (n, d, d)."""

    @abstractmethod
    def row_blocks_vjp(self, target: Array, rho: Array, weights: Array) -> Array:
        """Gradient (n, d) of sum_ab W_ab Hess_ab for fixed symmetric W (n, d, d)."""

    def row_majorizer(self, target: Array, rho: Array) -> Array:
        """Positive semidefinite blocks that majorize the exact ones, (n, d, d), smooth."""
        return self.row_blocks(target, rho)

    def row_majorizer_vjp(self, target: Array, rho: Array, weights: Array) -> Array:
        """Gradient (n, d) of sum_ab W_ab B_ab for fixed symmetric W (n, d, d)."""
        return self.row_blocks_vjp(target, rho, weights)

    def value(self, target: Array, rho: Array) -> float:
        """P, strengths folded in."""
        return float(self.row_values(target, rho).sum())

    def curvature(self, target: Array, rho: Array, which: Curvature) -> RowCurvature:
        """Row blocks alone."""
        blocks = self.row_blocks if which == "exact" else self.row_majorizer
        return RowCurvature(blocks(target, rho))

    def curvature_vjp(
        self, target: Array, rho: Array, G: RowInverse, which: Curvature
    ) -> Array:
        """Gradient (n, d) of <G, B> in the target."""
        vjp = self.row_blocks_vjp if which == "exact" else self.row_majorizer_vjp
        return vjp(target, rho, G.blocks)
