"""V from sums over chunks of rows is V of the block engine at the same state."""

import numpy as np
import pytest

from reml_sae.engine import InnerSolution, InnerStatus, Theta, criterion_at
from reml_sae.models.sae.single.summed import RowSums, SummedPoint
from tests.models.sae.test_single import SHAPES, system


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if "own" not in shape])
@pytest.mark.parametrize("seed", range(3))
def test_value_and_posterior_are_those_of_the_engine(shape, seed):
    model = system(shape, seed)
    theta, rho = model.initial_theta(), model.initial_rho()
    theta = model.refine_rows(theta, rho, 30)
    point = model.joint_at(theta, rho)
    inner = InnerSolution(theta, point, InnerStatus.CONVERGED, 0, 0.0, 0.0)
    expected = criterion_at(model, inner, gradient=False).value
    sums = None
    for rows in np.array_split(np.arange(len(model.Z)), 4):
        part = RowSums.of(model.rows(rows), Theta(theta.xi[rows], theta.beta), rho)
        sums = part if sums is None else sums + part
    found = SummedPoint(model.rows(np.zeros(0, np.intp)), theta.beta, rho, sums)
    assert found.criterion == pytest.approx(expected, abs=1e-7)
    for k in range(len(model.atoms)):
        (edf, covariance), (known, own) = found.decoder_posterior(k), point.decoder_posterior(k)
        np.testing.assert_allclose(covariance, own, rtol=1e-8, atol=1e-12)
        if model.active[:, k].any():
            assert edf == pytest.approx(known, abs=1e-6)
