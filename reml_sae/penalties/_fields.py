"""Checks of the fields of penalties; every message begins with the name of the field."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError
from reml_sae.typing import Array


def positive(name: str, value: object, above: float = 0.0) -> float:
    """A finite number above a bound.

    Raises
    ------
    InputError
        Where it is not.
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
    if not number or not above < float(value) < np.inf:  # type: ignore[arg-type]
        what = "a positive number" if above == 0.0 else f"a number above {above:g}"
        raise InputError(f"{name} must be {what}, got {value!r}")
    return float(value)  # type: ignore[arg-type]


def non_negative(name: str, value: object) -> float:
    """A finite number of at least zero; raises `InputError` where it is not."""
    number = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
    if not number or not 0.0 <= float(value) < np.inf:  # type: ignore[arg-type]
        raise InputError(f"{name} must be a number >= 0, got {value!r}")
    return float(value)  # type: ignore[arg-type]


def integer(name: str, value: object, minimum: int) -> int:
    """An integer of at least ``minimum``; raises `InputError` where it is not."""
    if (not isinstance(value, numbers.Integral) or isinstance(value, (bool, np.bool_))
            or value < minimum):
        raise InputError(f"{name} must be an integer >= {minimum}, got {value!r}")
    return int(value)


def choice(name: str, value: object, allowed: Sequence[str]) -> str:
    """One of the allowed strings; raises `InputError` where it is not."""
    if not isinstance(value, str) or value not in allowed:
        raise InputError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def array(name: str, value: Any, ndim: int) -> Array:
    """A finite read-only array of floats with ``ndim`` axes; raises `InputError` otherwise."""
    try:
        out = np.array(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be an array of numbers: {error}") from error
    if out.ndim != ndim:
        raise InputError(f"{name} must have {ndim} axes, got shape {out.shape}")
    if not np.isfinite(out).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(out))[0])
        raise InputError(f"{name}{list(where)} is not finite; remove NaN and inf")
    out.setflags(write=False)
    return out


def partition(name: str, groups: Any) -> tuple[tuple[int, ...], ...]:
    """Groups of indices that together are 0 .. d-1, each index once.

    Raises
    ------
    InputError
        Naming the group in which an index is wrong, repeated, or that one is missing.
    """
    if isinstance(groups, (str, bytes)) or not isinstance(groups, (Sequence, np.ndarray)) \
            or not len(groups):
        raise InputError(f"{name} must be a list of lists of indices, got {groups!r}")
    seen: dict[int, int] = {}
    out = []
    for g, group in enumerate(groups):
        if not isinstance(group, (Sequence, np.ndarray)) or isinstance(group, (str, bytes)) \
                or not len(group):
            raise InputError(f"{name}[{g}] must be a list of one or more indices, got {group!r}")
        members = tuple(integer(f"{name}[{g}][{i}]", item, 0) for i, item in enumerate(group))
        for item in members:
            if item in seen:
                raise InputError(
                    f"{name}[{g}] repeats index {item} of {name}[{seen[item]}]; groups must not "
                    "overlap"
                )
            seen[item] = g
        out.append(members)
    missing = next((index for index in range(len(seen)) if index not in seen), None)
    if missing is not None:
        raise InputError(f"{name} must cover every index from 0 on; {missing} is in no group")
    return tuple(out)


def edge_list(name: str, edges: Any) -> NDArray[np.intp]:
    """Edges (e, 2) of a graph, read-only; `InputError` for loops, repeats and bad indices."""
    try:
        out = np.array(edges)
    except ValueError as error:
        raise InputError(f"{name} must be a list of pairs of row indices: {error}") from error
    if out.ndim != 2 or out.shape[1] != 2 or not len(out) or out.dtype.kind not in "iu":
        raise InputError(
            f"{name} must be a list of pairs of row indices, got {out.dtype} of shape {out.shape}"
        )
    out = out.astype(np.intp)
    bad = np.flatnonzero((out < 0).any(axis=1) | (out[:, 0] == out[:, 1]))
    if bad.size:
        raise InputError(f"{name}[{bad[0]}] = {out[bad[0]].tolist()} is no edge between two rows")
    sorted_pairs = np.sort(out, axis=1)
    _, first = np.unique(sorted_pairs, axis=0, return_index=True)
    if first.size < len(out):
        repeated = int(np.setdiff1d(np.arange(len(out)), first)[0])
        raise InputError(f"{name}[{repeated}] = {out[repeated].tolist()} repeats an earlier edge")
    out.setflags(write=False)
    return out
