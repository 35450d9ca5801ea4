"""Outer parameters that a changed model takes over from the one before."""

from __future__ import annotations

import re

from reml_sae.discovery.fitting import Fitted


def known_of(fitted: Fitted) -> dict[str, float]:
    """Outer parameters by name."""
    return dict(zip(fitted.model.rho_names, map(float, fitted.result.rho), strict=True))


def known_without(fitted: Fitted, k: int) -> dict[str, float]:
    """Outer parameters by name, without those of atom k."""
    return {name: value for name, value in known_of(fitted).items() if f"[{k}]" not in name}


def renumbered(known: dict[str, float], k: int) -> dict[str, float]:
    """Outer parameters by the names that they have without atom k."""
    def name(match: re.Match[str]) -> str:
        number = int(match[1])
        return f"[{number - (number > k)}]"

    return {re.sub(r"\[(\d+)\]", name, label): value for label, value in known.items()
            if f"[{k}]" not in label}
