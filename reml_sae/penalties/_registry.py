"""Manifest of penalty kinds: registration, lookup and configuration."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

from reml_sae.errors import InputError, RegistryError
from reml_sae.penalties._base import Penalty

ENTRY_POINT_GROUP = "reml_sae.penalties"

_KINDS: dict[str, type[Penalty]] = {}
P = TypeVar("P", bound=type[Penalty])


def register(cls: P) -> P:
    """Class decorator that makes a penalty available by its KIND_TAG.

    Raises
    ------
    RegistryError
        Where the class is no penalty or its kind is taken.
    """
    if not (isinstance(cls, type) and issubclass(cls, Penalty)):
        raise RegistryError(f"register needs a subclass of Penalty, got {cls!r}")
    known = _KINDS.get(cls.KIND_TAG)
    if known is not None and known is not cls:
        raise RegistryError(f"penalty kind {cls.KIND_TAG!r} is already taken by {known.__name__}")
    _KINDS[cls.KIND_TAG] = cls
    return cls


@lru_cache(maxsize=1)
def _load_entry_points() -> None:
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        register(entry.load())


def registered_kinds() -> tuple[str, ...]:
    """All kinds, those of installed packages too."""
    _load_entry_points()
    return tuple(sorted(_KINDS))


def get(kind: str) -> type[Penalty]:
    """Class of a kind.

    Raises
    ------
    RegistryError
        Where the kind is unknown; lists the near ones.
    """
    _load_entry_points()
    if kind not in _KINDS:
        near = difflib.get_close_matches(str(kind), _KINDS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise RegistryError(
            f"unknown penalty kind {kind!r}; {hint}known: {', '.join(sorted(_KINDS))}"
        )
    return _KINDS[kind]


def from_config(config: Mapping[str, Any], path: str = "penalty") -> Penalty:
    """Penalty from a dictionary with the key ``kind``.

    Raises
    ------
    RegistryError
        Naming the path of an unknown or missing key, or of a value that cannot be used.
    """
    values = dict(config)
    if "kind" not in values:
        raise RegistryError(f"{path}.kind is missing; known: {', '.join(registered_kinds())}")
    try:
        cls = get(values.pop("kind"))
    except RegistryError as error:
        raise RegistryError(f"{path}.kind: {error}") from None
    known = {item.name for item in fields(cls)}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise RegistryError(
                f"{path}.{key} is unknown for kind {cls.KIND_TAG!r}; {hint}"
                f"keys: {', '.join(sorted(known))}"
            )
    try:
        return cls(**values)
    except (InputError, TypeError) as error:
        raise RegistryError(f"{path}: {error}") from error
