"""What the search for starts and codes asks of an SAE-manifold."""

from __future__ import annotations

import numpy as np
from scipy.linalg import block_diag, cho_factor, cho_solve

from reml_sae.engine.protocol import Theta
from reml_sae.models.sae.structure import SAEStructure
from reml_sae.typing import Array

IRLS_STEPS = 4
START_DISPERSION = (1e-8, 1.0)


def column_weights(structure: SAEStructure, theta: Theta, rho: Array) -> Array:
    """IRLS weight of every column, averaged over the rows, (p,)."""
    psi = rho[structure.outer.psi]
    if structure.family.row_weights:
        return np.full(structure.shape[1], 1.0 / structure.family.dispersion(psi))
    eta = structure.scaled_basis(theta)[1] @ theta.beta + structure.offset
    return structure.family.weight(structure.Z, eta, psi, 0).mean(axis=0)


def row_residuals(structure: SAEStructure, theta: Theta) -> Array:
    """Data minus mean, (N, p), standardised units."""
    eta = structure.scaled_basis(theta)[1] @ theta.beta + structure.offset
    return structure.Z - structure.family.mean(eta)


def start_psi(structure: SAEStructure, theta: Theta) -> Array:
    """Outer parameters of the family from which a search starts, (n_psi,)."""
    if not structure.family.has_dispersion:
        eta = structure.scaled_basis(theta)[1] @ theta.beta + structure.offset
        return structure.family.psi_about(structure.Z, eta)
    psi = structure.family.best_psi(row_residuals(structure, theta))
    psi[0] = np.clip(psi[0], *np.log(START_DISPERSION))
    return psi


def row_weights(structure: SAEStructure, theta: Theta, rho: Array) -> Array:
    """Weights (N,) of the rows at a state; 1 where rows have no scale of their own."""
    if not structure.family.has_row_scales:
        return np.ones(len(structure.Z))
    eta = structure.scaled_basis(theta)[1] @ theta.beta + structure.offset
    return structure.family.row_weight(structure.Z, eta, rho[structure.outer.psi])


def solve_beta(structure: SAEStructure, theta: Theta, rho: Array) -> Theta:
    """Best decoders for fixed rows: (iterated) least squares under the quadratic priors.

    A decoder with another prior has the Gaussian one in its place: this finds starts.
    """
    features = structure.scaled_basis(theta)[1]
    priors = structure.decoder_gram(rho)
    for k, gaussian in enumerate(structure.has_gaussian_decoder):
        if not gaussian:
            priors[k] = priors[k] + structure.decoder_precision * np.eye(len(priors[k]))
    prior = block_diag(*priors)
    if structure.family.row_weights:
        return _solve_rows(
            structure, theta.xi, features, np.exp(rho[structure.outer.psi][0]) * prior)
    eta = structure.family.initial_eta(structure.Z)
    for _ in range(IRLS_STEPS):
        weight = structure.family.weight(structure.Z, eta, rho[structure.outer.psi], 0)
        score = -structure.family.loss_eta(structure.Z, eta, rho[structure.outer.psi], 1)
        grams = np.einsum("nm,no,nk->omk", features, weight, features, optimize=True) + prior
        right = features.T @ (weight * (eta - structure.offset) + score)
        beta = np.linalg.solve(grams, right.T[:, :, None])[:, :, 0].T
        eta = features @ beta + structure.offset
    return Theta(theta.xi, np.asarray(beta, float))


def _solve_rows(structure: SAEStructure, xi: Array, features: Array, prior: Array) -> Theta:
    """Least squares of rows, at the weights that what they leave gives them."""
    family, Z = structure.family, structure.Z
    steps = 1 if family.equal_weights else IRLS_STEPS
    eta = np.zeros_like(Z)
    for _ in range(steps):
        root = np.sqrt(family.row_weight(Z, eta, family.best_psi(Z - eta)))[:, None]
        scaled = root * features
        beta = cho_solve(cho_factor(scaled.T @ scaled + prior), scaled.T @ (root * Z))
        eta = features @ beta
    return Theta(xi, beta)
