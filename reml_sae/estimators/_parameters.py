"""A manifold's own parameters as those of the estimator that has it: ``topology__n_harmonics``."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, Self, TypeGuard

from sklearn.base import BaseEstimator

from reml_sae.errors import InputError
from reml_sae.manifolds import Manifold

TOPOLOGY = "topology__"
"""How their names begin."""


class TopologyParameters(BaseEstimator):
    """An estimator whose ``topology`` may be a manifold object, which is never changed itself."""

    topology: Any

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters, with those of a topology that is an object as ``topology__n_harmonics``."""
        params: dict[str, Any] = super().get_params(deep=deep)
        if deep and _has_fields(self.topology):
            params |= {TOPOLOGY + item.name: getattr(self.topology, item.name)
                       for item in fields(self.topology)}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters; ``topology__n_harmonics=3`` takes a manifold of the same kind instead.

        Raises
        ------
        InputError
            Where the topology is no object, or has no such parameter.
        """
        changes = {name.removeprefix(TOPOLOGY): value for name, value in params.items()
                   if name.startswith(TOPOLOGY)}
        topology = params.get("topology", self.topology)
        names = [item.name for item in fields(topology)] if _has_fields(topology) else []
        for name in changes:
            if name not in names:
                raise InputError(f"{TOPOLOGY}{name} is no parameter of topology={topology!r}; "
                                 + (f"it has {', '.join(names)}" if names else
                                    "give a manifold object, such as manifolds.Circle()"))
        super().set_params(**{name: value for name, value in params.items()
                              if not name.startswith(TOPOLOGY)})
        if changes:
            self.topology = replace(topology, **changes)
        return self


def _has_fields(topology: Any) -> TypeGuard[Any]:
    return isinstance(topology, Manifold) and is_dataclass(topology)
