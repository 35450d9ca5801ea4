"""Names of assignments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from reml_sae.assignments._base import Assignment
from reml_sae.assignments.gates import OrderedBetaBernoulli, ThresholdGate, TopK
from reml_sae.assignments.softmax import SoftmaxChart
from reml_sae.errors import InputError
from reml_sae.registry import Registry

ASSIGNMENTS: Registry[type[Assignment]] = Registry("assignment", {
    kind.name: kind for kind in (SoftmaxChart, OrderedBetaBernoulli, ThresholdGate, TopK)
})


def get_assignment(
    assignment: str | Mapping[str, Any], n_atoms: int, **defaults: Any
) -> Assignment:
    """Assignment of K atoms from a name or a configuration.

    Parameters
    ----------
    assignment : str or mapping
        ``"topk"``, or with parameters ``{"assignment": "threshold_gate", "width": 0.2}``.
    n_atoms : int
    **defaults
        Parameters for the assignments that have them, where the configuration does not say.

    Raises
    ------
    RegistryError
        Where the name is unknown; names the near ones.
    InputError
        Where a parameter is unknown or wrong.
    """
    config = (dict(assignment) if isinstance(assignment, Mapping)
              else {"assignment": assignment})
    name = config.pop("assignment", None)
    kind = ASSIGNMENTS.get(name)
    known = {item.name for item in fields(kind)} - {"n_atoms"}
    unknown = sorted(set(config) - known)
    if unknown:
        raise InputError(f"assignment {name!r} has no parameter {unknown[0]!r}; it has "
                         f"{', '.join(sorted(known)) or 'none'}")
    own = {key: value for key, value in defaults.items() if key in known}
    return kind(n_atoms, **{**own, **config})
