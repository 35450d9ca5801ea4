"""Save and load a fitted `SAEManifold` as one .safetensors file; no pickle."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from reml_sae import penalties as pen
from reml_sae.diagnostics import Diagnostics
from reml_sae.discovery.encode import Remembered
from reml_sae.discovery.search import SearchRecord
from reml_sae.engine import REMLTrace, TraceRow
from reml_sae.errors import InputError
from reml_sae.estimators._results import Atom, Codes
from reml_sae.families import get_family
from reml_sae.io import read_artifact, write_artifact
from reml_sae.manifolds import get_manifold
from reml_sae.models import PenaltyTerm

if TYPE_CHECKING:
    from reml_sae.estimators.sae_manifold import SAEManifold

KIND = "SAEManifold"
SCALARS = ("scale_", "dispersion_", "criterion_", "edf_", "converged_", "message_", "n_iter_",
           "n_features_in_", "data_digest_", "integration_")
ARRAYS = ("mean_", "offset_", "intercept_", "rho_", "gradient_")


def save(model: SAEManifold, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator; callbacks are not kept."""
    tensors = {name: np.asarray(getattr(model, name)) for name in ARRAYS}
    tensors["beta"] = model._theta_beta
    tensors["assignments"] = model.codes_.assignments
    tensors["gates"] = model.codes_.gates.astype(np.uint8)
    tensors["row_objective"] = model.codes_.objective
    tensors["row_converged"] = model.codes_.converged.astype(np.uint8)
    tensors["zeta"] = model._zeta
    tensors["gate_counts"] = model._gate_counts[0]
    tensors["remembered.Z"] = model._remembered.Z
    tensors["remembered.xi"] = model._remembered.xi
    tensors["remembered.active"] = model._remembered.active.astype(np.uint8)
    for k, atom in enumerate(model.atoms_):
        tensors[f"coordinates.{k}"] = model.codes_.coordinates[k]
        tensors[f"coefficients.{k}"] = atom.coefficients
        tensors[f"covariance.{k}"] = atom.covariance
    metadata = {
        "kind": KIND,
        "parameters": _plain_parameters(model),
        "gate_rows": model._gate_counts[1],
        "scalars": {name: getattr(model, name) for name in SCALARS},
        "rho_names": list(model.rho_names_),
        "strengths": model.strengths_,
        "limits": [list(item) for item in model.limits_],
        "atoms": [{"topology": atom.topology.to_config(), "edf": atom.edf,
                   "evidence": atom.evidence, "share": atom.share} for atom in model.atoms_],
        "terms": [{"penalty": term.penalty.to_config(), "target": term.target, "atom": term.atom}
                  for term in model._terms],
        "trace": [vars(row) for row in model.trace_],
        "diagnostics": model.diagnostics_.to_dict(),
        "search": model.search_.to_dict(),
    }
    write_artifact(path, tensors, metadata)


def load(path: str | os.PathLike[str]) -> SAEManifold:
    """Read a fitted `SAEManifold` that ``save`` wrote.

    Raises
    ------
    InputError
        Where the file cannot be read or holds something else.
    """
    from reml_sae.estimators.sae_manifold import SAEManifold

    tensors, metadata = read_artifact(path)
    if metadata.get("kind") != KIND:
        raise InputError(f"{os.fspath(path)} does not hold a fitted SAEManifold")
    parameters = dict(metadata["parameters"])
    parameters["topology"] = [get_manifold(item) for item in parameters["topology"]]
    model = SAEManifold(**parameters)
    # of a fit that was saved before they were kept
    absent = {"data_digest_": None, "integration_": "laplace"}
    for name, value in {**absent, **metadata["scalars"]}.items():
        setattr(model, name, value)
    for name in ARRAYS:
        setattr(model, name, tensors[name])
    model._theta_beta = tensors["beta"]
    model.rho_names_ = tuple(metadata["rho_names"])
    model.strengths_ = metadata["strengths"]
    model.limits_ = tuple((name, kind) for name, kind in metadata["limits"])
    model.atoms_ = [
        Atom(get_manifold(item["topology"]), tensors[f"coefficients.{k}"], item["edf"],
             item["evidence"], item["share"], tensors[f"covariance.{k}"])
        for k, item in enumerate(metadata["atoms"])
    ]
    model._manifolds = tuple(atom.topology for atom in model.atoms_)
    model.search_ = SearchRecord.from_dict(metadata["search"])
    model.assignment_ = model._assignment(len(model.atoms_))
    model._terms = tuple(
        PenaltyTerm(pen.from_config(item["penalty"]), item["target"], item["atom"])
        for item in metadata["terms"]
    )
    model.codes_ = Codes(
        tensors["assignments"],
        [tensors[f"coordinates.{k}"] for k in range(len(model.atoms_))],
        tensors["gates"].astype(bool), tensors["row_objective"],
        tensors["row_converged"].astype(bool),
    )
    model._zeta = tensors["zeta"]
    model._gate_counts = (tensors["gate_counts"], metadata["gate_rows"])
    model._remembered = Remembered(tensors["remembered.Z"], tensors["remembered.xi"],
                                   tensors["remembered.active"].astype(bool))
    model.trace_ = REMLTrace([TraceRow(**row) for row in metadata["trace"]])
    model.diagnostics_ = Diagnostics.from_dict(metadata["diagnostics"], model.trace_)
    return model


def _plain_parameters(model: SAEManifold) -> dict[str, Any]:
    parameters = model.get_params(deep=False)
    del parameters["callbacks"]
    family: Any = get_family(model.family)
    own = {item.name: getattr(family, item.name) for item in fields(family)}
    parameters["family"] = {"family": family.name, **{
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in own.items() if value is not None}} if own else family.name
    parameters["topology"] = [atom.topology.to_config() for atom in model.atoms_]
    parameters["n_atoms"] = len(model.atoms_)
    if parameters["penalties"] is not None:
        parameters["penalties"] = [
            item.to_config() if isinstance(item, pen.Penalty) else dict(item)
            for item in parameters["penalties"]
        ]
    for name, value in parameters.items():
        if isinstance(value, np.generic):
            parameters[name] = value.item()
    return parameters
