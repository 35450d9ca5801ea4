"""The gradient of V in the rows, from which that in the noise's parameters follows."""

import numpy as np
import pytest

from reml_sae.engine import criterion, criterion_at, solve_inner
from tests.models.differences import CURVATURES
from tests.models.sae.systems import at_mode, by_quadrature

CASES = [("quadrature", name) for name in ("ellipse", "line", "sphere", "cylinder", "topk-apart",
                                           "gates-apart")]
CASES += [("laplace", name) for name in ("ellipse", "line", "two-circles", "topk-pair",
                                         "sphere-and-interval")]
STEP = 1e-3


@pytest.mark.parametrize(("integration", "name"), CASES)
def test_data_gradient(integration, name):
    model = at_mode(name, build_model=by_quadrature if integration == "quadrature" else None)
    rho = model.initial_rho() + 0.1
    at = {curvature: criterion(model, rho, curvature=curvature, tol=1e-12)
          for curvature in CURVATURES}
    start = at["exact"].inner.theta
    direction = np.random.default_rng(0).normal(size=model.Z.shape)

    def values(k):
        """V under both curvatures, whose mode is the same, k steps away."""
        moved = model.with_changes(Z=model.Z + k * STEP * direction)
        inner = solve_inner(moved, rho, start, tol=1e-12)
        return np.array([criterion_at(moved, inner, curvature=curvature, gradient=False).value
                         for curvature in CURVATURES])

    slopes = (8.0 * (values(1) - values(-1)) - (values(2) - values(-2))) / (12.0 * STEP)
    for (curvature, found), slope in zip(at.items(), slopes, strict=True):
        gradient = found.inner.point.data_gradient(found.adjoint, curvature)
        assert abs(np.vdot(gradient, direction) - slope) < 1e-7 * np.linalg.norm(gradient)
