"""What a nonlinear mixed model consists of: data, curve and priors, all but a state.

Notation of `model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from reml_sae.engine import Outer, Theta
from reml_sae.models.family_part import family_part
from reml_sae.models.mixed.border import Border
from reml_sae.models.mixed.grouped import GroupedStructure, covariance_part, fixed_part
from reml_sae.models.mixed.smooths import BoundSmooth
from reml_sae.models.nonlinear.design import GroupedData
from reml_sae.models.nonlinear.mean import Mean, jets
from reml_sae.typing import Array, Mask


@dataclass(frozen=True, eq=False)
class NonlinearStructure(GroupedStructure):
    """A nonlinear mixed model without a state.

    Attributes
    ----------
    family, method, x_names, terms, border
        See `GroupedStructure`.
    data : GroupedData
    mean : Mean
    effect_columns : (q,) int array
        Numbers of the parameters with an effect.
    """

    data: GroupedData
    mean: Mean
    effect_columns: NDArray[np.intp]

    @property
    def all_smooths(self) -> tuple[BoundSmooth, ...]:
        """None: no coefficient has a prior."""
        return ()

    @cached_property
    def effect_map(self) -> Array:
        """E, (P, q)."""
        return np.eye(len(self.x_names))[:, self.effect_columns]

    @cached_property
    def integrated(self) -> Mask:
        """Which inner coefficients the criterion integrates, (r,)."""
        return np.full(self.border.inner.shape[1], self.method != "ML")

    @cached_property
    def outer(self) -> Outer:
        """What rho consists of."""
        return Outer((covariance_part(self.terms), fixed_part(self.border.outer.shape[1])),
                     family_part(self.family))

    @cached_property
    def joint(self) -> NonlinearStructure:
        """The structure whose inner parameters hold all coefficients; itself but for "Laplace"."""
        if self.method != "Laplace":
            return self
        return NonlinearStructure(
            family=self.family, method="ML", x_names=self.x_names, terms=self.terms,
            border=Border.whole((), len(self.x_names)), data=self.data, mean=self.mean,
            effect_columns=self.effect_columns)

    # --- values ----------------------------------------------------------------------------------

    def parameters(self, theta: Theta, rho: Array) -> Array:
        """Phi, the parameters of every observation's curve, (n, P)."""
        groups = self.coefficients(theta, rho) + theta.xi @ self.effect_map.T
        return groups[self.data.group]

    def jets(self, phi: Array, order: int) -> tuple[Array, ...]:
        """The curve and its derivatives at ``phi`` (n, P); not finite outside its domain."""
        return jets(self.mean, phi, order)

    def predictor(self, theta: Theta, rho: Array) -> Array:
        """Eta, (n,)."""
        return self.jets(self.parameters(theta, rho), 0)[0]

    def objective(self, theta: Theta, rho: Array) -> float:
        """F alone; infinite where the curve is not finite."""
        spherical = self.effects(rho).spherical(theta.xi)
        with np.errstate(over="ignore"):
            loss = self._losses(theta, rho).sum()
        return (float(loss) if np.isfinite(loss) else np.inf) + 0.5 * float((spherical**2).sum())

    def row_objective(self, theta: Theta, rho: Array) -> Array:
        """The part of F that belongs to each group, (G,); infinite where eta is not finite."""
        spherical = self.effects(rho).spherical(theta.xi)
        with np.errstate(over="ignore"):
            losses = self._losses(theta, rho)
        return np.bincount(self.data.group, losses) + 0.5 * (spherical**2).sum(axis=1)

    def _losses(self, theta: Theta, rho: Array) -> Array:
        """Loss of every observation, infinite where its eta is not finite."""
        eta = self.predictor(theta, rho)
        legal = np.isfinite(eta)
        loss = self.family.loss(self.data.y, np.where(legal, eta, 0.0), rho[self.outer.psi])
        return np.where(legal, loss, np.inf)
