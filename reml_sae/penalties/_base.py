"""The contract that every penalty fulfils.

Methods take the target flat and row-major, or as its matrix. ``rho`` holds the outer parameters
that the penalty owns, ``rho_count()`` of them, as a rule log strengths: the effective weight is
weight * exp(rho).

What the engine asks beyond the contract depends on the structure of the curvature: `MatrixPenalty`
and `RowPenalty` (``_matrix.py``) for targets with rows, quadratic decoder penalties
(``quadratic.py``) through ``gram``.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any, ClassVar, Self

import numpy as np

from reml_sae.errors import InputError, RegistryError
from reml_sae.penalties import _fields
from reml_sae.penalties._schedule import ScalarWeightSchedule
from reml_sae.typing import Array

RHO_LIMIT = 700.0
LEAST_WEIGHT = 1e-12
"""Weight, relative to w_end, of a schedule that starts at 0, for kinds that need a positive one."""
STRENGTH_BOX = (-12.0, 18.0)
"""Log strengths that the outer loop searches."""


class PenaltyTier(Enum):
    """Where a penalty acts."""

    BETA = "beta"
    """Decoder coefficients."""
    PSI = "psi"
    """Extension coordinates: logits and latent coordinates."""
    RHO = "rho"
    """Outer parameters."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Penalty(ABC):
    """Base class of penalties.

    Parameters
    ----------
    weight : float
        Positive factor of the penalty. Zero, which switches it off, where P vanishes with its
        weight and is a potential, or a prior on a bounded range.
    weight_schedule : ScalarWeightSchedule or dict, optional
        Moves the weight with the outer iteration, and ends at ``w_end``.
    learnable : bool, optional
        Whether REML chooses log strengths on top of the weight. By default it does where the
        penalty is a proper prior; an improper one is held at its weight.
    atom : int, optional
        The only atom that the penalty acts on; every atom that it fits by default.
    """

    weight: float = 1.0
    weight_schedule: ScalarWeightSchedule | None = None
    learnable: bool | None = None
    atom: int | None = None

    KIND_TAG: ClassVar[str]
    PYTHON_WRAPPER: ClassVar[str]
    ROW_BLOCK_DIAGONAL: ClassVar[bool]
    TIER: ClassVar[PenaltyTier]
    ZERO_WEIGHT: ClassVar[bool] = False
    """Whether weight 0 has a meaning: P is zero then, and exp(-P) as proper as it was."""
    FORMULA: ClassVar[str] = ""
    """P in plain text, as `reml-sae penalties KIND` prints it."""
    SUM: ClassVar[Callable[..., Penalty]]
    """Makes a sum of its ``parts``; `CompositePenalty` puts itself here."""

    def __post_init__(self) -> None:
        (_fields.non_negative if self.ZERO_WEIGHT else _fields.positive)("weight", self.weight)
        if self.weight_schedule is not None:
            schedule = ScalarWeightSchedule.from_config(self.weight_schedule)
            object.__setattr__(self, "weight_schedule", schedule)
            if not (schedule.w_end or self.ZERO_WEIGHT):
                raise InputError(
                    f"weight_schedule.w_end must be positive: {self.KIND_TAG} has no meaning at "
                    "weight 0; end at a small weight, or leave the penalty out"
                )
        if self.atom is not None:
            _fields.integer("atom", self.atom, 0)
        if self.learnable is None:
            object.__setattr__(self, "learnable", self.is_normalised and self.n_strengths() > 0)
        elif not isinstance(self.learnable, (bool, np.bool_)):
            raise InputError(f"learnable must be True or False, got {self.learnable!r}")
        if self.learnable and not self.is_normalised:
            raise RegistryError(
                f"learnable=True: {self.KIND_TAG} has no known normaliser, so minimising over its "
                "strength would send it to zero; set learnable=False and choose the weight"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Penalty) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> str:
        return json.dumps(self.to_config(), sort_keys=True)

    def __add__(self, other: Penalty) -> Penalty:
        """The sum of two penalties on the same target, a `CompositePenalty`."""
        if not isinstance(other, Penalty):
            return NotImplemented
        return Penalty.SUM(parts=(self, other))

    @property
    def is_normalised(self) -> bool:
        """Whether exp(-P) has a known finite integral over its range: a proper prior."""
        return True

    @property
    def is_quadratic(self) -> bool:
        """Whether P is its strength times a quadratic form, up to a normaliser.

        Fellner-Schall steps are sound then.
        """
        return False

    @property
    def is_smooth(self) -> bool:
        """Whether P has the derivatives that the engine needs, everywhere."""
        return True

    # --- identity ----------------------------------------------------------------------------

    def tier(self) -> PenaltyTier:
        """Part of the model that the penalty acts on."""
        return self.TIER

    def dispatch_tier(self) -> PenaltyTier:
        """Part of the Hessian that its curvature goes to: that of the target."""
        return self.tier()

    def acts_on(self) -> str:
        """What the target is: "coordinates", "logits", "decoder", "decoders", "outer" or else.

        The engine refuses what it does not know by this name.
        """
        return {PenaltyTier.PSI: "coordinates", PenaltyTier.BETA: "decoder",
                PenaltyTier.RHO: "outer"}[self.tier()]

    def name(self) -> str:
        """The kind, as messages name it."""
        return self.KIND_TAG

    @property
    def is_learnable(self) -> bool:
        """Whether REML chooses its strengths."""
        return bool(self.learnable)

    def n_strengths(self) -> int:
        """Number of strengths, learnable or not."""
        return 1

    def rho_count(self) -> int:
        """Length of ``rho``: the strengths where learnable, else 0."""
        return self.n_strengths() if self.learnable else 0

    def initial_rho(self) -> Array:
        """Where the outer loop starts, (rho_count,)."""
        return np.zeros(self.rho_count())

    def rho_at(self, log_strength: float) -> Array:
        """Where every strength is exp(log_strength) at the end of the schedule, (rho_count,)."""
        if not self.rho_count():
            return np.zeros(0)
        return np.full(self.rho_count(), log_strength - np.log(self.settled().weight))

    def rho_bounds(self) -> Array:
        """Box that the outer loop searches, (rho_count, 2)."""
        return np.tile(np.array(STRENGTH_BOX), (self.rho_count(), 1))

    def rho_labels(self) -> tuple[str, ...]:
        """Suffixes that tell its outer parameters apart in names; one alone needs none."""
        count = self.rho_count()
        return ("",) if count == 1 else tuple(f".{j}" for j in range(count))

    def strengths(self, rho: Array) -> Array:
        """Effective weights weight * exp(rho), (n_strengths,).

        Raises
        ------
        InputError
            Where rho has the wrong length or leaves [-700, 700].
        """
        rho = np.atleast_1d(np.asarray(rho, float))
        if rho.shape != (self.rho_count(),):
            raise InputError(
                f"{self.KIND_TAG}: rho must have {self.rho_count()} entries, got {rho.shape}"
            )
        if not self.learnable:
            return np.full(self.n_strengths(), float(self.weight))
        if not (np.abs(rho) <= RHO_LIMIT).all():  # NaN is refused too
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
        """Exact diagonal of the Hessian, flat.

        None where the Hessian is not diagonal, unless the kind gives its diagonal all the same.
        """

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

        ``n_rows`` counts the rows of the target's (n, d) view, or the output columns of a decoder
        under a quadratic penalty. Where P has a null space the integral is over its range.
        """

    # --- schedule --------------------------------------------------------------------------------

    def with_weight_schedule(self, schedule: ScalarWeightSchedule) -> Self:
        """The penalty with its weight at the schedule's present place."""
        return replace(self, weight_schedule=schedule,
                       weight=self._scheduled_weight(schedule, schedule.iter_count))

    def apply_schedule(self, iteration: int) -> Self:
        """The penalty with its weight at an outer iteration; itself where it has no schedule."""
        if self.weight_schedule is None:
            return self
        schedule = self.weight_schedule
        return replace(self, weight_schedule=replace(schedule, iter_count=iteration + 1),
                       weight=self._scheduled_weight(schedule, iteration))

    def settled(self) -> Self:
        """The penalty at the end of its schedule, without it."""
        if self.weight_schedule is None:
            return self
        return replace(self, weight_schedule=None, weight=self.weight_schedule.w_end)

    def _scheduled_weight(self, schedule: ScalarWeightSchedule, iteration: int) -> float:
        """Weight at an iteration; a start at 0 is a small weight where 0 has no meaning."""
        least = 0.0 if self.ZERO_WEIGHT else LEAST_WEIGHT * schedule.w_end
        return max(schedule.weight_at(iteration), least)

    # --- configuration ---------------------------------------------------------------------------

    def to_config(self) -> dict[str, Any]:
        """Dictionary of plain values from which `from_config` makes the same penalty."""
        config: dict[str, Any] = {"kind": self.KIND_TAG}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None:
                config[item.name] = _plain(value)
        return config


def _plain(value: Any) -> Any:
    """Value without numpy types and tuples, as JSON and TOML hold it."""
    if isinstance(value, Penalty | ScalarWeightSchedule):
        return value.to_config()
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
