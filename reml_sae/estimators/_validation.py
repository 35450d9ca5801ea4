"""Checks of the estimator's parameters; every message names the parameter and the remedy."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reml_sae import penalties as pen
from reml_sae.errors import InputError
from reml_sae.manifolds import Manifold, get_manifold
from reml_sae.models import PenaltyTerm, bind_penalty

ASSIGNMENTS = ("softmax",)
FAMILIES = ("gaussian",)
CURVATURES = ("majorizer", "exact")


def check_choice(name: str, value: object, allowed: Sequence[str]) -> str:
    """Return ``value`` where it is one of the allowed names."""
    if not isinstance(value, str) or value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"{name}={value!r} is unknown; {hint}allowed: {', '.join(allowed)}")
    return value


def check_integer(name: str, value: object, minimum: int) -> int:
    """Return ``value`` where it is an integer of at least ``minimum``."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < minimum:
        raise InputError(f"{name} must be an integer >= {minimum}, got {value!r}")
    return int(value)


def check_positive(name: str, value: object) -> float:
    """Return ``value`` where it is a positive finite number."""
    if (not isinstance(value, numbers.Real) or isinstance(value, bool)
            or not np.isfinite(float(value)) or value <= 0):
        raise InputError(f"{name} must be a positive number, got {value!r}")
    return float(value)


def resolve_atoms(topology: Any, n_atoms: int) -> list[Manifold]:
    """One `Manifold` for each atom from a name, an object or a list of K of them."""
    if isinstance(topology, str) and topology == "auto":
        raise InputError(
            "topology='auto' is not available yet; name a topology, or fit several and compare "
            "their criterion_"
        )
    if isinstance(topology, Sequence) and not isinstance(topology, str):
        if len(topology) != n_atoms:
            raise InputError(
                f"topology lists {len(topology)} atoms but n_atoms={n_atoms}; make them equal"
            )
        return [get_manifold(item) for item in topology]
    return [get_manifold(topology)] * n_atoms


def resolve_terms(
    penalties: Sequence[Any] | None, atoms: Sequence[Manifold]
) -> list[PenaltyTerm]:
    """Penalties bound to the model; the sensible defaults where none are given."""
    if penalties is None:
        return default_terms(atoms)
    if isinstance(penalties, (str, Mapping)) or not isinstance(penalties, Sequence):
        raise InputError(
            f"penalties must be None or a list of Penalty objects or configurations, got "
            f"{type(penalties).__name__}"
        )
    terms: list[PenaltyTerm] = []
    for index, item in enumerate(penalties):
        if isinstance(item, Mapping):
            item = pen.from_config(dict(item), path=f"penalties[{index}]")
        if not isinstance(item, pen.Penalty):
            raise InputError(f"penalties[{index}] must be a Penalty or a dict, got {item!r}")
        terms += bind_penalty(item, atoms)
    for target in {(term.target, term.atom) for term in terms if term.target != "decoder"}:
        owners = [term for term in terms if (term.target, term.atom) == target]
        if len(owners) > 1:
            kinds = ", ".join(term.penalty.KIND_TAG for term in owners)
            raise InputError(
                f"penalties: {kinds} act on the same {owners[0].place}, and the normaliser of "
                "their product is not known; keep one"
            )
    return terms


def default_terms(atoms: Sequence[Manifold]) -> list[PenaltyTerm]:
    """Entropy of the assignments and roughness of every atom that can be rough."""
    terms: list[PenaltyTerm] = []
    if len(atoms) > 1:
        terms.append(
            PenaltyTerm(pen.SoftmaxAssignmentSparsityPenalty(k_atoms=len(atoms)), "logits"))
    for k, atom in enumerate(atoms):
        roughness = atom.roughness()
        if roughness is None:
            continue
        penalty = (pen.HarmonicRoughnessPenalty(period=atom.basis_size) if atom.name == "circle"
                   else pen.QuadraticPenalty(S=roughness))
        terms.append(PenaltyTerm(penalty, "decoder", k))
    return terms
