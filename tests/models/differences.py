"""The gradient of the criterion against central differences of its value."""

import numpy as np

import reml_sae as rs
from reml_sae.engine import criterion_at, solve_inner

CURVATURES = ("majorizer", "exact")
WEIGHTS = {4: (8 / 12, -1 / 12), 6: (45 / 60, -9 / 60, 1 / 60)}
"""Of the differences over 2, 4, .. steps, by the order of the formula."""


def check_gradient_of_the_criterion(model, rho, *, step, order=6, tol=1e-10):
    """dV/drho under both curvatures, whose differences have their modes in common.

    Along one direction, in which every outer parameter moves V equally much: an error of 1e-6 of
    any of them is seen. The inner solves begin at the mode at rho.
    """
    found = {curvature: rs.criterion(model, rho, curvature=curvature, tol=tol)
             for curvature in CURVATURES}
    start = found["exact"].inner.theta
    gradients = np.array([found[curvature].gradient for curvature in CURVATURES])
    size = np.abs(gradients).max(axis=0)
    size = np.maximum(size, 1e-3 * size.max())
    direction = np.random.default_rng(0).choice([-1.0, 1.0], len(rho)) * size.min() / size

    def values(moved):
        inner = solve_inner(model, moved, start, tol=tol, max_iter=100)
        return np.array([criterion_at(model, inner, curvature=curvature, gradient=False).value
                         for curvature in CURVATURES])

    slopes = sum(
        weight * (values(rho + k * step * direction) - values(rho - k * step * direction))
        for k, weight in enumerate(WEIGHTS[order], start=1)) / step
    for value in found.values():
        assert value.inner.converged
        assert sum(value.parts.values()) == value.value
    errors = np.abs(gradients @ direction - slopes)
    assert (errors <= 1e-6 * size.min()).all(), (model.rho_names, gradients, direction, slopes)
