"""A change of one atom judged on its own rows: what V of the whole model says of it."""

import numpy as np
import pytest

from reml_sae.assignments.gates import TopK
from reml_sae.datasets import planted_manifolds
from reml_sae.discovery.alone import rise_alone
from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.fitting import Fitted, Settings, model_from_codes
from reml_sae.discovery.metric import MetricRows
from reml_sae.discovery.sizes import ways_gained
from reml_sae.discovery.strengths import known_of, known_without
from reml_sae.engine import fit_reml
from reml_sae.families import Gaussian
from reml_sae.manifolds import Circle
from reml_sae.models.sae.defaults import default_terms

P = 6
SETTINGS = Settings(
    bind=lambda atoms: default_terms(atoms, TopK(len(atoms))), assign=TopK, curvature="majorizer",
    max_outer=60, tol=1e-8, n_init=1, callbacks=(), family=Gaussian(), offset=np.zeros(P))


def fit(rows, atoms, codes, known=None, held=None):
    model = model_from_codes(rows, atoms, SETTINGS, codes, known).with_changes(held=held or {})
    result = fit_reml(model, tol=1e-6, valleys=False)
    assert result.converged
    return Fitted(model.with_state(result.theta, result.rho), result)


@pytest.fixture(scope="module", params=[0, 1])
def fitted(request):
    """Three ellipses fitted as circles, one of them with two harmonics."""
    plant = planted_manifolds(150, P, ["ellipse"] * 3, noise_sd=0.15, offset=1.0,
                              random_state=request.param)
    codes = Candidate(plant.support, plant.amplitudes, np.concatenate(plant.coordinates, axis=1))
    centred = plant.Z - plant.Z.mean(axis=0)
    rows = MetricRows.isotropic(centred / np.sqrt((centred**2).mean()))
    return fit(rows, [Circle(1), Circle(2), Circle(1)], codes)


@pytest.mark.parametrize(("k", "basis"), [(0, Circle(2)), (1, Circle(1))])
def test_rise_alone_is_that_of_the_whole(fitted, k, basis):
    """With the gates as they are, and what all atoms share held."""
    model, theta = fitted.model, fitted.result.theta
    t = theta.xi[model.active[:, k], model.coordinate_columns(k)]
    found = rise_alone(fitted, k, basis, t, SETTINGS)
    atoms = [basis if j == k else atom for j, atom in enumerate(model.atoms)]
    codes = Candidate(model.active, np.exp(theta.xi[:, :3]), theta.xi[:, 3:])
    shared = {key: value for key, value in known_of(fitted).items() if key.atom < 0}
    changed = fit(fitted.rows, atoms, codes, known_without(fitted, k), shared)
    assert found == pytest.approx(
        changed.result.criterion - fitted.result.criterion, abs=0.01)


def test_permutations_are_counted(fitted):
    """Two of the three atoms are alike: there are two ways to place them."""
    assert ways_gained(fitted.model, 0, Circle(1)) == 0.0
    assert ways_gained(fitted.model, 0, Circle(2)) == pytest.approx(0.0)
    assert ways_gained(fitted.model, 0, Circle(3)) == pytest.approx(-np.log(2.0))
    assert ways_gained(fitted.model, 1, Circle(1)) == pytest.approx(np.log(3.0))
