"""What a mixed model consists of: data, coefficients and priors, all but a state.

Notation of `model`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from reml_sae.engine import Outer, OuterPart, Theta
from reml_sae.models.family_part import family_part
from reml_sae.models.mixed.border import Border
from reml_sae.models.mixed.design import Design
from reml_sae.models.mixed.grouped import GroupedStructure, covariance_part, fixed_part
from reml_sae.models.mixed.moments import FirstRho
from reml_sae.models.mixed.smooths import LOG_STRENGTH_SPAN, BoundSmooth, SmoothPrior
from reml_sae.typing import Array, Mask


@dataclass(frozen=True, eq=False)
class MixedStructure(GroupedStructure):
    """A mixed model without a state.

    Attributes
    ----------
    family, method, x_names, terms, border
        See `GroupedStructure`.
    data : Design
        Responses, offset, groups, and X in full.
    all_smooths : tuple of BoundSmooth
        The smooths on the coefficients; those of ``border`` are on beta.
    eta_scale : float
        Typical size of what random effects explain.
    """

    data: Design
    all_smooths: tuple[BoundSmooth, ...]
    eta_scale: float

    @property
    def smooths(self) -> tuple[BoundSmooth, ...]:
        """The smooths on beta."""
        return self.border.smooths

    @cached_property
    def design(self) -> Design:
        """The data with X on beta."""
        if self.method != "Laplace":
            return self.data
        return replace(self.data, X=self.data.X @ self.border.inner)

    @cached_property
    def outer_X(self) -> Array:
        """X on the coefficients' outer parameters, (n, m)."""
        return self.data.X @ self.border.outer

    @cached_property
    def first(self) -> FirstRho:
        """Outer parameters by moments."""
        return FirstRho.of(self.family, self.design, self.terms, self.smooths, self.eta_scale)

    @cached_property
    def outer(self) -> Outer:
        """What rho consists of; the box of a strength lies around its first value."""
        centres = self.first.smooths
        smooths = OuterPart(
            "smooths", tuple(label for smooth in self.smooths for label in smooth.labels),
            centres[:, None] + np.array([-LOG_STRENGTH_SPAN, LOG_STRENGTH_SPAN]),
            np.ones(len(centres), bool))
        return Outer((covariance_part(self.terms), smooths, fixed_part(self.outer_X.shape[1])),
                     family_part(self.family))

    @cached_property
    def joint(self) -> MixedStructure:
        """The structure whose inner parameters hold all coefficients; itself but for "Laplace"."""
        if self.method != "Laplace":
            return self
        return MixedStructure(
            self.family, "ML", self.x_names, self.terms,
            Border.whole(self.all_smooths, len(self.x_names)), self.data, self.all_smooths,
            self.eta_scale)

    def smooth_prior(self, rho: Array) -> SmoothPrior:
        """The prior of the smooths at outer parameters; an inner solve asks for one many times."""
        logs = rho[self.outer["smooths"]]
        prior = self._last_prior.get(logs.tobytes())
        if prior is None:
            prior = SmoothPrior(self.smooths, self.design.X.shape[1], logs)
            self._last_prior.clear()
            self._last_prior[logs.tobytes()] = prior
        return prior

    @cached_property
    def _last_prior(self) -> dict[bytes, SmoothPrior]:
        """Of the log strengths that were asked for last."""
        return {}

    def integrated(self, prior: SmoothPrior) -> Mask:
        """Which graded directions of the border the criterion integrates."""
        return prior.penalised if self.method == "ML" else np.ones_like(prior.penalised)

    # --- values ----------------------------------------------------------------------------------

    def predictor(self, theta: Theta, rho: Array) -> Array:
        """Eta, (n,)."""
        eta = self.design.predictor(theta.xi, theta.beta[:, 0]) + self.data.offset
        return eta + self.outer_X @ rho[self.outer["fixed"]]

    def objective(self, theta: Theta, rho: Array) -> float:
        """F alone, without the work for its derivatives."""
        beta = theta.beta[:, 0]
        value = float(self._loss(theta, rho).sum())
        value += 0.5 * float((self.effects(rho).spherical(theta.xi) ** 2).sum())
        return value + 0.5 * float(self.smooth_prior(rho).energies(beta, beta).sum())

    def row_objective(self, theta: Theta, rho: Array) -> Array:
        """The part of F that belongs to each group, (G,)."""
        loss = self.design.group_sums(self._loss(theta, rho))
        return loss + 0.5 * (self.effects(rho).spherical(theta.xi) ** 2).sum(axis=1)

    def _loss(self, theta: Theta, rho: Array) -> Array:
        return self.family.loss(self.data.y, self.predictor(theta, rho), rho[self.outer.psi])
