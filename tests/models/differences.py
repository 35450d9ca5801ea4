"""The gradient of the criterion against central differences of its value."""

import numpy as np

import reml_sae as rs
from reml_sae.engine import criterion_at, solve_inner

CURVATURES = ("majorizer", "exact")
WEIGHTS = {4: (8 / 12, -1 / 12), 6: (45 / 60, -9 / 60, 1 / 60)}
"""Of the differences over 2, 4, .. steps, by the order of the formula."""


def check_gradient_of_the_criterion(model, rho, *, step, order=6, tol=1e-10):
    """dV/drho under both curvatures, whose differences have their modes in common.

    Their inner solves begin at the mode at rho.
    """
    found = {curvature: rs.criterion(model, rho, curvature=curvature, tol=tol)
             for curvature in CURVATURES}
    start = found["exact"].inner.theta

    def values(moved):
        inner = solve_inner(model, moved, start, tol=tol, max_iter=100)
        return np.array([criterion_at(model, inner, curvature=curvature, gradient=False).value
                         for curvature in CURVATURES])

    slopes = [sum(weight * (values(rho + k * step * unit) - values(rho - k * step * unit))
                  for k, weight in enumerate(WEIGHTS[order], start=1)) / step
              for unit in np.eye(len(rho))]
    for (curvature, value), expected in zip(
            found.items(), np.reshape(slopes, (len(rho), 2)).T, strict=True):
        assert value.inner.converged
        assert sum(value.parts.values()) == value.value
        scale = np.maximum(np.abs(expected), 1e-3 * np.abs(expected).max(initial=0.0))
        assert (np.abs(value.gradient - expected) <= 1e-6 * scale).all(), (
            curvature, value.gradient, expected)
