"""Outer parameters and those of the noise at once, by the exact gradient of V in both.

The noise that follows the residuals (`follow_noise`) is an EM algorithm: where curves and noise can
explain the same, its steps are short. Quasi-Newton steps go on from there.
"""

from __future__ import annotations

import logging

import numpy as np
from scipy.optimize import minimize

from reml_sae.discovery.fitting import Fitted, Settings, decided, rough_fit
from reml_sae.discovery.metric import in_metric
from reml_sae.engine import CriterionValue, criterion
from reml_sae.errors import InnerConvergenceError, NotPositiveDefiniteError
from reml_sae.families.noise import Noise, PerAtom
from reml_sae.models import SAEManifoldModel
from reml_sae.models.sae.point import SAEPoint
from reml_sae.models.sae.quadrature.point import QuadraturePoint
from reml_sae.models.sae.single.point import SinglePoint
from reml_sae.typing import Array, Curvature

logger = logging.getLogger("reml_sae")


def noise_gradient(
    model: SAEManifoldModel, parameters: Array, at: CriterionValue, curvature: Curvature
) -> Array:
    """Gradient of V in the parameters of the model's noise, (k,), with the unit that follows.

    Parameters
    ----------
    model : SAEManifoldModel
    parameters : (k,) array
        Those of its noise.
    at : CriterionValue
        V of the model, with its gradient.
    curvature : "majorizer" or "exact"
    """
    X, point, adjoint = model.Z, at.inner.point, at.adjoint
    assert isinstance(point, SAEPoint | SinglePoint | QuadraturePoint) and adjoint is not None
    slope = point.data_gradient(adjoint, curvature)
    noise = model.noise
    curves, centres = point.precision_gradient(adjoint, curvature)
    if isinstance(noise, PerAtom):
        rows = model.coloured
        return noise.gradient(parameters, X, slope, model.metrics, curves, centres,
                              rows.T @ rows / len(X))
    assert isinstance(noise, Noise)
    # rows of another metric are in units of their own root mean square, and the prior of centres
    # is not
    weighted = X if model.unit_weights is None else model.unit_weights[:, None] * X
    by_unit = X.size - float(np.vdot(slope, X)) + 2.0 * float(centres.sum())
    slope += by_unit / float(np.vdot(weighted, X)) * weighted
    return noise.gradient(parameters, noise.colour(X).T @ slope, len(X))


def polish_noise(fitted: Fitted, settings: Settings) -> Fitted | None:
    """A rough fit where V is least in rho and the parameters of the noise; None without a gain."""
    base, n_rho = decided(fitted.model, settings), len(fitted.result.rho)
    noise = base.noise
    assert isinstance(noise, Noise | PerAtom)
    start = noise.parameters()
    if not len(start):
        return None
    policy, size = settings.policy.noise, np.ones(n_rho)
    scale = np.sqrt(1.0 / len(base.Z))
    if (phi := base.outer.dispersion) is not None:  # n p / 2 is what rows know of its log
        size[phi] = np.sqrt(2.0 / base.Z.size)
    lowest, found = fitted.result.criterion, None
    theta = fitted.result.theta

    def value(x: Array) -> tuple[float, Array]:
        nonlocal lowest, found, theta
        parameters = start + scale * noise.scaled(x[n_rho:])
        model = in_metric(base, theta, noise.at(parameters))
        rho = base.outer.clip(size * x[:n_rho])
        try:
            at = criterion(model, rho, curvature="majorizer")
        except (InnerConvergenceError, NotPositiveDefiniteError) as error:
            logger.debug("no V there: %s", error)
            return np.inf, np.zeros_like(x)
        if at.inner.converged and at.value < lowest:
            lowest, found = at.value, model.with_state(at.inner.point.theta, rho)
            # the next inner solve is near the best so far, on the same branch of modes
            theta = in_metric(found, at.inner.point.theta, noise).initial_theta()
        slope = scale * noise.scaled(noise_gradient(model, parameters, at, "majorizer"))
        return at.value, np.concatenate([size * at.gradient, slope])

    def go_on(x: Array) -> None:
        if settings.deadline.passed:
            raise StopIteration

    bounds = np.full((n_rho + len(start), 2), [-np.inf, np.inf])
    bounds[:n_rho] = base.outer.bounds / size[:, None]
    minimize(value, np.concatenate([fitted.result.rho / size, np.zeros_like(start)]), jac=True,
             method="L-BFGS-B", bounds=bounds, callback=go_on,
             options={"maxiter": min(policy.most_polished, settings.max_outer), "maxcor": 30,
                      "ftol": policy.polished / abs(lowest)})
    if found is None or lowest > fitted.result.criterion - policy.least_fall:
        return None
    logger.info("%s noise and strengths polished: V = %.4f", base.noise.kind, lowest)
    return rough_fit(found, settings, "polished noise")
