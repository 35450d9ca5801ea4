"""The contract that every penalty fulfils.

Public methods take the target flat and row-major, or as its matrix. ``rho`` holds the log strengths
that the penalty owns, ``rho_count()`` of them; the effective weight is weight * exp(rho).

The engine reads row-block penalties through ``row_*`` methods, which give the (n, d, d) blocks of
the curvature and their contracted derivatives, and quadratic decoder penalties through ``gram``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError, RegistryError
from reml_sae.penalties._schedule import ScalarWeightSchedule

Array = NDArray[np.float64]

RHO_LIMIT = 700.0


class PenaltyTier(Enum):
    """Where a penalty acts."""

    BETA = "beta"
    """Decoder coefficients."""
    PSI = "psi"
    """Extension coordinates: logits and latent coordinates."""
    RHO = "rho"
    """Outer parameters."""


@dataclass(frozen=True, kw_only=True)
class Penalty(ABC):
    """Base class of penalties.

    Parameters
    ----------
    weight : float
        Positive factor of the penalty.
    weight_schedule : ScalarWeightSchedule or dict, optional
        Moves the weight with the outer iteration.
    learnable : bool
        Whether REML chooses log strengths on top of the weight.
    """

    weight: float = 1.0
    weight_schedule: ScalarWeightSchedule | None = None
    learnable: bool = True

    KIND_TAG: ClassVar[str]
    PYTHON_WRAPPER: ClassVar[str]
    ROW_BLOCK_DIAGONAL: ClassVar[bool]
    TIER: ClassVar[PenaltyTier]
    is_normalised: ClassVar[bool] = True
    is_quadratic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        number = isinstance(self.weight, (int, float, np.floating, np.integer))
        if not number or isinstance(self.weight, bool) or not 0 < self.weight < np.inf:
            raise InputError(f"weight must be a positive number, got {self.weight!r}")
        if isinstance(self.weight_schedule, dict):
            schedule = ScalarWeightSchedule.from_config(self.weight_schedule)
            object.__setattr__(self, "weight_schedule", schedule)
        if self.learnable and not self.is_normalised:
            raise RegistryError(
                f"{self.KIND_TAG} has no finite normaliser, so minimising over its strength would "
                "send it to zero; set learnable=False"
            )

    # --- identity ----------------------------------------------------------------------------

    def tier(self) -> PenaltyTier:
        """Part of the model that the penalty acts on."""
        return self.TIER

    def dispatch_tier(self) -> PenaltyTier:
        """Part of the Hessian that its curvature goes to."""
        return self.TIER

    def name(self) -> str:
        """The kind, as messages name it."""
        return self.KIND_TAG

    @property
    def is_learnable(self) -> bool:
        """Whether REML chooses its strengths."""
        return self.learnable

    @abstractmethod
    def n_strengths(self) -> int:
        """Number of strengths, learnable or not."""

    def rho_count(self) -> int:
        """Length of ``rho``: the strengths where learnable, else 0."""
        return self.n_strengths() if self.learnable else 0

    def strengths(self, rho: Array) -> Array:
        """Effective weights weight * exp(rho), (n_strengths,).

        Raises
        ------
        InputError
            Where rho has the wrong length or leaves [-700, 700].
        """
        rho = np.atleast_1d(np.asarray(rho, float))
        if not self.learnable:
            return np.full(self.n_strengths(), float(self.weight))
        if rho.shape != (self.n_strengths(),):
            raise InputError(
                f"{self.KIND_TAG}: rho must have {self.n_strengths()} entries, got {rho.shape}"
            )
        if not (np.abs(rho) <= RHO_LIMIT).all():
            raise InputError(
                f"{self.KIND_TAG}: log strengths must lie in [-{RHO_LIMIT:g}, {RHO_LIMIT:g}], "
                f"got {rho}"
            )
        return self.weight * np.exp(rho)

    # --- values and derivatives ----------------------------------------------------------------

    @abstractmethod
    def value(self, target: Array, rho: Array) -> float:
        """P, strengths folded in."""

    @abstractmethod
    def grad_target(self, target: Array, rho: Array) -> Array:
        """Exact gradient, flat."""

    @abstractmethod
    def hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """Exact Hessian times a flat vector."""

    @abstractmethod
    def hessian_diag(self, target: Array, rho: Array) -> Array | None:
        """Exact diagonal of a diagonal Hessian; None where the Hessian is not diagonal."""

    @abstractmethod
    def psd_majorizer_diag(self, target: Array, rho: Array) -> Array:
        """Diagonal of B, where B - d2P and B are positive semidefinite."""

    @abstractmethod
    def psd_majorizer_hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """B times a flat vector."""

    @abstractmethod
    def grad_rho(self, target: Array, rho: Array) -> Array:
        """Derivative of P in rho, (rho_count,)."""

    @abstractmethod
    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array] | None:
        """Log of int exp(-P) over the target, and its gradient in rho; None where improper.

        ``n_rows`` counts the rows of a row-wise target, or the output columns of a decoder.
        """

    # --- schedule --------------------------------------------------------------------------------

    def with_weight_schedule(self, schedule: ScalarWeightSchedule) -> Self:
        """The penalty with its weight at the schedule's present place."""
        return replace(self, weight_schedule=schedule, weight=schedule.weight_at(
            schedule.iter_count))

    def apply_schedule(self, iteration: int) -> Self:
        """The penalty with its weight at an outer iteration; itself where it has no schedule."""
        if self.weight_schedule is None:
            return self
        schedule = self.weight_schedule
        floor = 1e-12 * max(schedule.w_start, schedule.w_end)
        return replace(self, weight_schedule=replace(schedule, iter_count=iteration + 1),
                       weight=max(schedule.weight_at(iteration), floor))

    def settled(self) -> Self:
        """The penalty at the end of its schedule, without it."""
        if self.weight_schedule is None:
            return self
        return replace(self, weight_schedule=None, weight=self.weight_schedule.w_end)

    # --- configuration ---------------------------------------------------------------------------

    def to_config(self) -> dict[str, Any]:
        """Dictionary of plain values from which `from_config` makes the same penalty."""
        config: dict[str, Any] = {"kind": self.KIND_TAG}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, ScalarWeightSchedule):
                value = value.to_config()
            elif isinstance(value, np.ndarray):
                value = value.tolist()
            elif isinstance(value, np.generic):
                value = value.item()
            if value is not None:
                config[item.name] = value
        return config


class RowPenalty(Penalty):
    """A penalty on (n, d) targets whose Hessian is block diagonal over rows.

    A subclass gives ``row_values`` and the blocks; the flat methods of the contract follow.
    """

    ROW_BLOCK_DIAGONAL: ClassVar[bool] = True
    TIER: ClassVar[PenaltyTier] = PenaltyTier.PSI

    @abstractmethod
    def width(self) -> int:
        """Columns d of the target."""

    @abstractmethod
    def row_values(self, target: Array, rho: Array) -> Array:
        """P of every row, (n,)."""

    @abstractmethod
    def row_gradient(self, target: Array, rho: Array) -> Array:
        """Gradient, (n, d)."""

    @abstractmethod
    def row_blocks(self, target: Array, rho: Array) -> Array:
        """Exact Hessian blocks, (n, d, d)."""

    @abstractmethod
    def row_majorizer(self, target: Array, rho: Array) -> Array:
        """Positive semidefinite blocks that majorize the exact ones, (n, d, d), smooth."""

    @abstractmethod
    def row_blocks_vjp(self, target: Array, rho: Array, weights: Array) -> Array:
        """Gradient (n, d) of sum_ab W_ab Hess_ab for fixed symmetric W (n, d, d)."""

    @abstractmethod
    def row_majorizer_vjp(self, target: Array, rho: Array, weights: Array) -> Array:
        """Gradient (n, d) of sum_ab W_ab B_ab for fixed symmetric W (n, d, d)."""

    @abstractmethod
    def grad_target_rho(self, target: Array, rho: Array) -> Array:
        """Mixed derivative d grad / d rho, (rho_count, n d)."""

    @abstractmethod
    def row_blocks_rho(self, target: Array, rho: Array, weights: Array) -> Array:
        """Derivative in rho of sum W_ab Hess_ab, (rho_count,)."""

    @abstractmethod
    def row_majorizer_rho(self, target: Array, rho: Array, weights: Array) -> Array:
        """Derivative in rho of sum W_ab B_ab, (rho_count,)."""

    def rows(self, target: Array) -> Array:
        """The target as (n, d).

        Raises
        ------
        InputError
            Where its size is not a multiple of d, or its width is not d.
        """
        target = np.asarray(target, float)
        d = self.width()
        if target.ndim == 2 and target.shape[1] == d:
            return target
        if target.ndim != 1 or target.size % d:
            raise InputError(
                f"{self.KIND_TAG}: the target must be (n, {d}) or flat with a multiple of {d} "
                f"entries, got shape {target.shape}"
            )
        return target.reshape(-1, d)

    def value(self, target: Array, rho: Array) -> float:
        """P, strengths folded in."""
        return float(self.row_values(target, rho).sum())

    def grad_target(self, target: Array, rho: Array) -> Array:
        """Exact gradient, flat."""
        return self.row_gradient(target, rho).ravel()

    def hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """Exact Hessian times a flat vector."""
        return np.einsum("nab,nb->na", self.row_blocks(target, rho), self.rows(v)).ravel()

    def psd_majorizer_diag(self, target: Array, rho: Array) -> Array:
        """Diagonal of the majorizer, flat."""
        return np.einsum("naa->na", self.row_majorizer(target, rho)).ravel()

    def psd_majorizer_hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """Majorizer times a flat vector."""
        return np.einsum("nab,nb->na", self.row_majorizer(target, rho), self.rows(v)).ravel()
