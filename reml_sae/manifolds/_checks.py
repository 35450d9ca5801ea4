"""Check of a topology's parameters."""

from __future__ import annotations

import numpy as np

from reml_sae.errors import InputError


def check_integer(name: str, value: object, low: int, high: int | None = None) -> None:
    """Raise InputError unless low <= value <= high is an integer."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):  # type: ignore[operator]
        span = f">= {low}" if high is None else f"from {low} to {high}"
        raise InputError(f"{name} must be an integer {span}, got {value!r}")
