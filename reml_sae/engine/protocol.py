"""What the engine asks of a model: the protocol that the inner and outer loops are written against.

A *model* fixes the data and the structure. A *point* of a model is its state theta = (xi, beta)
under outer parameters rho, with every value and derivative that the loops need. Vectors of
theta's shape are pairs (rows, border), the frozen dataclass `Theta`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from reml_sae.engine.outer import Outer
from reml_sae.linalg import Factor
from reml_sae.typing import Array, Curvature


@dataclass(frozen=True)
class Theta:
    """Inner parameters, or a vector of the same shape.

    Attributes
    ----------
    xi : (N, q) local parameters of the rows
    beta : (M, p) shared parameters
    """

    xi: Array
    beta: Array

    def dot(self, other: Theta) -> float:
        """Euclidean inner product."""
        return float(np.vdot(self.xi, other.xi) + np.vdot(self.beta, other.beta))

    def scaled(self, factor: float) -> Theta:
        """The vector times ``factor``."""
        return Theta(factor * self.xi, factor * self.beta)

    def plus(self, other: Theta, factor: float = 1.0) -> Theta:
        """The vector plus ``factor`` times another."""
        return Theta(self.xi + factor * other.xi, self.beta + factor * other.beta)

    def max_abs(self) -> float:
        """Largest absolute entry, 0 for an empty vector."""
        parts = [float(np.abs(v).max()) for v in (self.xi, self.beta) if v.size]
        return max(parts, default=0.0)


@dataclass(frozen=True)
class LogDeterminant:
    """Half the log-determinant of the curvature with its explicit gradients (DESIGN A5).

    Attributes
    ----------
    value : float
        (1/2) log|H| together with the gauge volume.
    theta : Theta
        Gradient in theta at fixed rho.
    rho : (n_rho,) gradient in rho at fixed theta
    edf : float
        Effective degrees of freedom tr(H^-1 J^T W J).
    """

    value: float
    theta: Theta
    rho: Array
    edf: float


class InnerPoint(Protocol):
    """What the inner solve asks of F at one (theta, rho)."""

    theta: Theta
    rho: Array

    @property
    def factor_is_costly(self) -> bool:
        """Whether one of a state nearby is to stand in for a factor where it can."""
        ...

    @property
    def objective(self) -> float:
        """What the inner solve minimises."""
        ...

    def gradient(self) -> Theta:
        """Gradient of F in theta."""
        ...

    def factorize(self, damping: float = 0.0) -> Factor:
        """Factor of H + damping * diag(H), H the majorized curvature."""
        ...

    def hvp(self, v: Theta) -> Theta:
        """Exact Hessian of F (plus the gauge terms) times a vector."""
        ...


class ModelPoint(InnerPoint, Protocol):
    """Values and derivatives of F that the criterion asks for."""

    @property
    def dispersion_energy(self) -> float:
        """The part of F that is proportional to 1 / dispersion."""
        ...

    def half_logdet(self, curvature: Curvature) -> LogDeterminant:
        """The log-determinant term of the criterion and its explicit gradients."""
        ...

    def objective_rho(self) -> Array:
        """Gradient of the objective in rho at fixed parameters, (n_rho,)."""
        ...

    def normalizer_in_objective_rho(self) -> Array:
        """What quadratic strengths have of their normaliser within F: its gradient, (n_rho,)."""
        ...

    def gradient_rho_dot(self, u: Theta) -> Array:
        """Inner products <u, d grad F / d rho_m>, (n_rho,)."""
        ...

    def log_normalizer(self) -> tuple[float, Array]:
        """Sum of log partitions of all priors, and its gradient in rho."""
        ...


Point = TypeVar("Point", bound=InnerPoint, covariant=True)


class InnerModel(Protocol[Point]):
    """What the inner solve asks of a model."""

    def initial_theta(self) -> Theta:
        """State from which an inner solve starts."""
        ...

    def objective(self, theta: Theta, rho: Array) -> float:
        """F alone, without the work for its derivatives."""
        ...

    def merge_rows(self, old: Theta, new: Theta, rho: Array) -> Theta:
        """The new beta, with each row's old or new parameters, whichever is better under it."""
        ...

    def retract(self, theta: Theta, step: Theta, factor: float = 1.0) -> Theta:
        """Move along a step, staying on the coordinates' manifolds."""
        ...

    def refine_rows(self, theta: Theta, rho: Array, n_sweeps: int = 1) -> Theta:
        """Newton steps of every row on its own at fixed beta; no row's objective increases."""
        ...

    def at(self, theta: Theta, rho: Array) -> Point:
        """The model at a state and outer parameters."""
        ...


class RowSampler(Protocol):
    """Draws of all rows from the Gaussian approximation of their integrals."""

    @property
    def carried(self) -> NDArray[np.bool_]:
        """Which local parameters (N, q) a row carries."""
        ...

    def move(self, noise: Array) -> tuple[Theta, Array]:
        """State at standard normal noise (N, q), and the log volume element (N,) of the move.

        It is -inf where a row has left its manifold.
        """
        ...


class ArrowModel(InnerModel[ModelPoint], Protocol):
    """A model whose Hessian is a block arrowhead."""

    @property
    def outer(self) -> Outer:
        """What rho consists of."""
        ...

    def initial_rho(self) -> Array:
        """Outer parameters from which the outer loop starts."""
        ...

    def rho_frame(self, theta: Theta, rho: Array) -> Array:
        """Directions (n_rho, n_rho), as columns, along which a search may step by about one.

        Nonzero off the diagonal only between parameters without a box.
        """
        ...

    def rho_apart(self) -> Sequence[NDArray[np.intp]]:
        """Disjoint sets of outer parameters, with logs, between which V has no second derivative.

        But for what other parameters do to both.
        """
        ...

    def advance_rho(self, point: Any, rho: Array) -> Array:
        """Rho with those parameters that have a step of their own moved, from a mode found."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the data."""
        ...

    def objection(self, limits: Sequence[tuple[str, str]]) -> str:
        """Why no fit with these strengths at their limits has an optimum; empty where it may."""
        ...

    def hyperprior(self, rho: Array) -> tuple[float, Array]:
        """Negative log density of rho under its hyperpriors, and its gradient."""
        ...

    def strengths(self, rho: Array) -> dict[str, float]:
        """Strength of every learnable penalty, by name."""
        ...

    def weights(self) -> dict[str, float]:
        """Present weight of every penalty, by name."""
        ...

    @property
    def schedule_end(self) -> int | None:
        """First outer iteration at which every schedule is at its end; None without any."""
        ...

    def apply_schedule(self, iteration: int) -> Self:
        """The model with its scheduled weights at an outer iteration."""
        ...

    def settled(self) -> Self:
        """The model with its scheduled weights at their ends, without schedules."""
        ...

    @property
    def effective_dim(self) -> int:
        """Number of inner parameters that are integrated, dim theta."""
        ...
