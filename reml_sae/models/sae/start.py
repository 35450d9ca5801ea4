"""What the search for starts and codes asks of an SAE-manifold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import block_diag, cho_factor, cho_solve

from reml_sae.engine.protocol import Theta
from reml_sae.typing import Array

if TYPE_CHECKING:
    from reml_sae.models.sae.model import SAEManifoldModel


IRLS_STEPS = 4
START_DISPERSION = (1e-8, 1.0)


def column_weights(model: SAEManifoldModel, theta: Theta, rho: Array) -> Array:
    """IRLS weight of every column, averaged over the rows, (p,)."""
    psi = rho[model.outer.psi]
    if model.family.equal_weights:
        return np.full(model.shape[1], 1.0 / model.family.dispersion(psi))
    eta = model.scaled_basis(theta)[1] @ theta.beta + model.offset
    return model.family.weight(model.Z, eta, psi, 0).mean(axis=0)


def start_psi(model: SAEManifoldModel, theta: Theta) -> Array:
    """Outer parameters of the family from which a search starts, (n_psi,)."""
    if not model.family.has_dispersion:
        return model.family.initial_psi(model.Z)
    square = np.mean(model.row_residuals(theta) ** 2)
    return np.log(np.clip([square], *START_DISPERSION))


def solve_beta(model: SAEManifoldModel, theta: Theta, rho: Array) -> Theta:
    """Best decoders for fixed rows: (iterated) least squares under the quadratic priors.

    A decoder with another prior has the Gaussian one in its place: this finds starts.
    """
    features = model.scaled_basis(theta)[1]
    priors = model.decoder_gram(rho)
    for k, gaussian in enumerate(model.has_gaussian_decoder):
        if not gaussian:
            priors[k] = priors[k] + model.decoder_precision * np.eye(len(priors[k]))
    prior = block_diag(*priors)
    if model.family.equal_weights:
        gram = features.T @ features + np.exp(rho[model.outer.psi][0]) * prior
        return Theta(theta.xi, cho_solve(cho_factor(gram), features.T @ model.Z))
    eta = model.family.initial_eta(model.Z)
    for _ in range(IRLS_STEPS):
        weight = model.family.weight(model.Z, eta, rho[model.outer.psi], 0)
        score = -model.family.loss_eta(model.Z, eta, rho[model.outer.psi], 1)
        grams = np.einsum("nm,no,nk->omk", features, weight, features, optimize=True) + prior
        right = features.T @ (weight * (eta - model.offset) + score)
        beta = np.linalg.solve(grams, right.T[:, :, None])[:, :, 0].T
        eta = features @ beta + model.offset
    return Theta(theta.xi, np.asarray(beta, float))
