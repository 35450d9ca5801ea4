"""What models share whose rows are groups of observations, linear or not.

Their only inner parameters are the effects of the groups and the coefficients; priors have no
weights of their own and no schedules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from reml_sae.engine import Outer, OuterPart, Theta
from reml_sae.families import Family
from reml_sae.linalg import ArrowFactor, ArrowMatrix, batched_cholesky
from reml_sae.models.mixed.border import Border
from reml_sae.models.mixed.covariance import REACH, Covariance, EffectsPrior, term_slices
from reml_sae.models.mixed.layout import Layout
from reml_sae.typing import Array, Curvature, Index

LEAST_STEP = 1e-8
"""Of a fixed effect in a search, as a share of the typical size of eta."""


@dataclass(frozen=True, eq=False)
class GroupedStructure(ABC):
    """A model whose rows are groups, without a state.

    Attributes
    ----------
    family : Family
    method : "REML", "ML" or "Laplace"
    x_names : tuple of str
        Names of the P coefficients.
    terms : tuple of Covariance
        Of the groups' effects.
    border : Border
        Which directions of the coefficients are inner and which outer parameters.
    """

    family: Family
    method: str
    x_names: tuple[str, ...]
    terms: tuple[Covariance, ...]
    border: Border

    @property
    @abstractmethod
    def outer(self) -> Outer:
        """What rho consists of: "covariance", "fixed" and, where there are any, "smooths"."""

    @property
    @abstractmethod
    def joint(self) -> GroupedStructure:
        """The structure whose inner parameters hold all coefficients; itself but for "Laplace"."""

    @abstractmethod
    def row_objective(self, theta: Theta, rho: Array) -> Array:
        """The part of F that belongs to each group, (G,)."""

    def coefficients(self, theta: Theta, rho: Array) -> Array:
        """Coefficients of all columns of X, (P,)."""
        return self.border.inner @ theta.beta[:, 0] + self.border.outer @ rho[self.outer["fixed"]]

    def joint_rho(self, rho: Array) -> Array:
        """Outer parameters of `joint`: those but the fixed effects."""
        return np.delete(rho, self.outer["fixed"])

    def effects(self, rho: Array) -> EffectsPrior:
        """The prior of the groups' effects at outer parameters."""
        return EffectsPrior.of(self.terms, rho[self.outer["covariance"]])


class GroupedModel(GroupedStructure):
    """A structure with a start, and what the engine asks that does not depend on how eta is made.

    The start is found when it is first asked for, unless it is given.
    """

    layout: Layout | None = None
    """Where its arrays came from, if from a formula."""
    _theta: Theta | None = None
    _rho: Array | None = None

    @abstractmethod
    def at(self, theta: Theta, rho: Array) -> GroupedPoint:
        """The model at a state and outer parameters."""

    def row_sampler(self, theta: Theta, rho: Array) -> GroupSampler:
        """Draws of the groups' effects around a mode."""
        return GroupSampler(self.at(theta, rho))

    @property
    def rho_names(self) -> tuple[str, ...]:
        """Names of the outer parameters, in order."""
        return self.outer.names

    def objection(self, limits: Sequence[tuple[str, str]]) -> str:
        """None is known for any mean; see `MixedModel`."""
        return ""

    def rho_apart(self) -> Sequence[Index]:
        """None: all groups have the same parameters."""
        return ()

    def rho_frame(self, theta: Theta, rho: Array) -> Array:
        """Unit steps of logs; others by the standard deviations that the other parameters give.

        An entry of a Cholesky factor is a regression coefficient whose residual is its row's own
        deviation. Fixed effects have the covariance of the joint mode.
        """
        frame = np.eye(len(rho))
        covariance, fixed = self.outer["covariance"], self.outer["fixed"]
        scales = np.concatenate([np.zeros(0), *(term.steps(rho[own]) for term, own in zip(
            self.terms, term_slices(self.terms, covariance.start), strict=True))])
        frame[covariance, covariance] = np.diag(scales)
        if fixed.stop > fixed.start:
            joint = self.at(theta, rho).joint().whole_inverse().border
            own = self.border.outer_covariance(joint)
            values, vectors = np.linalg.eigh(own)
            sizes = np.clip(REACH * np.sqrt(np.maximum(values, 0.0)), LEAST_STEP, 1.0)
            # the symmetric root turns as little as can be from one state to the next
            frame[fixed, fixed] = (vectors * sizes) @ vectors.T
        return frame

    def advance_rho(self, point: Any, rho: Array) -> Array:
        """Rho itself: no outer parameter has a step of its own."""
        return rho

    def hyperprior(self, rho: Array) -> tuple[float, Array]:
        """Flat."""
        return 0.0, np.zeros_like(rho)

    def weights(self) -> dict[str, float]:
        """No penalty of a mixed model has a weight of its own."""
        return {}

    @property
    def schedule_end(self) -> None:
        """None: no penalty has a weight schedule."""
        return

    def apply_schedule(self, iteration: int) -> Self:
        """The model itself."""
        return self

    def settled(self) -> Self:
        """The model itself."""
        return self

    def with_state(self, theta: Theta, rho: Array) -> Self:
        """The same model with another start."""
        other = copy(self)
        other._theta, other._rho = theta, np.asarray(rho, float)
        return other

    def retract(self, theta: Theta, step: Theta, factor: float = 1.0) -> Theta:
        """Move along a step."""
        return theta.plus(step, factor)

    def merge_rows(self, old: Theta, new: Theta, rho: Array) -> Theta:
        """The new coefficients, with each group's old or new effects, whichever is better."""
        kept = Theta(old.xi, new.beta)
        better = self.row_objective(new, rho) < self.row_objective(kept, rho)
        return Theta(np.where(better[:, None], new.xi, old.xi), new.beta)


def covariance_part(terms: Sequence[Covariance]) -> OuterPart:
    """The outer parameters of the effects' covariances, one term after another."""
    return OuterPart(
        "covariance", tuple(label for term in terms for label in term.labels),
        np.concatenate([np.zeros((0, 2)), *(term.bounds for term in terms)]),
        np.concatenate([np.zeros(0, bool), *(term.is_quadratic for term in terms)]))


def fixed_part(count: int) -> OuterPart:
    """Directions of the coefficients that are outer parameters; they have no box."""
    return OuterPart("fixed", tuple(f"fixed[{j}]" for j in range(count)),
                     np.tile([-np.inf, np.inf], (count, 1)), np.zeros(count, bool))


class GroupSampler:
    """Gaussian draws of the effects around their modes; see `RowSampler`.

    Parameters
    ----------
    point : GroupedPoint
    """

    def __init__(self, point: GroupedPoint):
        self.theta = point.theta
        self.carried = np.ones(point.theta.xi.shape, bool)
        self._map = point.effects.factor
        blocks = point.matrix("exact").rows
        if blocks.shape[1] and np.linalg.eigvalsh(blocks).min(initial=1.0) <= 0.0:
            blocks = point.matrix("majorizer").rows
        self._upper = batched_cholesky(blocks).transpose(0, 2, 1)

    def move(self, noise: Array) -> tuple[Theta, Array]:
        """State at standard normal noise; effects have no bound."""
        spherical = np.asarray(np.linalg.solve(self._upper, noise[:, :, None])[:, :, 0], float)
        moved = Theta(self.theta.xi + spherical @ self._map.T, self.theta.beta)
        return moved, np.zeros(len(noise))


@dataclass(frozen=True)
class InverseBlocks:
    """H^-1 on the pattern of H, with what the derivatives of its log-determinant need.

    Attributes
    ----------
    half_logdet : float
    rows : (G, q, q) array
    coupling : (G, q, P) array
    border : (P, P) array
        The blocks in the coordinates of the effects and of the coefficients.
    spherical_rows : (G, q, q) array
        The row blocks for spherical effects.
    graded_border : (P, P) array
        The border for graded coefficients.
    """

    half_logdet: float
    rows: Array
    coupling: Array
    border: Array
    spherical_rows: Array
    graded_border: Array


class GroupedPoint(ABC):
    """Pieces of a point that do not depend on how eta is made; computed when asked for, once."""

    structure: Any
    eta: Array
    factor_is_costly = False

    def __init__(self, structure: GroupedStructure, theta: Theta, rho: Array):
        self.structure, self.theta, self.rho = structure, theta, rho
        self.effects = structure.effects(rho)
        self.psi = rho[structure.outer.psi]
        self.beta: Array = theta.beta[:, 0]
        self._whole: dict[Curvature, InverseBlocks] = {}

    def joint(self) -> Self:
        """The point with all coefficients inside, at the same effects, coefficients and priors."""
        structure, joint = self.structure, self.structure.joint
        if joint is structure:
            return self
        beta = structure.coefficients(self.theta, self.rho)[:, None]
        return type(self)(joint, Theta(self.theta.xi, beta), structure.joint_rho(self.rho))

    @abstractmethod
    def matrix(self, curvature: Curvature, damping: float = 0.0) -> ArrowMatrix[Array]:
        """H + damping * diag(H), in spherical coordinates of the effects."""

    def _damped_factor(self, damping: float) -> ArrowFactor[Array]:
        """Factor of the majorizer, damped."""
        return self.matrix("majorizer", damping).factorize() if damping else self._factor

    @cached_property
    def _factor(self) -> ArrowFactor[Array]:
        return self.matrix("majorizer").factorize()

    def _integrated_factor(
        self, curvature: Curvature, integrated: NDArray[np.bool_]
    ) -> ArrowFactor[Array]:
        """Factor of H without the columns of the border that are not integrated."""
        if integrated.all() and curvature == "majorizer":
            return self._factor
        whole = self.matrix(curvature)
        return ArrowMatrix(whole.rows, whole.coupling[:, :, integrated],
                           whole.border[np.ix_(integrated, integrated)]).factorize()

    @abstractmethod
    def inverse_blocks(self, curvature: Curvature, integrated: NDArray[np.bool_]) -> InverseBlocks:
        """Inverse of H on the effects and some coefficients, 0 elsewhere."""

    def _loss_eta(self, order: int) -> Array:
        return self.structure.family.loss_eta(self.structure.data.y, self.eta, self.psi, order)

    @cached_property
    def _score(self) -> Array:
        return self._loss_eta(1)

    @cached_property
    def _observed(self) -> Array:
        return self._loss_eta(2)

    @cached_property
    def _expected(self) -> Array:
        return self.structure.family.weight(self.structure.data.y, self.eta, self.psi, 0)

    def whole_inverse(self, curvature: Curvature = "majorizer") -> InverseBlocks:
        """Inverse of the whole of H."""
        if curvature not in self._whole:
            everything = np.ones(len(self.beta), bool)
            self._whole[curvature] = self.inverse_blocks(curvature, everything)
        return self._whole[curvature]

    @property
    def dispersion_energy(self) -> float:
        """RSS / (2 phi) of a Gaussian; 0 for a family without a dispersion."""
        family = self.structure.family
        if not family.has_dispersion:
            return 0.0
        deviance = family.deviance(self.structure.data.y, self.eta, self.psi)
        return 0.5 * float(np.exp(-self.psi[0]) * deviance.sum())
