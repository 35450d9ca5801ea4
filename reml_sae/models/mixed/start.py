"""States from which the fit of a mixed model starts, and steps of rho that need no solve."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from reml_sae.engine import Theta
from reml_sae.families import Family
from reml_sae.models.mixed.moments import first_weights
from reml_sae.models.mixed.point import MixedPoint
from reml_sae.models.mixed.structure import MixedStructure
from reml_sae.typing import Array

RIDGE = 1e-10
SCORING_STEPS = 30
SCORING_DECREMENT = 1e-4


def first_theta(structure: MixedStructure, rho: Array) -> Theta:
    """Effects 0, and coefficients by penalised least squares on a first guess of eta."""
    family, data, X = structure.family, structure.data, structure.design.X
    # one weight for all: where a first guess is extreme, its own weight is wrong
    weights = first_weights(family, data.y, rho[structure.outer.psi])
    weight = max(float(weights.mean()), 1e-8)
    target = family.initial_eta(data.y) - data.offset
    target = target - structure.outer_X @ rho[structure.outer["fixed"]]
    beta = np.zeros(X.shape[1])
    if len(beta):
        gram = weight * (X.T @ X) + structure.smooth_prior(rho).matrix()
        size = np.sqrt(np.diagonal(gram))
        factor = cho_factor(gram / np.outer(size, size) + RIDGE * np.eye(len(size)))
        beta = cho_solve(factor, weight * (X.T @ target) / size) / size
    return Theta(np.zeros((data.n_groups, data.Z.shape[1])), beta[:, None])


def best_psi(family: Family, y: Array, eta: Array, start: Array) -> Array:
    """Outer parameters of a family that fit y best at a given eta (n,), inside their box."""

    def total(psi: Array) -> tuple[float, Array]:
        loss = float(family.loss(y, eta, psi).sum())
        return loss, np.asarray(family.loss_psi(y, eta, psi).sum(axis=1), float)

    found = minimize(total, start, jac=True, method="L-BFGS-B", bounds=family.psi_bounds())
    return np.asarray(found.x, float)


def joint_coefficients(structure: MixedStructure, theta: Theta, rho: Array) -> Array:
    """Coefficients (P,) near the joint mode, by damped scoring; ``structure`` has them all inside.

    Not `solve_inner`: a start needs a few digits of a mode, and no proof that it is one.
    """
    for _ in range(SCORING_STEPS):
        point = MixedPoint(structure, theta, rho)
        descent = point.gradient().scaled(-1.0)
        step = Theta(*point.factorize().solve(descent.xi, descent.beta))
        factor = 1.0
        while factor > 1e-3 and not (
            structure.objective(theta.plus(step, factor), rho) <= point.objective
        ):
            factor *= 0.5
        theta = theta.plus(step, factor)
        if descent.dot(step) < SCORING_DECREMENT:
            break
    return theta.beta[:, 0]
