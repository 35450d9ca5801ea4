"""Which of the two solvers fits a model: the search with the engine, or sweeps over the rows."""

from __future__ import annotations

from typing import Any

from reml_sae.assignments import Assignment
from reml_sae.discovery.structure import Structure
from reml_sae.errors import InputError
from reml_sae.estimators._streaming import fits_in_memory
from reml_sae.estimators._validation import read_noise
from reml_sae.io import RowSource
from reml_sae.sweeps import is_swept

MOST_SEARCHED = 32
"""Count of atoms up to which "auto" leaves rows that fit in memory to the search."""


def takes_sweeps(
    model: Any, structure: Structure, assignment: Assignment, source: RowSource
) -> bool:
    """Whether a `SAEManifold` fits the rows of a source by sweeps.

    Raises
    ------
    InputError
        Where it is told to and cannot, or has a device for the search.
    """
    reason = _objection(model, structure, assignment)
    if model.solver == "sweeps" and reason:
        raise InputError(f"solver='sweeps' {reason}")
    large = structure.n_atoms is not None and structure.n_atoms > MOST_SEARCHED
    sweeps = model.solver == "sweeps" or (model.solver == "auto" and not reason and (
        large or not fits_in_memory(source)))
    if model.device != "cpu" and not sweeps:
        raise InputError(f"device={model.device!r} is for sweeps alone, and this fit is one of the "
                         "search; set solver='sweeps', or device='cpu'")
    return sweeps


def _objection(model: Any, structure: Structure, assignment: Assignment) -> str:
    """Why sweeps do not fit such a model; empty where they do."""
    if structure.n_atoms is None:
        return "needs a number of atoms that is given; name it, or solver='search'"
    if assignment.name != "topk" or model.n_active != 1:
        return ("is for rows that use one atom each; set assignment='topk' and n_active=1, or "
                "solver='search'")
    other = next((atom for atom in structure.atoms(structure.n_atoms)
                  if not is_swept(atom)), None)
    if other is not None:
        return (f"finds rings and flats alone, such as circles and planes, not {other.label}; use "
                "solver='search'")
    if model.family != "gaussian" or model.row_noise != "gaussian":
        return "is for the Gaussian family with row_noise='gaussian'; use solver='search'"
    if read_noise(model.noise) not in (("isotropic", False), ("auto", False)):
        return "has isotropic noise alone; set noise='isotropic', or solver='search'"
    for name, value in (("penalties", None), ("curvature", "majorizer"), ("demote", False),
                        ("warm_start", False)):
        if getattr(model, name) != value:
            return f"takes {name}={value!r} alone; use solver='search'"
    if model.integration == "quadrature":
        return "has V by Laplace's method; set integration='auto', or solver='search'"
    return ""
