"""A fit in one .safetensors file, and back; no pickle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reml_sae import penalties as pen
from reml_sae.assignments import Assignment, get_assignment
from reml_sae.diagnostics import Diagnostics
from reml_sae.discovery.encode import Remembered
from reml_sae.discovery.record import SearchRecord
from reml_sae.engine import REMLTrace, TraceRow
from reml_sae.errors import ArtifactError
from reml_sae.estimators._artifact_checks import NOISE, check_fit
from reml_sae.estimators._codes import ARRAYS, TABLES, Codes
from reml_sae.estimators._codes import KIND as CODES
from reml_sae.estimators._fitted import FittedSAE
from reml_sae.estimators._results import Atom
from reml_sae.estimators._sparse_codes import SparseCodes
from reml_sae.estimators._swept import SweptSAE
from reml_sae.estimators._units import Units
from reml_sae.families import Family, StudentTRows, get_family, with_row_noise
from reml_sae.families.noise import NOISES, Noise, PerAtom, RowNoise
from reml_sae.io import read_artifact, write_artifact
from reml_sae.manifolds import Manifold, get_manifold
from reml_sae.models import PenaltyTerm
from reml_sae.sweeps import SweepPolicy

Tensors = dict[str, NDArray[Any]]

KIND = "SAEManifold"
NOT_OF_A_FILE = ("callbacks", "checkpoint", "executor", "device")
"""Parameters that are no values: what they name is of the machine that has it."""
CODES_READER = "read it with reml_sae.Codes.load, a table with pandas"
FIGURES = ("dispersion", "criterion", "edf", "converged", "message", "integration")


def write_fit(
    path: str | os.PathLike[str], fitted: FittedSAE, parameters: dict[str, Any]
) -> None:
    """Write a fit and the parameters of its estimator, callbacks and executor apart."""
    codes, units = fitted.codes, fitted.units
    tensors: Tensors = {
        "mean_": units.mean, "offset_": units.offset, "intercept_": fitted.intercept,
        "rho_": fitted.rho, "gradient_": fitted.gradient, "beta": fitted.beta,
        "row_objective": codes.objective, "row_converged": codes.converged.astype(np.uint8),
        "row_weights": codes.weights,
        "zeta": fitted.zeta, "gate_counts": fitted.gate_counts[0],
        "remembered.Z": fitted.remembered.Z, "remembered.xi": fitted.remembered.xi,
        "remembered.active": fitted.remembered.active.astype(np.uint8),
    }
    noise = units.noise
    assert isinstance(noise, Noise | PerAtom)
    tensors |= {NOISE + name: value for name, value in noise.arrays().items()}
    if isinstance(codes, SparseCodes):
        tensors |= {name: getattr(codes, name) for name in ("labels", "amplitudes", "points")}
    else:
        tensors |= {"assignments": codes.assignments, "gates": codes.gates.astype(np.uint8)}
        tensors |= {f"coordinates.{k}": t for k, t in enumerate(codes.coordinates)}
    for k, atom in enumerate(fitted.atoms):
        tensors[f"coefficients.{k}"] = atom.coefficients
        tensors[f"covariance.{k}"] = atom.covariance
    metadata = {
        "kind": KIND,
        "parameters": _plain(parameters, fitted),
        "gate_rows": fitted.gate_counts[1],
        "scalars": {**{f"{name}_": getattr(fitted, name) for name in FIGURES},
                    "scale_": units.scale, "data_digest_": units.digest,
                    "spread": units.spread},
        "noise": {"kind": noise.kind, "kinds": [own.kind for own in noise.noises]
                  if isinstance(noise, PerAtom) else []},
        "rho_names": list(fitted.rho_names),
        "feature_names": None if fitted.feature_names is None else list(fitted.feature_names),
        "strengths": fitted.strengths,
        "limits": [list(item) for item in fitted.limits],
        "atoms": [{"topology": atom.topology.to_config(), "edf": atom.edf,
                   "evidence": atom.evidence, "evidence_per_row": atom.evidence_per_row,
                   "over_flat": atom.over_flat, "share": atom.share} for atom in fitted.atoms],
        "terms": [{"penalty": term.penalty.to_config(), "target": term.target, "atom": term.atom}
                  for term in fitted.penalties],
        "trace": [vars(row) for row in fitted.trace],
        "diagnostics": fitted.diagnostics.to_dict(),
        "search": fitted.search.to_dict(),
    }
    if isinstance(fitted, SweptSAE):
        metadata["sweeps"] = fitted.sweeps.to_dict()
    write_artifact(path, tensors, metadata)


def read_fit(path: str | os.PathLike[str]) -> tuple[FittedSAE, dict[str, Any]]:
    """The fit and the parameters of its estimator that `write_fit` wrote.

    Raises
    ------
    ArtifactError
        Where the file was changed, or holds something else.
    InputError
        Where it is not there.
    """
    name = os.fspath(path)
    if Path(path).suffix in (*ARRAYS[:1], *TABLES):
        raise ArtifactError(f"path={name!r} is a file of codes, not of a fit; {CODES_READER}")
    tensors, metadata = read_artifact(path)
    if metadata.get("kind") == CODES:
        raise ArtifactError(f"path={name!r} holds codes, not a fit; {CODES_READER}")
    if metadata.get("kind") != KIND:
        raise ArtifactError(f"path={name!r} does not hold a fitted SAEManifold")
    try:
        fitted, parameters = _read(tensors, metadata)
        check_fit(fitted, tensors)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError,
            ArithmeticError) as error:
        what = repr(error) if isinstance(error, LookupError) else error
        raise ArtifactError(f"path={name!r} does not hold a whole fit: {what}") from error
    return fitted, parameters


def _read(tensors: Tensors, metadata: dict[str, Any]) -> tuple[FittedSAE, dict[str, Any]]:
    parameters = dict(metadata["parameters"])
    for name in parameters.keys() & NOT_OF_A_FILE:
        raise ArtifactError(f"parameters.{name} is no parameter that a file may set")
    assignment = get_assignment(parameters["assignment"], len(metadata["atoms"]),
                                n_active=parameters["n_active"],
                                temperature=parameters["temperature"])
    family = with_row_noise(get_family(parameters["family"]),
                            parameters.get("row_noise", "gaussian"))
    fitted = _fitted(tensors, metadata, assignment, family)
    parameters["topology"] = [atom.topology for atom in fitted.atoms]
    return fitted, parameters


def _fitted(
    tensors: Tensors, metadata: dict[str, Any], assignment: Assignment, family: Family
) -> FittedSAE:
    # these are not in a file that was written before they were kept
    scalars = {"data_digest_": None, "integration_": "laplace", "spread": None,
               **metadata["scalars"]}
    trace = REMLTrace([TraceRow(**row) for row in metadata["trace"]])
    names = metadata.get("feature_names")
    topologies = tuple(get_manifold(item["topology"]) for item in metadata["atoms"])
    found: dict[str, Any] = dict(
        atoms=[Atom(topologies[k], tensors[f"coefficients.{k}"], item["edf"],
                    item["evidence"], item.get("evidence_per_row", np.nan),
                    item.get("over_flat", np.nan), item["share"], tensors[f"covariance.{k}"])
               for k, item in enumerate(metadata["atoms"])],
        assignment=assignment,
        family=family,
        penalties=tuple(PenaltyTerm(pen.from_config(item["penalty"]), item["target"], item["atom"])
                        for item in metadata["terms"]),
        units=Units(tensors["mean_"], tensors["offset_"], scalars["scale_"],
                    family.has_dispersion, scalars["data_digest_"], _noise(tensors, metadata),
                    scalars["spread"]),
        intercept=tensors["intercept_"],
        beta=tensors["beta"],
        rho=tensors["rho_"],
        rho_names=tuple(metadata["rho_names"]),
        zeta=tensors["zeta"],
        gate_counts=(tensors["gate_counts"], metadata["gate_rows"]),
        codes=_codes(tensors, topologies),
        remembered=Remembered(tensors["remembered.Z"], tensors["remembered.xi"],
                              tensors["remembered.active"].astype(bool)),
        strengths=metadata["strengths"],
        gradient=tensors["gradient_"],
        limits=tuple((name, kind) for name, kind in metadata["limits"]),
        trace=trace,
        diagnostics=Diagnostics.from_dict(metadata["diagnostics"], trace),
        search=SearchRecord.from_dict(metadata["search"]),
        feature_names=None if names is None else tuple(names),
        **{name: scalars[f"{name}_"] for name in FIGURES},
    )
    if "sweeps" in metadata:
        return SweptSAE(**found, sweeps=SweepPolicy.from_dict(metadata["sweeps"]))
    return FittedSAE(**found)


def _codes(tensors: Tensors, topologies: tuple[Manifold, ...]) -> Codes:
    objective, converged = tensors["row_objective"], tensors["row_converged"].astype(bool)
    weights = tensors.get("row_weights", np.ones(len(objective)))
    if "labels" in tensors:
        return SparseCodes(tensors["labels"], tensors["amplitudes"], tensors["points"], objective,
                           converged, weights, topologies)
    return Codes(tensors["assignments"],
                 [tensors[f"coordinates.{k}"] for k in range(len(topologies))],
                 tensors["gates"].astype(bool), objective, converged, weights, topologies)


def _noise(tensors: Tensors, metadata: dict[str, Any]) -> RowNoise:
    saved = metadata.get("noise", {"kind": "isotropic"})  # a fit from before there were others
    arrays = {name.removeprefix(NOISE): value for name, value in tensors.items()
              if name.startswith(NOISE)}
    if saved["kind"] == PerAtom.kind:
        return PerAtom.of(arrays, saved["kinds"], len(tensors["mean_"]))
    return NOISES.get(saved["kind"]).of(arrays, len(tensors["mean_"]))


def _plain(parameters: dict[str, Any], fitted: FittedSAE) -> dict[str, Any]:
    """Parameters of an estimator as plain values, what the search chose in place of "auto"."""
    plain = {name: value.item() if isinstance(value, np.generic) else value
             for name, value in parameters.items()
             if name not in NOT_OF_A_FILE}
    family: Any = fitted.family  # every family is a dataclass
    own = {item.name: getattr(family, item.name) for item in fields(family)}
    key = "row_noise" if isinstance(family, StudentTRows) else "family"
    plain |= {"family": "gaussian", "row_noise": "gaussian"}
    own = {name: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
           for name, value in own.items() if value is not None}
    plain[key] = {key: family.name, **own} if own else family.name
    plain["topology"] = [atom.topology.to_config() for atom in fitted.atoms]
    plain["n_atoms"] = len(fitted.atoms)
    if isinstance(plain["noise"], Mapping):
        plain["noise"] = {name: value.item() if isinstance(value, np.generic) else value
                          for name, value in plain["noise"].items()}
    plain["n_active"] = min(plain["n_active"], len(fitted.atoms))
    if plain["penalties"] is not None:
        plain["penalties"] = [item.to_config() if isinstance(item, pen.Penalty) else dict(item)
                              for item in plain["penalties"]]
    return plain
