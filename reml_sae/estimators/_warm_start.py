"""From a fitted estimator to what its next fit goes on from."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from reml_sae.assignments import Assignment
from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.present import PresentFit
from reml_sae.discovery.structure import Structure
from reml_sae.errors import InputError
from reml_sae.estimators._fitted import FittedSAE
from reml_sae.families import Family
from reml_sae.families.noise import Isotropic, Noise
from reml_sae.typing import Array


def present_fit(
    fitted: FittedSAE, data: Array, digest: str | None, assignment: Assignment, family: Family
) -> PresentFit:
    """What is taken over for data (N, p) with a digest, which are encoded where they are others.

    Raises
    ------
    InputError
        Where the fit is of other columns, or of another assignment or family.
    """
    p = len(fitted.units.mean)
    for what, own, asked in (("columns", p, data.shape[1]),
                             ("assignment", fitted.assignment, assignment),
                             ("family", fitted.family, family)):
        if own != asked:
            raise InputError(f"warm_start: the present fit has {what} {own}, and {asked} is asked "
                             "for; set warm_start=False to fit anew")
    rows = fitted.units.standardised(data)
    codes = fitted.codes if digest == fitted.units.digest else fitted.encode(rows)
    start = hashlib.sha256(fitted.beta.tobytes())
    for array in (fitted.rho, codes.assignments, *codes.coordinates):
        start.update(np.ascontiguousarray(array).data)
    noise = fitted.units.noise
    return PresentFit(
        atoms=[atom.topology for atom in fitted.atoms],
        codes=Candidate(codes.gates, codes.assignments,
                        np.concatenate(codes.coordinates, axis=1)),
        rho=fitted.model(rows[:1]).outer.keyed(fitted.rho),
        noise=noise if isinstance(noise, Noise) else Isotropic(p), digest=start.hexdigest())


def structure_of(fitted: FittedSAE, asked: Structure) -> Structure:
    """The structure of a fit, where it is one that is asked for; what was open stays as it is.

    Raises
    ------
    InputError
        Where another number of atoms or another shape is asked for.
    """
    atoms = [atom.topology for atom in fitted.atoms]
    again = "; set warm_start=False to fit anew"
    if asked.n_atoms not in (None, len(atoms)):
        raise InputError(f"warm_start: the present fit has {len(atoms)} atoms, and n_atoms="
                         f"{asked.n_atoms} is asked for{again}")
    for k, (own, shape) in enumerate(zip(atoms, asked.atoms(len(atoms)), strict=True)):
        sized = asked.topology is None or asked.chooses_size(k)
        demoted = own.is_flat and asked.demote
        if not (own == shape or demoted or (sized and (asked.topology is None
                                                       or own.name == shape.name))):
            raise InputError(f"warm_start: atom {k} of the present fit is a {own.label}, and "
                             f"{shape.label} is asked for{again}")
    return replace(asked, topology=atoms, n_atoms=len(atoms),
                   demote=asked.demote or asked.topology is None)
