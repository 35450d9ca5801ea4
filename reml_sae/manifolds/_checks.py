"""Check of a topology's parameters."""

from __future__ import annotations

import numpy as np

from reml_sae.errors import InputError

MOST = 10_000
"""Above all numbers of functions that rows could tell; what they take is bounded before it is."""


def check_integer(name: str, value: object, low: int, high: int = MOST) -> None:
    """Raise InputError unless low <= value <= high is an integer."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not low <= value <= high:  # type: ignore[operator]
        raise InputError(f"{name} must be an integer from {low} to {high}, got {value!r}")
