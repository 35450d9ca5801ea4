"""Manifest of penalty kinds: registration, lookup and configuration."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from reml_sae.errors import DataWarning, InputError, RegistryError, located
from reml_sae.penalties._base import Penalty
from reml_sae.penalties._schedule import ScalarWeightSchedule

ENTRY_POINT_GROUP = "reml_sae.penalties"
CONSTANTS = ("KIND_TAG", "PYTHON_WRAPPER", "ROW_BLOCK_DIAGONAL")

_KINDS: dict[str, type[Penalty]] = {}
_BROKEN: dict[str, str] = {}
P = TypeVar("P", bound=type[Penalty])


def register(cls: P) -> P:
    """Class decorator that makes a penalty available by its KIND_TAG.

    A class that is defined again in its module, as in a notebook, replaces the earlier one.

    Raises
    ------
    RegistryError
        Where the class is no penalty, lacks a constant or a method, or its kind is taken.
    """
    if not (isinstance(cls, type) and issubclass(cls, Penalty)):
        raise RegistryError(f"register needs a subclass of Penalty, got {cls!r}")
    lacking = [name for name in CONSTANTS if not hasattr(cls, name)]
    lacking += sorted(getattr(cls, "__abstractmethods__", ()))
    if lacking:
        raise RegistryError(f"penalty {cls.__name__} must define {', '.join(lacking)}")
    known = _KINDS.get(cls.KIND_TAG)
    if known is not None and _place(known) != _place(cls):
        raise RegistryError(f"penalty kind {cls.KIND_TAG!r} is already taken by {known.__name__}")
    _KINDS[cls.KIND_TAG] = cls
    return cls


def _place(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


@lru_cache(maxsize=1)
def _load_entry_points() -> None:
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            register(entry.load())
        except Exception as error:  # other people's code: whatever it raises, the rest must work
            _BROKEN[entry.name] = _reason(entry, error)
            warnings.warn(_BROKEN[entry.name], DataWarning, stacklevel=4)


def _reason(entry: EntryPoint, error: Exception) -> str:
    package = f" of package {entry.dist.name!r}" if entry.dist else ""
    return (f"penalty entry point {entry.name!r}{package} cannot be loaded: "
            f"{type(error).__name__}: {error}")


def registered_kinds() -> tuple[str, ...]:
    """All kinds, those of installed packages too."""
    _load_entry_points()
    return tuple(sorted(_KINDS))


def get(kind: str) -> type[Penalty]:
    """Class of a kind.

    Raises
    ------
    RegistryError
        Where the kind is unknown; lists the near ones, and why an installed one failed to load.
    """
    known = registered_kinds()
    if not isinstance(kind, str):
        raise RegistryError(f"a penalty kind must be a string, got {kind!r}")
    if kind in _BROKEN and kind not in _KINDS:
        raise RegistryError(_BROKEN[kind])
    if kind not in _KINDS:
        raise RegistryError(
            f"unknown penalty kind {kind!r}; {_near(kind, known, 3)}known: {', '.join(known)}"
        )
    return _KINDS[kind]


def from_config(config: Mapping[str, Any], path: str = "penalty") -> Penalty:
    """Penalty from a dictionary with the key ``kind``.

    Parameters
    ----------
    config : mapping
        ``kind`` and fields of its class, as JSON or TOML holds them.
    path : str
        Where the dictionary stands, for messages.

    Raises
    ------
    RegistryError
        Naming the path of an unknown or missing key, or of a value that cannot be used.
    """
    if not isinstance(config, Mapping):
        raise RegistryError(f"{path} must be a dictionary with the key 'kind', got {config!r}")
    if "kind" not in config:
        raise RegistryError(f"{path}.kind is missing; known: {', '.join(registered_kinds())}")
    values = dict(config)
    try:
        cls = get(values.pop("kind"))
    except RegistryError as error:
        raise RegistryError(f"{path}.kind: {error}") from None
    known = {item.name: item for item in fields(cls) if item.init}
    for key in values:
        if key not in known:
            raise RegistryError(
                f"{path}.{key} is unknown for kind {cls.KIND_TAG!r}; {_near(str(key), known, 1)}"
                f"keys: {', '.join(sorted(known))}"
            )
    missing = [name for name, item in known.items() if name not in values
               and item.default is MISSING and item.default_factory is MISSING]
    if missing:
        raise RegistryError(
            f"{path}.{missing[0]} is missing; kind {cls.KIND_TAG!r} needs {', '.join(missing)}"
        )
    try:
        if values.get("weight_schedule") is not None:
            values["weight_schedule"] = ScalarWeightSchedule.from_config(values["weight_schedule"])
        return cls(**values)
    except (InputError, TypeError, ValueError) as error:
        raise RegistryError(located(path, error, known)) from error


def _near(name: str, known: Any, n: int) -> str:
    near = difflib.get_close_matches(name, known, n=n, cutoff=0.4 if n > 1 else 0.6)
    return f"did you mean {' or '.join(map(repr, near))}? " if near else ""
