"""Checks of data; every message names the first bad entry, its value and the remedy."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError


def check_finite(z: Any, family: str) -> None:
    """Refuse NaN and infinite entries."""
    refuse(~np.isfinite(z), z, f"{family} data must be finite; impute the entry or drop its row")


def check_counts(z: Any, family: str, remedy: str = "") -> None:
    """Refuse entries that are not non-negative integers, as integers or as floats."""
    check_finite(z, family)
    z = np.asarray(z)
    refuse((z < 0) | (z != np.round(z)), z,
           f"{family} data must be counts, integers from 0{remedy}")


def refuse(bad: NDArray[np.bool_], values: Any, rule: str, name: str = "z") -> None:
    """Raise an error about the first of the ``values`` that is marked as bad.

    Raises
    ------
    InputError
        ``name[index]=value: rule``.
    """
    if np.any(bad):
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        place = f"{name}[{', '.join(map(str, index))}]" if index else name
        raise InputError(f"{place}={float(np.asarray(values)[index])!r}: {rule}")


def check_order(method: str, order: int, allowed: Collection[int]) -> None:
    """Refuse a derivative that the method does not have."""
    if order not in allowed:
        known = ", ".join(map(str, allowed))
        raise InputError(f"order of {method} must be one of {known}, got {order!r}")
