"""Where the fit of a mixed model starts: outer parameters by moments, states by least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from reml_sae.engine import Outer, Theta
from reml_sae.errors import InputError
from reml_sae.families import Family
from reml_sae.models.mixed.design import Design
from reml_sae.typing import Array

if TYPE_CHECKING:
    from reml_sae.models.mixed.model import MixedModel


EXPLAINED = 0.5
"""Share of the typical variance of eta that the random effects have at the start."""
RIDGE = 1e-10
SCORING_STEPS = 30
SCORING_DECREMENT = 1e-4


def typical_eta(family: Family, design: Design, fixed: Array) -> float:
    """Typical size of what random effects explain, on the scale of eta.

    With an identity link it is what the unpenalised columns ``fixed`` (n, m) leave of the data;
    other links have the scale of eta in themselves.

    Raises
    ------
    InputError
        Where nothing is left.
    """
    if family.link != "identity":
        return 1.0
    target = family.initial_eta(design.y) - design.offset
    rest = target - fixed @ np.linalg.lstsq(fixed, target, rcond=None)[0]
    size = float(np.sqrt(np.mean(rest**2)))
    if size <= 1e-10 * float(np.sqrt(np.mean(target**2))):
        raise InputError("the unpenalised columns of X explain y exactly, so that no variance can "
                         "be estimated; use fewer columns, or more observations")
    return size


@dataclass(frozen=True, eq=False)
class FirstRho:
    """Outer parameters by moments, but for the fixed effects.

    Attributes
    ----------
    covariance, smooths, psi : arrays
        The parts of rho. The random effects have equal shares of their part of the variance of
        eta, and a strength balances the curvatures of data and penalty on its columns, on average.
    """

    covariance: Array
    smooths: Array
    psi: Array

    @classmethod
    def of(cls, model: MixedModel) -> FirstRho:
        """Those of a model whose design is made."""
        family = model.family
        share = EXPLAINED / max(model.data.Z.shape[1], 1)
        covariance = [np.zeros(0), *(term.start(share) for term in model.terms)]
        psi = np.array(family.initial_psi(model.data.y), float)
        if family.has_dispersion:
            psi[0] = np.log(model.eta_scale**2 * (1.0 - EXPLAINED if model.terms else 1.0))
        box = family.psi_bounds()
        psi = np.clip(psi, box[:, 0], box[:, 1])
        weights = _weights(model, psi)
        strengths = []
        for smooth in model.smooths:
            curvature = weights @ model.design.X[:, smooth.columns] ** 2
            for S in smooth.matrices:
                balance = curvature[np.diagonal(S) > 0].sum() / np.trace(S)
                strengths.append(np.log(max(balance, 1e-12)))
        return cls(np.concatenate(covariance), np.array(strengths, float), psi)

    def without_fixed(self, outer: Outer) -> Array:
        """The whole of rho, with fixed effects of 0."""
        rho = np.zeros(len(outer))
        rho[outer["covariance"]], rho[outer["smooths"]] = self.covariance, self.smooths
        rho[outer.psi] = self.psi
        return rho


def _weights(model: MixedModel, psi: Array) -> Array:
    eta = model.family.initial_eta(model.data.y)
    return model.family.weight(model.data.y, eta, psi, 0)


def first_theta(model: MixedModel, rho: Array) -> Theta:
    """Effects 0, and coefficients by penalised least squares on a first guess of eta."""
    X = model.design.X
    # one weight for all: where a first guess is extreme, its own weight is wrong
    weight = max(float(_weights(model, rho[model.outer.psi]).mean()), 1e-8)
    target = model.family.initial_eta(model.data.y) - model.data.offset
    target = target - model.outer_X @ rho[model.outer["fixed"]]
    beta = np.zeros(X.shape[1])
    if len(beta):
        gram = weight * (X.T @ X) + model.smooth_prior(rho).matrix()
        size = np.sqrt(np.diagonal(gram))
        factor = cho_factor(gram / np.outer(size, size) + RIDGE * np.eye(len(size)))
        beta = cho_solve(factor, weight * (X.T @ target) / size) / size
    return Theta(np.zeros((model.data.n_groups, model.data.Z.shape[1])), beta[:, None])


def best_psi(family: Family, y: Array, eta: Array, start: Array) -> Array:
    """Outer parameters of a family that fit y best at a given eta (n,), inside their box."""

    def total(psi: Array) -> tuple[float, Array]:
        loss = float(family.loss(y, eta, psi).sum())
        return loss, np.asarray(family.loss_psi(y, eta, psi).sum(axis=1), float)

    found = minimize(total, start, jac=True, method="L-BFGS-B", bounds=family.psi_bounds())
    return np.asarray(found.x, float)


def joint_coefficients(model: MixedModel, theta: Theta, rho: Array) -> Array:
    """Coefficients (P,) near the joint mode, by damped scoring; ``model`` has them all inside.

    Not `solve_inner`: a start needs a few digits of a mode, and no proof that it is one.
    """
    for _ in range(SCORING_STEPS):
        point = model.at(theta, rho)
        descent = point.gradient().scaled(-1.0)
        step = Theta(*point.factorize().solve(descent.xi, descent.beta))
        factor = 1.0
        while factor > 1e-3 and not (
            model.objective(theta.plus(step, factor), rho) <= point.objective
        ):
            factor *= 0.5
        theta = theta.plus(step, factor)
        if descent.dot(step) < SCORING_DECREMENT:
            break
    return theta.beta[:, 0]
