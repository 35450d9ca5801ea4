"""Schedules of weights and temperatures over outer iterations."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeGuard

import numpy as np

from reml_sae.errors import InputError
from reml_sae.penalties import _fields

PARAMETERS = {"geometric": "rate", "linear": "steps", "reciprocal_iter": None}
"""The parameter that each kind of schedule takes."""


@dataclass(frozen=True)
class ScalarWeightSchedule:
    """Path of a weight from ``w_start`` to ``w_end``.

    With i the outer iteration and D = w_end - w_start: geometric w_end - D rate^i;
    linear w_start + D min(i / steps, 1); reciprocal_iter w_end - D / (1 + i).

    Parameters
    ----------
    w_start, w_end : float >= 0
        Not both zero.
    kind : {"geometric", "linear", "reciprocal_iter"}
    rate : float in (0, 1)
        Of the geometric kind.
    steps : int > 0
        Of the linear kind.
    iter_count : int
        Present place.
    """

    w_start: float
    w_end: float
    kind: str = "geometric"
    rate: float | None = None
    steps: int | None = None
    iter_count: int = 0

    def __post_init__(self) -> None:
        _fields.choice("kind", self.kind, tuple(PARAMETERS))
        for name in ("w_start", "w_end"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value < np.inf:
                raise InputError(f"{name} must be a number >= 0, got {value!r}")
        if not self.w_start + self.w_end > 0:
            raise InputError("w_end must be positive where w_start is 0")
        for kind, parameter in PARAMETERS.items():
            if parameter and kind != self.kind and getattr(self, parameter) is not None:
                raise InputError(f"{parameter} belongs to kind {kind!r}, not to {self.kind!r}")
        if self.kind == "geometric" and not (_is_number(self.rate) and 0 < self.rate < 1):
            raise InputError(f"rate must be a number in (0, 1), got {self.rate!r}")
        if self.kind == "linear":
            _fields.integer("steps", self.steps, 1)
        _fields.integer("iter_count", self.iter_count, 0)

    def weight_at(self, iteration: int) -> float:
        """Weight at an outer iteration, between the two ends."""
        change = self.w_end - self.w_start
        if self.kind == "geometric":
            assert self.rate is not None
            weight = self.w_end - change * self.rate**iteration
        elif self.kind == "linear":
            assert self.steps is not None
            weight = self.w_start + change * min(iteration / self.steps, 1.0)
        else:
            weight = self.w_end - change / (1.0 + iteration)
        low, high = sorted((self.w_start, self.w_end))
        return float(min(max(weight, low), high))

    def to_config(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {item.name: getattr(self, item.name) for item in fields(self)
                if getattr(self, item.name) is not None}

    @classmethod
    def from_config(cls, config: Any, path: str = "weight_schedule") -> ScalarWeightSchedule:
        """Schedule from a dictionary; a schedule is returned as it is.

        Raises
        ------
        InputError
            Naming the path of an unknown or missing key, or of a value that cannot be used.
        """
        if isinstance(config, ScalarWeightSchedule):
            return config
        if not isinstance(config, Mapping):
            raise InputError(
                f"{path} must be a dictionary or a ScalarWeightSchedule, got {config!r}"
            )
        known = [item.name for item in fields(cls)]
        unknown = [key for key in config if key not in known]
        if unknown:
            raise InputError(f"{path}.{unknown[0]} is unknown; keys: {', '.join(known)}")
        missing = [name for name in ("w_start", "w_end") if name not in config]
        if missing:
            raise InputError(f"{path}.{missing[0]} is missing")
        try:
            return cls(**config)
        except InputError as error:
            raise InputError(f"{path}.{error}") from None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))


@dataclass(frozen=True)
class TemperatureSchedule:
    """Path of the softmax temperature, never below ``tau_min``.

    Parameters
    ----------
    schedule : ScalarWeightSchedule
    tau_min : float > 0
    """

    schedule: ScalarWeightSchedule
    tau_min: float

    def __post_init__(self) -> None:
        _fields.positive("tau_min", self.tau_min)

    def temperature_at(self, iteration: int) -> float:
        """Temperature at an outer iteration."""
        return max(self.schedule.weight_at(iteration), self.tau_min)
