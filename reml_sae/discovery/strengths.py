"""Outer parameters that a changed model takes over from the one before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from reml_sae.discovery.fitting import Fitted
from reml_sae.engine import OuterKey


def known_of(fitted: Fitted) -> dict[OuterKey, float]:
    """Outer parameters by key."""
    return fitted.model.outer.keyed(fitted.result.rho)


def known_of_one(fitted: Fitted, k: int) -> dict[OuterKey, float]:
    """Outer parameters of atom k, and those of all, by their keys in a model of this atom alone."""
    return {replace(key, atom=min(key.atom, 0)): value
            for key, value in known_of(fitted).items() if key.atom in (-1, k)}


def known_without(fitted: Fitted, k: int) -> dict[OuterKey, float]:
    """Outer parameters by key, without those of atom k."""
    return {key: value for key, value in known_of(fitted).items() if key.atom != k}


def renumbered(known: Mapping[OuterKey, float], k: int) -> dict[OuterKey, float]:
    """Outer parameters, without those of atom k, by the keys that they have once it is gone."""
    return {replace(key, atom=key.atom - (key.atom > k)): value
            for key, value in known.items() if key.atom != k}
