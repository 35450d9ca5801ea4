"""How V would change with another basis of one atom, at fixed codes.

What the other atoms leave of the rows is then a linear model of the atom's decoder B,

    Y = F B + noise,   f_i = a_i Phi(t_i),   B ~ N(0, P^-1) column by column,

with P = E + sum lambda_j S_j, E of the constant and S_j of the default penalties, whose evidence
has a closed form. Its lambda and its noise are those of this basis: a basis that is too narrow has
left part of its curve to the noise. A fit that moves the codes as well leads further down, so this
tells which bases are worth one, not which to take.

Where rows use one atom each, those of the others are no more than a part of the noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reml_sae.discovery.fitting import Fitted, Settings
from reml_sae.engine import Theta
from reml_sae.families.noise import best_noise, charged
from reml_sae.manifolds import Manifold
from reml_sae.models import SAEManifoldModel
from reml_sae.models.sae.defaults import decoder_penalties
from reml_sae.models.sae.start import row_weights
from reml_sae.models.sae.structure import log_permutations
from reml_sae.typing import Array

STEPS = 20
"""Of Fellner-Schall."""
FACTOR = 10.0
"""By which lambda moves at most in one."""
TINY = 1e-12
LEAST_PHI = 1e-150
"""Rows that are all zero have this variance."""


def predicted_criteria(
    fitted: Fitted, k: int, bases: Sequence[Manifold], settings: Settings
) -> list[float]:
    """V in nats at the present codes with each basis for atom k, up to a common constant.

    But for the permutations of atoms that are alike (`ways_gained`).
    """
    model, theta = fitted.model, fitted.result.theta
    rows, others = np.arange(len(model.Z)), np.zeros((0, model.shape[1]))
    if model.kinds and settings.noise == "isotropic":
        rows = np.flatnonzero(model.active[:, k])
        point = model.joint_at(theta, fitted.result.rho)
        others = np.delete(model.Z - point.eta, rows, axis=0)
        others *= np.sqrt(np.delete(row_weights(model, theta, fitted.result.rho), rows))[:, None]
    part, at = model.rows(rows), Theta(theta.xi[rows], theta.beta)
    features = part.scaled_basis(at)[1]
    where = model.layout.basis_slices[k]
    constant = features[:, where.start].copy()
    features[:, where] = 0.0
    rest = part.working - features @ theta.beta
    root = np.sqrt(row_weights(part, at, fitted.result.rho))[:, None]
    used, amplitudes = part.active[:, [k]], fitted.amplitudes[rows][:, [k]]
    t = at.xi[:, model.coordinate_columns(k)]
    n = len(model.Z)
    values = []
    for basis in bases:
        own = amplitudes * np.where(used, basis.basis(t), basis.prior_mean_basis())
        own[:, 0] = constant
        value, B, free = _evidence(
            root * own, root * rest, basis, model.centre_precisions[k], others)
        if settings.noise != "isotropic":
            left = model.unit * fitted.rows.noise.colour(root * (rest - own @ B))
            second = left.T @ left / free + fitted.rows.rounding * np.eye(left.shape[1])
            noise = best_noise(settings.noise, second, n)
            value += charged(noise, second, n) - charged(fitted.rows.noise, second, n)
        values.append(value)
    return values


def ways_gained(model: SAEManifoldModel, k: int, atom: Manifold) -> float:
    """By how much the log number of permutations of atoms alike rises with another atom k."""
    if any(term.target == "gates" for term in model.terms):  # their prior orders the atoms
        return 0.0
    used = np.flatnonzero(model.active.any(axis=0)).tolist()
    changed = [atom if j == k else other for j, other in enumerate(model.atoms)]
    return log_permutations(changed, used) - log_permutations(model.atoms, used)


def _evidence(
    F: Array, Y: Array, basis: Manifold, centre: float, others: Array
) -> tuple[float, Array, float]:
    """Negative log evidence of rows Y (n, p) given features F (n, M), lowest over lambdas and phi.

    And the decoder (M, p), and how many rows it leaves free. ``others`` (m, p) are rows that have
    no features, and the same noise.
    """
    p, size = Y.shape[1], Y.size + others.size
    priors = decoder_penalties(basis)
    penalties = np.array([item.matrix() for item in priors]).reshape(
        -1, *(basis.basis_size,) * 2)
    lowest, highest = np.exp([item.rho_bounds()[0] for item in priors]).reshape(-1, 2).T
    constant = np.zeros((basis.basis_size,) * 2)
    constant[0, 0] = centre
    gram, right = F.T @ F, F.T @ Y
    square = float((Y**2).sum()) + float((others**2).sum())
    least = max(TINY * square / size, LEAST_PHI)
    strengths, phi = np.ones(len(penalties)), max(square / size, least)
    for _ in range(STEPS):
        prior = constant + np.tensordot(strengths, penalties, 1)
        inverse = np.linalg.inv(gram / phi + prior)
        B = inverse @ right / phi
        squares = square - 2.0 * float((right * B).sum()) + float((B * (gram @ B)).sum())
        value = 0.5 * (size * np.log(2.0 * np.pi * phi) + squares / phi + (B * (prior @ B)).sum()
                       - p * np.linalg.slogdet(inverse)[1] - p * np.linalg.slogdet(prior)[1])
        used = p * float((inverse * gram).sum()) / phi
        known = np.tensordot(penalties, np.linalg.inv(prior) - inverse, 2)
        bent = (B * (penalties @ B)).sum((1, 2))
        factors = np.clip(p * known / np.maximum(bent, TINY), 1.0 / FACTOR, FACTOR)
        strengths = np.clip(strengths * factors, lowest, highest)
        free = max(size - used, 1.0)
        phi = max(squares / free, least)
    return float(value), B, free / p
