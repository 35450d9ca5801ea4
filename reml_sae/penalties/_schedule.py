"""Schedules of weights and temperatures over outer iterations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from reml_sae.errors import InputError

KINDS = ("geometric", "linear", "reciprocal_iter")


@dataclass(frozen=True)
class ScalarWeightSchedule:
    """Path of a weight from ``w_start`` to ``w_end``.

    With i the outer iteration and D = w_end - w_start: geometric w_end - D rate^i;
    linear w_start + D min(i / steps, 1); reciprocal_iter w_end - D / (1 + i).

    Parameters
    ----------
    w_start, w_end : float >= 0
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
        for name in ("w_start", "w_end"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value < np.inf:
                raise InputError(f"weight_schedule.{name} must be a number >= 0, got {value!r}")
        if self.kind not in KINDS:
            raise InputError(
                f"weight_schedule.kind must be one of {', '.join(KINDS)}, got {self.kind!r}"
            )
        if self.kind == "geometric" and not (self.rate is not None and 0 < self.rate < 1):
            raise InputError(f"weight_schedule.rate must lie in (0, 1), got {self.rate!r}")
        if self.kind == "linear" and not (self.steps is not None and self.steps > 0):
            raise InputError(f"weight_schedule.steps must be > 0, got {self.steps!r}")
        if self.iter_count < 0:
            raise InputError(f"weight_schedule.iter_count must be >= 0, got {self.iter_count!r}")

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
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Schedule from a dictionary.

        Raises
        ------
        InputError
            Naming the unknown key.
        """
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(config) - known)
        if unknown:
            raise InputError(
                f"weight_schedule.{unknown[0]} is unknown; keys: {', '.join(sorted(known))}"
            )
        return cls(**config)


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
        if not self.tau_min > 0:
            raise InputError(f"tau_min must be positive, got {self.tau_min!r}")

    def temperature_at(self, iteration: int) -> float:
        """Temperature at an outer iteration."""
        return max(self.schedule.weight_at(iteration), self.tau_min)
