"""From a fitted model to what the user reads: codes, and atoms with their evidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reml_sae.engine import FitResult, Theta
from reml_sae.estimators._codes import Codes
from reml_sae.estimators._results import Atom
from reml_sae.estimators._units import Units
from reml_sae.models import SAEManifoldModel
from reml_sae.models.sae.rows import row_decrements, row_evidence
from reml_sae.models.sae.start import row_weights
from reml_sae.typing import Array, Index

ROW_TOLERANCE = 1e-4
"""Newton decrement, in the square root of nats, below which a row's code has converged."""
SAME = 1e-13
"""Relative change of a row's objective up to which it does not see an atom at all."""


def fitted_codes(model: SAEManifoldModel, theta: Theta, rho: Array) -> Codes:
    """Codes of the model's rows at a state."""
    return Codes(
        assignments=model.assignment.amplitudes(model.logits(theta), model.is_open).a,
        coordinates=[theta.xi[:, model.coordinate_columns(k)].copy()
                     for k in range(len(model.atoms))],
        gates=model.active | (model.assignment.is_mixture & np.array(
            [atom.latent_dim == 0 for atom in model.atoms])),
        objective=model.row_objective(theta, rho),
        converged=row_decrements(model, theta, rho) < ROW_TOLERANCE,
        weights=row_weights(model, theta, rho),
        topologies=tuple(model.atoms),
    )


def data_decoders(model: SAEManifoldModel, theta: Theta) -> Array:
    """Decoders (M, p) in the units of the data; the intercept is none where atoms hold it."""
    if model.noise.n_metrics > 1:
        return model.unit * model.centred_decoders(theta.beta)
    return model.unit * model.noise.of_atom(0).colour(theta.beta)


def fitted_atoms(
    model: SAEManifoldModel, result: FitResult, units: Units, counts: Index,
    over_flat: Sequence[float | None],
) -> list[Atom]:
    """Atoms in the units of the data, with the rows (K,) of each and what is over its flat."""
    decoders = data_decoders(model, result.theta)
    point = model.at(result.theta, result.rho)
    share = model.assignment.amplitudes(model.logits(result.theta), model.is_open).a.mean(axis=0)
    if model.by_quadrature:
        present = model.row_quadrature(result.theta.beta, result.rho).row_values()
    else:
        present = row_evidence(model, result.theta, result.rho)
    out = []
    for k, atom in enumerate(model.atoms):
        where = model.layout.basis_slices[k]
        coefficients = np.ascontiguousarray(decoders[where])
        if not model.layout.has_intercept:
            coefficients[0] += units.offset
        edf, covariance = point.decoder_posterior(k)
        scale = model.unit**2 * np.exp(model.noise.log_size(k))
        evidence = _evidence(model, result, k, present)
        out.append(Atom(
            topology=atom, coefficients=coefficients,
            edf=edf,
            evidence=evidence, evidence_per_row=a_row(evidence, counts[k]),
            over_flat=over_flat[k], share=float(share[k]),
            covariance=np.ascontiguousarray(
                scale * model.noise.of_atom(k).colour_variances(covariance)),
        ))
    return out


def a_row(evidence: float, count: int) -> float:
    """Evidence over the number of rows; nan where there are none."""
    return evidence / count if count else np.nan


def _evidence(model: SAEManifoldModel, result: FitResult, k: int, present: Array) -> float:
    """Rise of the row evidence, ``present`` (N,), when atom k's curve is replaced by its centre.

    The rows keep the centre, under gates too; what they had on the curve is integrated out with its
    prior.
    """
    if model.atoms[k].latent_dim == 0:
        return 0.0
    theta, rho = result.theta, result.rho
    beta = theta.beta.copy()
    where = model.layout.basis_slices[k]
    beta[where.start + 1 : where.stop] = 0.0
    rows = np.flatnonzero(model.is_open[:, k])
    part, xi, present = model.rows(rows), theta.xi[rows], present[rows]
    if model.by_quadrature:
        return float((part.row_quadrature(beta, rho).row_values() - present).sum())
    gates = part.active.copy()
    gates[:, k] = False
    # a gate that is shut takes a whole centre away too
    centre = model.assignment.whole_constants(theta.beta[where.start])
    without = part.with_state(Theta(xi, beta), rho, gates).with_offset(model.offset + centre)
    apart = np.abs(without.row_objective(without.theta, rho)
                   - part.row_objective(Theta(xi, theta.beta), rho))
    sees = np.flatnonzero(part.couples_rows | part.active[:, k]
                          | (apart > SAME * (1.0 + np.abs(present))))
    without = without.rows(sees)
    refined = without.refine_rows(without.theta, rho, 20)
    return float((row_evidence(without, refined, rho) - present[sees]).sum())
