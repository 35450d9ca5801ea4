"""Names of topologies."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

from reml_sae.errors import DataWarning, RegistryError
from reml_sae.manifolds._base import Manifold
from reml_sae.manifolds.circle import Circle
from reml_sae.manifolds.cylinder import Cylinder
from reml_sae.manifolds.duchon import Duchon
from reml_sae.manifolds.euclidean import Euclidean
from reml_sae.manifolds.interval import Interval
from reml_sae.manifolds.mobius import Mobius
from reml_sae.manifolds.projective_plane import ProjectivePlane
from reml_sae.manifolds.sphere import Sphere
from reml_sae.manifolds.torus import Torus

ENTRY_POINT_GROUP = "reml_sae.manifolds"

_FACTORIES: dict[str, Callable[..., Manifold]] = {
    "circle": Circle,
    "cylinder": Cylinder,
    "duchon": Duchon,
    "euclidean": Euclidean,
    "interval": Interval,
    "linear": lambda: Euclidean(1, 1),
    "mobius": Mobius,
    "plane": lambda: Euclidean(2, 1),
    "projective_plane": ProjectivePlane,
    "sphere": Sphere,
    "torus": Torus,
}
_BROKEN: dict[str, str] = {}


@lru_cache(maxsize=1)
def _load_entry_points() -> None:
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            register_manifold(entry.name, entry.load())
        except Exception as error:  # other people's code: whatever it raises, the rest must work
            package = f" of package {entry.dist.name!r}" if entry.dist else ""
            _BROKEN[entry.name] = (f"topology entry point {entry.name!r}{package} cannot be "
                                   f"loaded: {type(error).__name__}: {error}")
            warnings.warn(_BROKEN[entry.name], DataWarning, stacklevel=4)


def registered_manifolds() -> tuple[str, ...]:
    """Names that `get_manifold` knows, those of installed packages too."""
    _load_entry_points()
    return tuple(sorted(_FACTORIES))


def register_manifold(name: str, factory: Callable[..., Manifold]) -> None:
    """Make a topology available by name.

    Parameters
    ----------
    name : str
    factory : callable
        The class, or what makes a `Manifold` of the configuration's other keys.

    Raises
    ------
    RegistryError
        Where the name is taken or the factory cannot be called.
    """
    if not callable(factory):
        raise RegistryError(f"topology {name!r} needs a class or a function, got {factory!r}")
    if name in _FACTORIES:
        raise RegistryError(f"topology {name!r} is already registered; choose another name")
    _FACTORIES[name] = factory


def get_manifold(topology: str | Mapping[str, Any] | Manifold) -> Manifold:
    """Topology from a name, a configuration or an object.

    Raises
    ------
    RegistryError
        Where the name is unknown, with the near ones and why an installed one failed to load, or
        the configuration has a key that the topology has not.
    InputError
        Where a parameter is out of its range.
    """
    if isinstance(topology, Manifold):
        return topology
    config = dict(topology) if isinstance(topology, Mapping) else {"topology": topology}
    name = config.pop("topology", None)
    known = registered_manifolds()
    if not isinstance(name, str) or name not in known:
        if isinstance(name, str) and name in _BROKEN:
            raise RegistryError(_BROKEN[name])
        near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise RegistryError(f"unknown topology {name!r}; {hint}known: {', '.join(known)}")
    try:
        return _FACTORIES[name](**config)
    except TypeError as error:
        raise RegistryError(f"topology {name!r}: {error}") from error
