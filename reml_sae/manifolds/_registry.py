"""Names of topologies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from reml_sae.errors import RegistryError
from reml_sae.manifolds._base import Manifold
from reml_sae.manifolds.circle import Circle
from reml_sae.manifolds.cylinder import Cylinder
from reml_sae.manifolds.duchon import Duchon
from reml_sae.manifolds.euclidean import Euclidean
from reml_sae.manifolds.interval import Interval
from reml_sae.manifolds.mobius import Mobius
from reml_sae.manifolds.point import Point
from reml_sae.manifolds.projective_plane import ProjectivePlane
from reml_sae.manifolds.sphere import Sphere
from reml_sae.manifolds.torus import Torus
from reml_sae.registry import Registry

TOPOLOGIES: Registry[Callable[..., Manifold]] = Registry(
    "topology",
    {
        "circle": Circle,
        "cylinder": Cylinder,
        "duchon": Duchon,
        "euclidean": Euclidean,
        "interval": Interval,
        "linear": lambda: Euclidean(1, 1),
        "mobius": Mobius,
        "plane": lambda: Euclidean(2, 1),
        "point": Point,
        "projective_plane": ProjectivePlane,
        "sphere": Sphere,
        "torus": Torus,
    },
    group="reml_sae.manifolds",
    admit=lambda name, factory: register_manifold(name, factory),
)


def registered_manifolds() -> tuple[str, ...]:
    """Names that `get_manifold` knows, those of installed packages too."""
    return TOPOLOGIES.names()


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
    if name in TOPOLOGIES.items:
        raise RegistryError(f"topology {name!r} is already registered; choose another name")
    TOPOLOGIES.items[name] = factory


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
    made: Manifold = TOPOLOGIES.make(topology, "topology")
    return made
