"""How V would change with another basis of one atom, at fixed codes.

What the other atoms leave of the rows is then a linear model of the atom's decoder B,

    Y = F B + noise,   f_i = a_i Phi(t_i),   B ~ N(0, P^-1) column by column,   P = lambda S + I,

whose evidence has a closed form. Its lambda and its noise are those of this basis: a basis that is
too narrow has left part of its curve to the noise. A fit that moves the codes as well leads further
down, so this tells which bases are worth one, not which to take.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reml_sae.discovery.fitting import Fitted, Settings
from reml_sae.discovery.local import amplitudes_of
from reml_sae.families.noise import best_noise, charged
from reml_sae.manifolds import Manifold
from reml_sae.models.sae.start import row_weights
from reml_sae.typing import Array

STEPS = 20
"""Of Fellner-Schall."""
FACTOR = 10.0
"""By which lambda moves at most in one."""
STRENGTHS = (1e-6, 1e8)
TINY = 1e-12
LEAST_PHI = 1e-150
"""Rows that are all zero have this variance."""


def predicted_criteria(
    fitted: Fitted, k: int, bases: Sequence[Manifold], settings: Settings
) -> list[float]:
    """V in nats at the present codes with each basis for atom k, up to a common constant."""
    model, theta = fitted.model, fitted.result.theta
    features = model.scaled_basis(theta)[1]
    where = model.layout.basis_slices[k]
    constant = features[:, where.start].copy()
    features[:, where] = 0.0
    rest = model.working - features @ theta.beta
    root = np.sqrt(row_weights(model, theta, fitted.result.rho))[:, None]
    used, amplitudes = model.active[:, [k]], amplitudes_of(fitted)[:, [k]]
    t = theta.xi[:, model.coordinate_columns(k)]
    n = len(rest)
    values = []
    for basis in bases:
        own = amplitudes * np.where(used, basis.basis(t), basis.prior_mean_basis())
        own[:, 0] = constant
        value, B, free = _evidence(root * own, root * rest, basis.roughness())
        if settings.noise != "isotropic":
            left = model.unit * model.noise.colour(root * (rest - own @ B))
            second = left.T @ left / free + fitted.rows.rounding * np.eye(left.shape[1])
            noise = best_noise(settings.noise, second, n)
            value += charged(noise, second, n) - charged(model.noise, second, n)
        values.append(value)
    return values


def _evidence(F: Array, Y: Array, S: Array | None) -> tuple[float, Array, float]:
    """Negative log evidence of rows Y (n, p) given features F (n, M), lowest over lambda and phi.

    And the decoder (M, p), and how many rows it leaves free.
    """
    p = Y.shape[1]
    S = np.zeros((F.shape[1],) * 2) if S is None else S
    rough, identity = np.maximum(np.linalg.eigvalsh(S), 0.0), np.eye(len(S))
    gram, right, square = F.T @ F, F.T @ Y, float((Y**2).sum())
    least = max(TINY * square / Y.size, LEAST_PHI)
    strength, phi = 1.0, max(square / Y.size, least)
    for _ in range(STEPS):
        inverse = np.linalg.inv(gram / phi + strength * S + identity)
        B = inverse @ right / phi
        squares = square - 2.0 * float((right * B).sum()) + float((B * (gram @ B)).sum())
        bent = float((B * (S @ B)).sum())
        value = 0.5 * (Y.size * np.log(2.0 * np.pi * phi) + squares / phi
                       + (B**2).sum() + strength * bent
                       - p * np.linalg.slogdet(inverse)[1] - p * np.log1p(strength * rough).sum())
        used = p * float((inverse * gram).sum()) / phi
        if rough.any():
            known = (rough / (1.0 + strength * rough)).sum() - float((inverse * S).sum())
            factor = np.clip(p * known / max(bent, TINY), 1.0 / FACTOR, FACTOR)
            strength = float(np.clip(strength * factor, *STRENGTHS))
        free = max(Y.size - used, 1.0)
        phi = max(squares / free, least)
    return float(value), B, free / p
