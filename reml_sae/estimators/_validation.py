"""Checks of the estimator's parameters; every message names the parameter and the remedy."""

from __future__ import annotations

import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from reml_sae import penalties as pen
from reml_sae.answers import answering
from reml_sae.assignments import Assignment
from reml_sae.engine import TraceRow
from reml_sae.errors import InputError, located
from reml_sae.families import Family, get_family, with_row_noise
from reml_sae.families.noise import KINDS, Factors, NoiseKind, most_rank
from reml_sae.manifolds import Manifold, get_manifold
from reml_sae.manifolds._answers import check_answers as manifold_answers
from reml_sae.models import PenaltyTerm, bind_penalty
from reml_sae.models.sae.defaults import default_terms
from reml_sae.models.sae.priors import check_terms, with_null_priors, with_own_priors
from reml_sae.models.sae.terms import check_priors, check_rows
from reml_sae.penalties._answers import check_answers as penalty_answers
from reml_sae.registry import near_names
from reml_sae.rows import row_map

Callbacks = tuple[Callable[[TraceRow], object], ...]
CURVATURES = ("majorizer", "exact")
SOLVERS = ("auto", "search", "sweeps")
INTEGRATIONS = ("auto", "laplace", "quadrature")


def check_choice(name: str, value: object, allowed: Sequence[str]) -> str:
    """Return ``value`` where it is one of the allowed names."""
    if not isinstance(value, str) or value not in allowed:
        raise InputError(f"{name}={value!r} is unknown; {near_names(value, allowed, 1, 0.3)}"
                         f"allowed: {', '.join(allowed)}")
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


def check_parameters(model: Any) -> None:
    """Refuse parameters of a `SAEManifold` that are none, but those that are resolved."""
    check_integer("n_active", model.n_active, 1)
    check_positive("temperature", model.temperature)
    family = with_row_noise(get_family(model.family), model.row_noise)
    check_choice("curvature", model.curvature, CURVATURES)
    if model.curvature == "exact" and family.has_row_scales:
        raise InputError(f"curvature='exact' knows no rows of unequal scale; row_noise="
                         f"{family.name!r} needs curvature='majorizer'")
    check_choice("integration", model.integration, INTEGRATIONS)
    read_noise(model.noise)
    row_map(model.executor)
    check_choice("solver", model.solver, SOLVERS)
    if not isinstance(model.device, str) or not model.device:
        raise InputError(f"device must be 'cpu' or a device of torch such as 'cuda', got "
                         f"{model.device!r}")
    check_integer("max_outer", model.max_outer, 1)
    check_integer("n_init", model.n_init, 1)
    check_integer("verbose", model.verbose, 0)
    check_positive("tol", model.tol)
    if model.max_time is not None:
        check_positive("max_time", model.max_time)
    if model.checkpoint is not None and not isinstance(model.checkpoint, str | os.PathLike):
        raise InputError(f"checkpoint must be a path of a folder, got {model.checkpoint!r}")
    if model.random_state is not None:
        check_integer("random_state", model.random_state, 0)
    for name in ("demote", "warm_start"):
        value = getattr(model, name)
        if not isinstance(value, bool | np.bool_):
            raise InputError(f"{name} must be True or False, got {value!r}")
    if isinstance(model.callbacks, str) or not isinstance(model.callbacks, Sequence):
        raise InputError(f"callbacks must be a list of callables, got {model.callbacks!r}")
    for index, callback in enumerate(model.callbacks):
        if not callable(callback):
            raise InputError(f"callbacks[{index}] must be callable, got {callback!r}")


def named_callbacks(callbacks: Sequence[Callable[[TraceRow], object]]) -> Callbacks:
    """The same callbacks; what one raises has a note that names it."""
    def named(index: int, callback: Callable[[TraceRow], object]) -> Callable[[TraceRow], object]:
        def call(row: TraceRow) -> object:
            try:
                return callback(row)
            except Exception as error:
                error.add_note(f"raised by callbacks[{index}] of the fit")
                raise
        return call

    return tuple(named(index, callback) for index, callback in enumerate(callbacks))


def read_noise(noise: Any) -> tuple[NoiseKind, bool]:
    """Kind of the noise, and whether atoms may have noises of their own, of the argument."""
    if not isinstance(noise, Mapping):
        check_choice("noise", noise, KINDS)
        return noise, False
    unknown = [name for name in noise if name not in ("kind", "rank", "per_atom")]
    if unknown or "kind" not in noise:
        wrong = f"unknown key {unknown[0]!r}" if unknown else "no key 'kind'"
        raise InputError("noise must be a kind or {'kind': .., 'rank': .., 'per_atom': true or "
                         f"false}}, got {dict(noise)!r}: {wrong}")
    check_choice("noise", noise["kind"], KINDS)
    own = noise.get("per_atom", False)
    if not isinstance(own, bool):
        raise InputError(f"per_atom of noise must be True or False, got {own!r}")
    if noise.get("rank") is None:
        return noise["kind"], own
    if noise["kind"] != "factor":
        raise InputError(f"rank of noise is for kind='factor', got kind={noise['kind']!r}")
    return Factors(check_integer("rank of noise", noise["rank"], 1)), own


def resolve_noise(
    noise: Any, family: Family, assignment: Assignment, shape: tuple[int, int]
) -> tuple[NoiseKind, bool]:
    """`read_noise`, where the family, the assignment and the data (N, p) allow it.

    Families that have a variance of their own have no other by "auto".
    """
    kind, own = read_noise(noise)
    if not family.has_dispersion:
        if own or kind not in ("isotropic", "auto"):
            raise InputError(f"noise={noise!r} is for the Gaussian family; {family.name} has a "
                             "variance of its own, use noise='auto'")
        return "isotropic", False
    most = most_rank(shape[1], shape[0])
    if isinstance(kind, Factors) and kind.rank > most:
        raise InputError(
            f"noise of rank {kind.rank} needs min(N, p) of at least {kind.rank + 2}, and Z is "
            f"{shape[0]} x {shape[1]}; " + (f"use at most rank {most}, or noise='diagonal'"
                                            if most > 0 else "use noise='diagonal'"))
    one = assignment.least_active == assignment.most_active == 1
    if own and not (one and assignment.chooses_support):
        raise InputError(
            "noise with per_atom=True is for rows that use exactly one atom each, and under "
            f"assignment={assignment.name!r} they may use others; use assignment='topk' with "
            "n_active=1, or one noise for all rows")
    if own and not family.equal_weights:
        raise InputError("noise with per_atom=True is for rows of one scale; use "
                         "row_noise='gaussian', or one noise for all rows")
    return kind, own


def resolve_topology(
    topology: Any, n_atoms: int | None
) -> tuple[Manifold | list[Manifold] | None, bool | tuple[bool, ...]]:
    """A `Manifold` for all atoms, one for each, or None where the evidence is to choose.

    And whether the evidence chooses the numbers of basis functions, too.
    """
    if isinstance(topology, str) and topology == "auto":
        return None, True
    if isinstance(topology, Sequence) and not isinstance(topology, str):
        if len(topology) != n_atoms:
            raise InputError(
                f"topology lists {len(topology)} atoms but n_atoms={n_atoms!r}; make them equal"
            )
        atoms = [_manifold(item, f"topology[{k}]") for k, item in enumerate(topology)]
        return atoms, tuple(_leaves_size_open(*pair) for pair in zip(topology, atoms, strict=True))
    atom = _manifold(topology, "topology")
    return atom, _leaves_size_open(topology, atom)


def _manifold(topology: Any, place: str) -> Manifold:
    """The manifold of a name, a configuration or an object, which answers where it is foreign."""
    return answering(get_manifold(topology), place, manifold_answers)


def _leaves_size_open(topology: Any, atom: Manifold) -> bool:
    """Whether a name or a configuration says nothing of the number of basis functions."""
    if isinstance(topology, Mapping):
        return atom.size_parameter not in topology
    return isinstance(topology, str)


def read_penalties(penalties: Sequence[Any] | None) -> list[pen.Penalty] | None:
    """Penalty objects from objects and configurations; None where the defaults are asked for."""
    if penalties is None:
        return None
    if isinstance(penalties, (str, Mapping)) or not isinstance(penalties, Sequence):
        raise InputError(
            f"penalties must be None or a list of Penalty objects or configurations, got "
            f"{type(penalties).__name__}"
        )
    out = []
    for index, item in enumerate(penalties):
        if isinstance(item, Mapping):
            item = pen.from_config(dict(item), path=f"penalties[{index}]")
        if not isinstance(item, pen.Penalty):
            raise InputError(f"penalties[{index}] must be a Penalty or a dict, got {item!r}")
        out.append(answering(item, f"penalties[{index}]", penalty_answers))
    return out


def resolve_terms(
    penalties: Sequence[pen.Penalty] | None, atoms: Sequence[Manifold], assignment: Assignment,
    family: Family, shape: tuple[int, int],
) -> list[PenaltyTerm]:
    """Penalties bound to a model of data with this shape; the sensible defaults for None.

    Raises
    ------
    InputError
        Where they do not go with the atoms, the assignment, the family or the data.
    """
    if not assignment.is_mixture and any(atom.latent_dim == 0 for atom in atoms):
        raise InputError(f"a point has nothing that an amplitude of {assignment.name!r} could "
                         "move; use assignment='softmax', or a 'linear' atom")
    if penalties is None:
        defaults = default_terms(atoms, assignment)
        check_terms(with_own_priors(assignment, defaults), atoms, assignment, family,
                    shape[1])
        return defaults
    terms: list[PenaltyTerm] = []
    for index, penalty in enumerate(penalties):
        try:
            bound = bind_penalty(penalty, atoms, shape[1], assignment)
            for term in bound:
                check_rows(term, shape[0])
            with_null_priors(bound, shape[0])
        except InputError as error:
            names = [item.name for item in fields(penalty)]
            raise InputError(located(f"penalties[{index}]", error, names)) from None
        terms += bound
    try:
        check_priors(terms)
        check_terms(with_own_priors(assignment, terms), atoms, assignment, family, shape[1])
    except InputError as error:
        raise InputError(f"penalties: {error}") from None
    return terms
