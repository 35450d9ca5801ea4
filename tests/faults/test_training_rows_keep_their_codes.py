"""A training row has the code of the fit, also where another one has come to be better."""

import numpy as np
import pytest

from reml_sae.discovery.encode import encode, remember
from reml_sae.discovery.policy import EncodePolicy
from reml_sae.manifolds import Circle, Point
from tests.models.sae.systems import build


@pytest.mark.parametrize("atoms", [(Circle(1), Circle(1)), (Circle(1), Point())], ids=repr)
def test_codes_that_are_not_the_best_are_kept(atoms):
    policy = EncodePolicy()
    model = build(list(atoms), n=40, dispersion=0.05)
    rho = model.initial_rho()
    theta = model.refine_rows(model.initial_theta(), rho, 50)
    model = model.with_state(theta, rho)
    anew, _, _ = encode(model, theta, rho, policy, search_from_state=False)
    assert np.abs(anew.xi - theta.xi).max() > 0.1
    kept, active, _ = encode(model, theta, rho, policy, search_from_state=False,
                             remembered=remember(model, theta, rho, policy, stopped=False))
    amplitudes = [model.assignment.amplitudes(model.logits(at), model.is_open).a
                  for at in (kept, theta)]
    np.testing.assert_allclose(*amplitudes, atol=1e-6)
    carries = np.array([atom.latent_dim > 0 for atom in atoms])
    np.testing.assert_array_equal(active[:, carries], model.active[:, carries])
