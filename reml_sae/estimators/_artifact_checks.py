"""The schema of a fit in a file: what must hold before anything is computed from it.

`TENSORS` has the shape and the range of every array, the dataclasses of a fit have the types of
what else it says, and `_check_related` says what is told twice or must go together: whoever writes
a file can write its checksum too.
"""

from __future__ import annotations

import types
from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from reml_sae.diagnostics.checks import explained_name
from reml_sae.diagnostics.summary import LIMITS
from reml_sae.engine import Theta
from reml_sae.errors import ArtifactError, InputError
from reml_sae.estimators._fitted import FittedSAE
from reml_sae.estimators._harvest import data_decoders
from reml_sae.estimators._sparse_codes import SparseCodes
from reml_sae.estimators._units import LARGEST, SMALLEST
from reml_sae.families.noise import PerAtom
from reml_sae.models import bind_penalty
from reml_sae.models.sae.terms import check_priors, check_rows
from reml_sae.typing import Array

NOISE = "noise."
"""How the names of the noise's own tensors begin."""
STATE = 1e15
"""Beyond any state of standardised rows; powers and products of a few such numbers are finite."""
AGREE = 1e-6
"""Relative difference of what is told twice."""
HEAVIEST = 1e100
"""Weight of a penalty whose square is finite."""
LONGEST = 2**62


class Tensor(NamedTuple):
    """An array: its axes by name, and the range of its entries.

    A ``mask`` has bytes 0 and 1, ``places`` are integers; what is ``known`` has no NaN.
    """

    axes: str
    low: float = -STATE
    high: float = STATE
    mask: bool = False
    known: bool = True
    places: bool = False


TENSORS = {
    "mean_": Tensor("p", -LARGEST, LARGEST),
    "offset_": Tensor("p", -LARGEST, LARGEST),
    "intercept_": Tensor("p", -LARGEST, LARGEST),
    "rho_": Tensor("rho"),
    "gradient_": Tensor("rho", -LARGEST, LARGEST, known=False),
    "beta": Tensor("decoders p"),
    "assignments": Tensor("n k"),
    "gates": Tensor("n k", mask=True),
    "row_objective": Tensor("n", -LARGEST, LARGEST),
    "row_converged": Tensor("n", mask=True),
    "row_weights": Tensor("n", 0.0),
    "zeta": Tensor("free chart"),
    "gate_counts": Tensor("k", 0.0, LONGEST),
    "remembered.Z": Tensor("kept p", -LARGEST, LARGEST),
    "remembered.xi": Tensor("kept q"),
    "remembered.active": Tensor("kept k", mask=True),
    "coordinates": Tensor("n d"),
    "labels": Tensor("n", 0.0, LONGEST, places=True),
    "amplitudes": Tensor("n", 0.0),
    "points": Tensor("n widest"),
    "coefficients": Tensor("m p", -LARGEST, LARGEST),
    "covariance": Tensor("p m m", -LARGEST, LARGEST),
    "directions": Tensor("p factors", -2.0, 2.0),
    "ratios": Tensor("factors", 1.0),
    "along": Tensor("factors", 0.0),
    "across": Tensor("others", 0.0),
    "log_variances": Tensor("p", -500.0, 500.0),
    "spread": Tensor("one", 0.0),
    "sizes": Tensor("groups", -500.0, 500.0),
    "spreads": Tensor("groups", 1.0 / STATE),
    "groups": Tensor("k", 0.0),
}
"""Of an atom they have its number behind their name, of one of several noises before it."""


def check_fit(fitted: FittedSAE, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Refuse a fit that its file does not tell whole, in range and without contradiction.

    Raises
    ------
    InputError
        Naming the place and what is wrong there.
    """
    fitted.codes.check_shapes()
    _check_tensors(fitted, tensors)
    for name in ("rho_names", "converged", "message", "limits", "strengths", "gate_counts",
                 "dispersion", "criterion", "edf", "integration", "units", "search",
                 "diagnostics", "feature_names"):
        _typed(name, getattr(fitted, name), _hints(FittedSAE)[name])
    for index, iteration in enumerate(fitted.trace):
        _typed(f"trace[{index}]", iteration, type(iteration))
    for index, atom in enumerate(fitted.atoms):
        _typed(f"atoms[{index}]", atom, type(atom))
    _check_figures(fitted)
    _check_terms(fitted)
    _check_related(fitted)


# --- arrays ----------------------------------------------------------------------------------


def _check_tensors(fitted: FittedSAE, tensors: Mapping[str, NDArray[Any]]) -> None:
    n, p = len(fitted.codes), len(fitted.units.mean)
    atoms, noise = fitted.atoms, fitted.units.noise
    widths = [atom.topology.latent_dim for atom in atoms]
    sizes = {"n": n, "p": p, "k": len(atoms), "one": 1, "rho": len(fitted.rho_names),
             "chart": fitted.assignment.dim, "q": fitted.assignment.dim + sum(widths),
             "kept": len(fitted.remembered.Z), "decoders": len(fitted.beta),
             "groups": noise.n_metrics, "widest": max(widths),
             "free": 0 if isinstance(fitted.codes, SparseCodes) else n}
    for name, value in tensors.items():
        own = dict(sizes)
        stem, _, number = name.removeprefix(NOISE).rpartition(".")
        if name.startswith(NOISE):
            stem = name.rpartition(".")[2]
        elif number.isdecimal() and int(number) < len(atoms):
            atom = atoms[int(number)].topology
            own |= {"d": atom.latent_dim, "m": atom.basis_size}
        else:
            stem = name
        if stem not in TENSORS:
            raise ArtifactError(f"{name[:60]!r} is no tensor of a fit")
        _check_tensor(name, value, TENSORS[stem], own)


def _check_tensor(
    name: str, value: NDArray[Any], asked: Tensor, sizes: Mapping[str, int]
) -> None:
    # axes that only the tensor itself tells have the size that it has
    axes = asked.axes.split()
    shape = tuple(sizes.get(axis, own) for axis, own in zip(axes, value.shape, strict=False))
    if value.shape != shape or len(axes) != value.ndim:
        raise ArtifactError(f"{name} has shape {value.shape}, expected {shape} ({asked.axes})")
    dtype = np.dtype(np.uint8 if asked.mask else np.int64 if asked.places else np.float64)
    if value.dtype != dtype:
        raise ArtifactError(f"{name} is of type {value.dtype}, expected {dtype}")
    low, high = (0.0, 1.0) if asked.mask else (asked.low, asked.high)
    bad = ~((value >= low) & (value <= high) | (np.isnan(value) & (not asked.known)))
    if bad.any():
        where = np.argwhere(bad)[0].tolist()
        raise ArtifactError(f"{name}{where} = {value[tuple(where)]} is no number from {low:g} to "
                            f"{high:g}")


# --- what else it says -------------------------------------------------------------------------


@cache
def _hints(cls: Hashable) -> dict[str, Any]:
    return get_type_hints(cls)


def _typed(place: str, value: Any, expected: Any) -> None:
    """Refuse plain values that are not of the type that their field is said to have.

    Other types, of arrays and of objects whose constructors check what they get, pass.
    """
    origin, inner = get_origin(expected), get_args(expected)
    if origin in (Union, types.UnionType):
        _typed_as_one_of(place, value, inner)
    elif origin is Literal:
        if value not in inner:
            raise ArtifactError(f"{place} must be one of {', '.join(inner)}, got {value!r:.60}")
    elif expected in (float, int, str, bool):
        plain = (float, int) if expected is float else expected
        if not isinstance(value, plain) or (isinstance(value, bool) and expected is not bool):
            raise ArtifactError(f"{place} must be of type {expected.__name__}, got {value!r:.60}")
        if isinstance(value, int) and abs(value) > LONGEST:
            raise ArtifactError(f"{place} = {value!r:.60} is too large")
    elif origin is tuple:
        if not isinstance(value, tuple) or (inner[-1] is not ... and len(value) != len(inner)):
            raise ArtifactError(f"{place} must be a list of {len(inner)}, got {value!r:.60}")
        each = [inner[0]] * len(value) if inner[-1] is ... else inner
        for index, (item, kind) in enumerate(zip(value, each, strict=True)):
            _typed(f"{place}[{index}]", item, kind)
    elif origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ArtifactError(f"{place} must have names and values, got {value!r:.60}")
        for name, item in value.items():
            _typed(f"{place}.{name}", item, inner[1])
    elif is_dataclass(value) and isinstance(expected, type):
        hints = _hints(value.__class__)
        for item in fields(value):
            _typed(f"{place}.{item.name}", getattr(value, item.name), hints[item.name])


def _typed_as_one_of(place: str, value: Any, kinds: tuple[Any, ...]) -> None:
    failed: list[ArtifactError] = []
    for kind in kinds:
        if kind is type(None) and value is None:
            return
        try:
            _typed(place, value, kind)
        except ArtifactError as error:
            failed.append(error)
        else:
            if kind is not type(None):
                return
    raise failed[0] if failed else ArtifactError(f"{place} must not be None")


def _check_figures(fitted: FittedSAE) -> None:
    """Numbers in their ranges, and places that there are."""
    n = len(fitted.codes)
    used, of = fitted.gate_counts
    for name, value, low, high in (
            ("scale_", fitted.units.scale, SMALLEST, LARGEST),
            *(("spread", value, SMALLEST, LARGEST) for value in [fitted.units.spread]
              if value is not None),
            ("dispersion_", fitted.dispersion, SMALLEST**2, LARGEST**2),
            ("criterion_", fitted.criterion, -LARGEST, LARGEST),
            ("edf_", fitted.edf, -STATE, STATE),
            ("gate_rows", of, max(1.0, used.max(initial=0.0)), LONGEST),
            *((f"strengths.{name}", value, 0.0, LARGEST)
              for name, value in fitted.strengths.items()),
            *((f"checks.{check.name}.rows", row, 0, n - 1)
              for check in fitted.diagnostics.checks for row in check.rows)):
        if not low <= value <= high:
            raise ArtifactError(f"{name} = {value!r} must lie from {low:g} to {high:g}")
    for name, limit in fitted.limits:
        if limit not in LIMITS:
            raise ArtifactError(f"limits.{name} must be one of {', '.join(LIMITS)}, got "
                                f"{limit!r:.60}")
    explained = explained_name(fitted.family)
    share = fitted.diagnostics.figures.get(explained)
    if not isinstance(share, float) or not abs(share) <= LARGEST:
        raise ArtifactError(f"figures.{explained} must be a finite number, got {share!r:.60}")
    for index, atom in enumerate(fitted.atoms):
        if not (np.isfinite([atom.edf, atom.evidence]).all() and 0.0 <= atom.share <= STATE):
            raise ArtifactError(f"atoms[{index}]: edf {atom.edf!r}, evidence {atom.evidence!r} and "
                                f"share {atom.share!r} are not those of an atom")
        for name in ("evidence_per_row", "over_flat"):
            figure = getattr(atom, name)
            if figure is not None and not (np.isnan(figure) or abs(figure) <= LARGEST):
                raise ArtifactError(f"atoms[{index}]: {name} {figure!r} is not a number of nats")
        if not (np.diagonal(atom.covariance, axis1=1, axis2=2) >= 0.0).all():
            raise ArtifactError(f"covariance.{index} has variances below 0")


def _check_terms(fitted: FittedSAE) -> None:
    """Every penalty acts where its kind does."""
    atoms, assignment = [atom.topology for atom in fitted.atoms], fitted.assignment
    own = {(type(prior.penalty), prior.target, prior.atom) for prior in assignment.own_priors()}
    for index, term in enumerate(fitted.penalties):
        if not 0.0 <= term.penalty.weight <= HEAVIEST:
            raise ArtifactError(f"terms[{index}].penalty.weight = {term.penalty.weight!r:.60} must "
                                f"lie from 0 to {HEAVIEST:g}")
        if (type(term.penalty), term.target, term.atom) in own:
            continue
        try:
            places = bind_penalty(term.penalty, atoms, len(fitted.units.mean), assignment)
        except InputError as error:
            raise ArtifactError(f"terms[{index}].penalty: {error}") from error
        if (term.target, term.atom) not in [(place.target, place.atom) for place in places]:
            raise ArtifactError(f"terms[{index}]: {term.penalty.KIND_TAG} does not act on "
                                f"target={term.target!r:.60}, atom={term.atom!r:.60}")
        check_rows(term, len(fitted.codes))
    check_priors(fitted.penalties)


# --- what is told twice -------------------------------------------------------------------------


def _check_related(fitted: FittedSAE) -> None:
    """Outer parameters are those of the model, and decoders those of its state."""
    units, k, p = fitted.units, len(fitted.atoms), len(fitted.units.mean)
    noise = units.noise
    if isinstance(noise, PerAtom) and not (
            len(noise.sizes) and np.isin(noise.groups, np.arange(noise.n_metrics)).all()):
        raise ArtifactError(f"{NOISE}groups must be numbers of the {noise.n_metrics} noises")
    for g in range(k):
        there = noise.of_atom(g).colour(np.eye(p))
        if there.shape != (p, p) or not _agree(noise.of_atom(g).whiten(there), np.eye(p)):
            raise ArtifactError("the noise is none of the columns: its directions are not "
                                "orthonormal, or its variances too far apart")
    # penalties that couple rows, and they alone, know how many there are
    n = len(fitted.codes) if any(term.couples_rows for term in fitted.penalties) else 1
    size = sum(atom.topology.basis_size for atom in fitted.atoms) + fitted.assignment.has_intercept
    if len(fitted.beta) != size:
        raise ArtifactError(f"beta has {len(fitted.beta)} rows, the atoms have {size}")
    model = fitted.model(np.zeros((n, p)))
    if model.outer.names != fitted.rho_names:
        raise ArtifactError(f"rho_names must be {', '.join(model.outer.names)}, got "
                            f"{', '.join(fitted.rho_names)}")
    low, high = model.outer.bounds.T
    beyond = (fitted.rho < low - AGREE) | (fitted.rho > high + AGREE)
    if beyond.any():
        name = fitted.rho_names[int(beyond.argmax())]
        raise ArtifactError(f"rho_: {name} lies outside of what is searched")
    strengths = model.strengths(fitted.rho)
    for name in strengths.keys() | fitted.strengths.keys():
        if not _agree(fitted.strengths.get(name, np.nan), strengths.get(name, np.nan)):
            raise ArtifactError(f"strengths.{name} is not that of the penalties and rho_")
    own = fitted.family.dispersion(fitted.rho[model.outer.psi]) * units.scale**2
    if not _agree(fitted.dispersion, own):
        raise ArtifactError(f"dispersion_ = {fitted.dispersion!r} is not that of rho_, {own!r}")
    decoders = data_decoders(model, Theta(fitted.zeta[:n], fitted.beta))
    for index, (atom, where) in enumerate(
            zip(fitted.atoms, model.layout.basis_slices, strict=True)):
        expected = decoders[where].copy()
        if not model.layout.has_intercept:
            expected[0] += units.offset
        if not _agree(atom.coefficients, expected):
            raise ArtifactError(f"coefficients.{index} are not those of beta, units and noise")


def _agree(one: Array | float, other: Array | float) -> bool:
    """Whether two arrays are the same, but for rounding relative to their largest entry."""
    largest = float(np.abs(other).max(initial=0.0))
    return bool(np.abs(np.subtract(one, other)).max(initial=0.0) <= AGREE * largest)
