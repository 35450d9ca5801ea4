"""Schedules of weights and temperatures over outer iterations.

Every schedule ends: from its iteration `ScalarWeightSchedule.end` on, its weight is w_end exactly.
The kinds that only approach w_end get there from within `END_TOLERANCE`.
"""

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
END_TOLERANCE = 0.01
"""A weight this near to w_end, relatively, is w_end; relative to w_start where w_end is 0."""
MAX_ITERATIONS = 1000
"""Iterations, each an inner solve, within which a schedule must end."""
LARGEST_LOG = 700.0
ROUNDING = 1e-9


@dataclass(frozen=True)
class ScalarWeightSchedule:
    """Path of a weight from ``w_start`` to ``w_end``.

    With i the outer iteration and D = w_end - w_start: geometric w_end - D rate^i;
    linear w_start + D min(i / steps, 1); reciprocal_iter w_end - D / (1 + i). Once that is within
    1 % of w_end (of w_start, where w_end is 0), the weight is w_end. A schedule that would need
    more than 1000 iterations to get there is refused.

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
        self._check_end()

    def _check_end(self) -> None:
        needed = self._iterations()
        if needed <= MAX_ITERATIONS:
            return
        too_long = (f"{self.kind!r} needs {needed:.6g} iterations to come within "
                    f"{END_TOLERANCE:.0%} of its end, and a fit makes at most {MAX_ITERATIONS}")
        if self.kind == "linear":
            raise InputError(f"steps must be at most {MAX_ITERATIONS}, got {self.steps}")
        if self.kind == "geometric":
            slowest = np.floor(1e4 * np.exp(-self._distance() / MAX_ITERATIONS)) / 1e4
            raise InputError(
                f"rate={self.rate:.10g} is too slow: {too_long}; choose at most {slowest:g}")
        raise InputError(
            f"w_start={self.w_start:g} is too far from w_end={self.w_end:g}: {too_long}; choose "
            "nearer ends or kind 'geometric'")

    def _distance(self) -> float:
        """Log of the change relative to what counts as w_end."""
        change = abs(self.w_end - self.w_start)
        return float(np.log(change) - np.log(self.w_end or self.w_start) - np.log(END_TOLERANCE))

    def _iterations(self) -> float:
        """Iterations from w_start to w_end, an integer or infinity."""
        if self.kind == "linear":
            assert self.steps is not None
            return float(self.steps)
        if self.w_start == self.w_end:
            return 0.0
        distance = self._distance()
        if self.kind == "geometric":
            assert self.rate is not None
            needed = -distance / np.log(self.rate)
        else:
            needed = np.exp(min(distance, LARGEST_LOG)) - 1.0
        return max(1.0, float(np.ceil(needed - ROUNDING)))

    @property
    def end(self) -> int:
        """First iteration whose weight is w_end."""
        return int(self._iterations())

    def weight_at(self, iteration: int) -> float:
        """Weight at an outer iteration, between the two ends; w_end from `end` on."""
        if iteration >= self.end:
            return float(self.w_end)
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
