"""Names of topologies."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from reml_sae.errors import RegistryError
from reml_sae.manifolds._base import Manifold
from reml_sae.manifolds.circle import Circle
from reml_sae.manifolds.euclidean import Euclidean

_FACTORIES: dict[str, Callable[..., Manifold]] = {
    "circle": Circle,
    "euclidean": Euclidean,
    "linear": lambda: Euclidean(1, 1),
    "plane": lambda: Euclidean(2, 1),
}


def registered_manifolds() -> tuple[str, ...]:
    """Names that `get_manifold` knows."""
    return tuple(sorted(_FACTORIES))


def register_manifold(name: str, factory: Callable[..., Manifold]) -> None:
    """Make a topology available by name.

    Raises
    ------
    RegistryError
        Where the name is taken.
    """
    if name in _FACTORIES:
        raise RegistryError(f"topology {name!r} is already registered; choose another name")
    _FACTORIES[name] = factory


def get_manifold(topology: str | Mapping[str, Any] | Manifold) -> Manifold:
    """Topology from a name, a configuration or an object.

    Raises
    ------
    RegistryError
        Where the name is unknown; names the near ones.
    """
    if isinstance(topology, Manifold):
        return topology
    config = dict(topology) if isinstance(topology, Mapping) else {"topology": topology}
    name = config.pop("topology", None)
    if not isinstance(name, str) or name not in _FACTORIES:
        near = difflib.get_close_matches(str(name), _FACTORIES, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise RegistryError(
            f"unknown topology {name!r}; {hint}known: {', '.join(registered_manifolds())}"
        )
    try:
        return _FACTORIES[name](**config)
    except TypeError as error:
        raise RegistryError(f"topology {name!r}: {error}") from error
