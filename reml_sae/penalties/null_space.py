"""The prior of the directions along which another prior is flat.

Total variation says nothing of the mean of a sequence, nor a sheaf of its global sections: exp(-P)
is a density of what it does penalise alone, and an evidence with it has an arbitrary constant.
There the coordinates have the prior that they would have without P, a standard normal. With Pi the
projector on the null space of P,

    P_0 = 1/2 t^T Pi t,    log C_0 = (rank Pi / 2) log 2 pi

P + P_0 is a proper prior, since the two act on orthogonal directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reml_sae.penalties._curvature import RowCurvature, RowInverse
from reml_sae.penalties._matrix import MatrixPenalty
from reml_sae.typing import Array, Curvature


@dataclass(frozen=True, kw_only=True, eq=False)
class NullSpacePrior(MatrixPenalty):
    """Standard normal on the null space of a penalty of coordinates; the model adds it by itself.

    Parameters
    ----------
    projector : RowCurvature
        Pi, over the entries of the (n, d) target.
    """

    projector: RowCurvature

    KIND_TAG: ClassVar[str] = "null_space_prior"

    def n_strengths(self) -> int:
        """None: its precision is one."""
        return 0

    @property
    def is_quadratic(self) -> bool:
        """True."""
        return True

    def width(self) -> int:
        """The dimension d."""
        return self.projector.blocks.shape[1]

    def n_rows_expected(self) -> int:
        """Rows of the projector."""
        return len(self.projector.blocks)

    def value(self, target: Array, rho: Array) -> float:
        """P_0."""
        t = self.rows(target)
        return 0.5 * float(np.vdot(t, self.projector.matvec(t)))

    def row_gradient(self, target: Array, rho: Array) -> Array:
        """Pi t, (n, d)."""
        return self.projector.matvec(self.rows(target))

    def curvature(self, target: Array, rho: Array, which: Curvature) -> RowCurvature:
        """Pi; the majorizer is the Hessian."""
        return self.projector

    def curvature_vjp(
        self, target: Array, rho: Array, G: RowInverse, which: Curvature
    ) -> Array:
        """Zero: the Hessian is constant."""
        return np.zeros_like(self.rows(target))

    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array]:
        """(rank / 2) log 2 pi."""
        rank = float(self.projector.diagonal().sum())
        return 0.5 * rank * np.log(2.0 * np.pi), np.zeros(0)
