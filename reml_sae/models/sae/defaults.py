"""The penalties of a fit that was given none."""

from __future__ import annotations

from collections.abc import Sequence

from reml_sae import penalties as pen
from reml_sae.assignments import Assignment
from reml_sae.manifolds import Manifold
from reml_sae.models.sae.terms import PenaltyTerm
from reml_sae.penalties import DecoderQuadratic


def decoder_penalties(atom: Manifold) -> list[DecoderQuadratic]:
    """Size and roughness of a decoder, where the atom has a size and can be rough."""
    if atom.basis_size < 2:
        return []
    size = pen.DecoderRidgePenalty(functions=atom.basis_size)
    roughness = atom.roughness()
    if roughness is None:
        return [size]
    return [size, pen.HarmonicRoughnessPenalty(period=atom.basis_size) if atom.is_fourier
            else pen.QuadraticPenalty(S=roughness)]


def default_terms(atoms: Sequence[Manifold], assignment: Assignment) -> list[PenaltyTerm]:
    """Entropy of assignments on the simplex, and the penalties of every decoder."""
    terms = [PenaltyTerm(penalty, "logits") for penalty in assignment.default_penalties()]
    return terms + [PenaltyTerm(penalty, "decoder", k) for k, atom in enumerate(atoms)
                    for penalty in decoder_penalties(atom)]
