"""What V lacks of coordinates that rows do not carry, against draws of them."""

import numpy as np

from reml_sae.diagnostics.places import left_out
from reml_sae.engine import Theta
from tests.discovery.test_settle import start


def test_it_is_what_draws_of_the_coordinates_say():
    fitted = start(0)
    model, rho, xi = fitted.model, fitted.result.rho, fitted.result.theta.xi.copy()
    xi[:, : model.assignment.dim] = 0.4 * np.arange(len(xi))[:, None] / len(xi)
    theta, rng = Theta(xi, fitted.result.theta.beta), np.random.default_rng(0)
    a = model.assignment.amplitudes(model.logits(theta), model.is_open).a
    t = rng.uniform(-np.pi, np.pi, size=4000)
    curves = []
    for atom, where in zip(model.atoms, model.layout.basis_slices, strict=True):
        curves.append((atom.basis(t[:, None]) @ theta.beta[where], theta.beta[where][0]))
    variance, expected = np.exp(rho[-1]), np.zeros(len(xi))
    for i in range(len(xi)):
        assert model.active[i].sum() == 1
        (own,), (out,) = np.flatnonzero(model.active[i]), np.flatnonzero(~model.active[i])
        column = model.coordinate_columns(own)
        at = model.atoms[own].basis(xi[i : i + 1, column])[0]
        rest = model.Z[i] - a[i, own] * at @ theta.beta[model.layout.basis_slices[own]]
        curve, mean = curves[out]
        losses = ((rest - a[i, out] * curve) ** 2).sum(axis=1)
        losses -= ((rest - a[i, out] * mean) ** 2).sum()
        expected[i] = -np.log(np.exp(-0.5 * losses / variance).mean())
    found = left_out(model, theta, rho, np.arange(len(xi)))
    np.testing.assert_allclose(found, expected, atol=0.1, rtol=0.05)
    assert np.ptp(found) > 1.0
