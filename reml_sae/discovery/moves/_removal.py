"""A model without one of its atoms: rows get their best codes under the decoders that are left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.encode import encode
from reml_sae.discovery.fitting import Fitted, Settings, model_from_codes
from reml_sae.discovery.moves.protocol import Proposal, refitted
from reml_sae.discovery.strengths import known_of, renumbered
from reml_sae.engine import OuterKey, Theta
from reml_sae.manifolds import Manifold


def without_atom(fitted: Fitted, k: int, detail: str, limit: float) -> Proposal:
    """The model without atom k."""
    atoms = [atom for j, atom in enumerate(fitted.model.atoms) if j != k]
    known = renumbered(known_of(fitted), k)

    def fit(settings: Settings) -> Fitted | None:
        codes = _codes_without(fitted, settings, atoms, k, known)
        return refitted(fitted, atoms, codes, known, settings)

    return Proposal(k, f"{fitted.model.atoms[k].label}, {detail}", limit, fit)


def _codes_without(
    fitted: Fitted, settings: Settings, atoms: Sequence[Manifold], k: int,
    known: Mapping[OuterKey, float],
) -> Candidate:
    """Codes of the model without atom k, at its present decoders."""
    model, theta = fitted.model, fitted.result.theta
    codes = fitted.codes
    others = np.arange(len(model.atoms)) != k
    affected = np.flatnonzero(model.active[:, k] | (codes.amplitudes.argmax(axis=1) == k))
    amplitudes = model.assignment.normalised(codes.amplitudes[:, others])
    kept = model.layout.coordinate_atom != k
    codes = Candidate(codes.support[:, others], amplitudes, codes.coordinates[:, kept])
    if not len(affected):
        return codes
    start = model_from_codes(fitted.rows, atoms, settings, codes, known)
    beta = np.delete(theta.beta, model.layout.basis_slices[k], axis=0)
    rho = start.initial_rho()
    rho[start.outer.psi] = fitted.result.rho[model.outer.psi]
    if start.couples_rows:
        affected = np.arange(len(model.Z))
    part = start.rows(affected)
    found, active, _ = encode(part, Theta(part.initial_theta().xi, beta), rho,
                              settings.policy.encode, search_from_state=start.couples_rows)
    support, coordinates = codes.support.copy(), codes.coordinates.copy()
    support[affected] = active
    is_open = start.assignment.open_mask(active)
    amplitudes[affected] = start.assignment.amplitudes(start.logits(found), is_open).a
    coordinates[affected] = found.xi[:, start.assignment.dim:]
    return Candidate(support, amplitudes, coordinates)
