"""Manifest of penalty kinds: registration, lookup and configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from reml_sae.errors import InputError, RegistryError, located
from reml_sae.penalties._base import Penalty
from reml_sae.penalties._schedule import ScalarWeightSchedule
from reml_sae.registry import Registry, near_names

CONSTANTS = ("KIND_TAG", "PYTHON_WRAPPER", "ROW_BLOCK_DIAGONAL")

KINDS: Registry[type[Penalty]] = Registry(
    "penalty kind", {}, group="reml_sae.penalties", admit=lambda name, cls: register(cls))
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
    known = KINDS.items.get(cls.KIND_TAG)
    if known is not None and _place(known) != _place(cls):
        raise RegistryError(f"penalty kind {cls.KIND_TAG!r} is already taken by {known.__name__}")
    KINDS.items[cls.KIND_TAG] = cls
    return cls


def _place(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def registered_kinds() -> tuple[str, ...]:
    """All kinds, those of installed packages too."""
    return KINDS.names()


def get(kind: str) -> type[Penalty]:
    """Class of a kind.

    Raises
    ------
    RegistryError
        Where the kind is unknown; lists the near ones, and why an installed one failed to load.
    """
    return KINDS.get(kind)


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
                f"{path}.{key} is unknown for kind {cls.KIND_TAG!r}; "
                f"{near_names(key, known, 1, 0.6)}keys: {', '.join(sorted(known))}"
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
