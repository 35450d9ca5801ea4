"""The penalties of a fit that was given none."""

from __future__ import annotations

from collections.abc import Sequence

from reml_sae import penalties as pen
from reml_sae.assignments import Assignment
from reml_sae.manifolds import Manifold
from reml_sae.models.sae.terms import PenaltyTerm


def default_terms(atoms: Sequence[Manifold], assignment: Assignment) -> list[PenaltyTerm]:
    """Entropy of assignments on the simplex and roughness of every atom that can be rough."""
    terms = [PenaltyTerm(penalty, "logits") for penalty in assignment.default_penalties()]
    for k, atom in enumerate(atoms):
        roughness = atom.roughness()
        if roughness is None:
            continue
        penalty = (pen.HarmonicRoughnessPenalty(period=atom.basis_size) if atom.is_fourier
                   else pen.QuadraticPenalty(S=roughness))
        terms.append(PenaltyTerm(penalty, "decoder", k))
    return terms
