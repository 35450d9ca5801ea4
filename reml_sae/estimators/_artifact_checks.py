"""What a fit that came from a file must satisfy before anything is computed from it."""

from __future__ import annotations

import types
from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from reml_sae.errors import ArtifactError
from reml_sae.estimators._fitted import FittedSAE
from reml_sae.estimators._sparse_codes import SparseCodes


def check_fit(fitted: FittedSAE) -> None:
    """Refuse arrays of wrong shapes and figures that are no numbers.

    Raises
    ------
    ArtifactError
        Naming what is wrong.
    """
    atoms, codes, units = fitted.atoms, fitted.codes, fitted.units
    codes.check_shapes()
    n, k, p = len(codes), len(codes.topologies), len(units.mean)
    sparse = isinstance(codes, SparseCodes)
    widths = [atom.topology.latent_dim for atom in atoms]
    sizes = [atom.topology.basis_size for atom in atoms]
    kept, width = len(fitted.remembered.Z), fitted.assignment.dim + sum(widths)
    for index, atom in enumerate(atoms):
        _shape(f"coefficients.{index}", atom.coefficients, (sizes[index], p))
        _shape(f"covariance.{index}", atom.covariance, (p, sizes[index], sizes[index]))
        _finite(f"coefficients.{index}", atom.coefficients)
    _shape("offset_", units.offset, (p,))
    _shape("intercept_", fitted.intercept, (p,))
    if fitted.feature_names is not None:
        _shape("feature_names", fitted.feature_names, (p,))
    if not np.isfinite(units.noise.whiten_rows(np.ones((1, p)), np.zeros(1, np.intp))).all():
        raise ArtifactError("the noise is none of the columns")
    _shape("rho_", fitted.rho, (len(fitted.rho_names),))
    _shape("gradient_", fitted.gradient, fitted.rho.shape)
    _shape("beta", fitted.beta, (len(fitted.beta), p))
    if len(fitted.beta) - sum(sizes) not in (0, 1):
        raise ArtifactError(f"beta has {len(fitted.beta)} rows, the atoms have {sum(sizes)}")
    _shape("zeta", fitted.zeta, (0 if sparse else n, fitted.assignment.dim))
    _shape("gate_counts", fitted.gate_counts[0], (k,))
    _shape("remembered.Z", fitted.remembered.Z, (kept, p))
    _shape("remembered.xi", fitted.remembered.xi, (kept, width))
    _shape("remembered.active", fitted.remembered.active, (kept, k))
    for name, value in (("mean_", units.mean), ("offset_", units.offset), ("rho_", fitted.rho),
                        ("intercept_", fitted.intercept), ("beta", fitted.beta),
                        ("scale_", units.scale), ("dispersion_", fitted.dispersion),
                        ("criterion_", fitted.criterion), ("edf_", fitted.edf)):
        _finite(name, value)
    if not (units.scale > 0.0 and fitted.dispersion > 0.0):
        raise ArtifactError(f"scale_ = {units.scale!r} and dispersion_ = {fitted.dispersion!r} "
                            "must be positive")
    for name in ("rho_names", "converged", "message", "limits", "strengths", "gate_counts",
                 "dispersion", "criterion", "edf"):
        _typed(name, getattr(fitted, name), _hints(FittedSAE)[name])
    if fitted.integration not in ("laplace", "quadrature"):
        raise ArtifactError(f"integration_ must be laplace or quadrature, got "
                            f"{fitted.integration!r:.60}")
    _typed("units", units, type(units))
    _typed("search", fitted.search, type(fitted.search))
    _typed("diagnostics", fitted.diagnostics, type(fitted.diagnostics))
    for index, iteration in enumerate(fitted.trace):
        _typed(f"trace[{index}]", iteration, type(iteration))
    for index, atom in enumerate(atoms):
        _typed(f"atoms[{index}]", atom, type(atom))


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
    elif expected in (float, int, str, bool):
        plain = (float, int) if expected is float else expected
        if not isinstance(value, plain) or (isinstance(value, bool) and expected is not bool):
            raise ArtifactError(f"{place} must be of type {expected.__name__}, got {value!r:.60}")
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


def _shape(name: str, value: Any, expected: tuple[int, ...]) -> None:
    if np.shape(value) != expected:
        raise ArtifactError(f"{name} has shape {np.shape(value)}, expected {expected}")


def _finite(name: str, value: Any) -> None:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ArtifactError(f"{name} holds what is no finite number")
