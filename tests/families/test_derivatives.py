"""Derivatives in eta and psi by differences; expected weights as means of the observed ones."""

import numpy as np
import pytest

from reml_sae.errors import InputError
from reml_sae.families import Binomial
from tests.families.cases import ETA, every

STEP = 2e-3


def central(function, x):
    """Sixth-order difference of a function of one number."""
    pairs = [function(x + k * STEP) - function(x - k * STEP) for k in (1, 2, 3)]
    return (45.0 * pairs[0] - 9.0 * pairs[1] + pairs[2]) / (60.0 * STEP)


def assert_close(found, expected):
    assert np.shape(found) == np.shape(expected)
    scale = 1.0 + np.abs(expected).max(initial=0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-8 * scale)


def in_psi(function, psi):
    """Derivatives of ``function(psi)`` in every entry of psi, stacked."""
    out = [central(lambda t, unit=unit: function(psi + t * unit), 0.0) for unit in np.eye(len(psi))]
    return np.array(out).reshape(len(psi), *function(psi).shape)


@every
def test_derivatives_in_eta(case):
    family, psi = case.family, case.psi
    z, eta = case.data()
    assert_close(family.loss_eta(z, eta, psi, 1),
                 central(lambda t: family.loss(z, eta + t, psi), 0.0))
    for order in (2, 3):
        assert_close(family.loss_eta(z, eta, psi, order),
                     central(lambda t, order=order: family.loss_eta(z, eta + t, psi, order - 1),
                             0.0))
    assert_close(family.weight(z, eta, psi, 1),
                 central(lambda t: family.weight(z, eta + t, psi, 0), 0.0))


@every
def test_derivatives_in_psi(case):
    family, psi = case.family, case.psi
    z, eta = case.data()
    assert_close(family.loss_psi(z, eta, psi), in_psi(lambda p: family.loss(z, eta, p), psi))
    for order in (1, 2):
        expected = in_psi(lambda p, order=order: family.loss_eta(z, eta, p, order), psi)
        assert_close(family.loss_eta_psi(z, eta, psi, order), expected)
    assert_close(family.weight_psi(z, eta, psi), in_psi(lambda p: family.weight(z, eta, p, 0), psi))


@every
def test_expected_weights(case):
    family, psi = case.family, case.psi
    weight = family.weight(np.ones(len(ETA)), ETA, psi, 0)
    assert (weight >= 0.0).all()
    scale = np.sqrt(weight)
    score = case.expectation(lambda z, eta: family.loss_eta(z, eta, psi, 1))
    np.testing.assert_allclose(score / scale, 0.0, atol=1e-9)
    information = case.expectation(lambda z, eta: family.loss_eta(z, eta, psi, 1) ** 2)
    np.testing.assert_allclose(information, weight, rtol=1e-8)
    curvature = case.expectation(lambda z, eta: family.loss_eta(z, eta, psi, 2))
    np.testing.assert_allclose(curvature, weight, rtol=1e-8)
    by_psi = case.expectation(lambda z, eta: family.loss_psi(z, eta, psi))
    np.testing.assert_allclose(by_psi, 0.0, atol=1e-8)


@every
def test_flags(case):
    family, psi = case.family, case.psi
    z, eta = case.data()
    if family.has_dispersion:
        lower = [family.loss_eta(z, eta, psi - 1.0, order) for order in (1, 2, 3)]
        for order in (1, 2, 3):
            np.testing.assert_allclose(lower[order - 1],
                                       np.e * family.loss_eta(z, eta, psi, order), rtol=1e-12)
    if family.equal_weights:
        for curvature in (family.loss_eta(z, eta, psi, 2), family.weight(z, eta, psi, 0)):
            assert np.ptp(curvature) == 0.0


@every
def test_everything_broadcasts(case):
    family, psi = case.family, case.psi
    z, eta = case.data(5)
    eta = eta[:1]
    if family.name != "binomial":  # whose trials have the shape of the data
        z = z[:, :1]
    full = np.broadcast_arrays(z, eta)
    calls = [
        *(lambda z, eta, o=o: family.loss_eta(z, eta, psi, o) for o in (1, 2, 3)),
        *(lambda z, eta, o=o: family.loss_eta_psi(z, eta, psi, o) for o in (1, 2)),
        *(lambda z, eta, o=o: family.weight(z, eta, psi, o) for o in (0, 1)),
        *(lambda z, eta, f=f: f(z, eta, psi)
          for f in (family.loss, family.deviance, family.loss_psi, family.weight_psi)),
    ]
    for call in calls:
        np.testing.assert_array_equal(call(z, eta), call(*full))


@every
def test_no_such_order(case):
    z, eta = case.data(2)
    for order, method in ((0, case.family.loss_eta), (4, case.family.loss_eta),
                          (2, case.family.weight)):
        with pytest.raises(InputError, match="order"):
            method(z, eta, case.psi, order)


@every
def test_integers_and_single_entries(case):
    family, psi = case.family, case.psi
    if family.name == "binomial":
        family = Binomial(7)
    whole = np.array([1, 2, 5])
    for function in (family.loss, family.deviance, lambda *a: family.loss_eta(*a, 1),
                     lambda *a: family.weight(*a, 0)):
        together = function(whole, np.array([0, 1, -1]), psi)
        alone = [float(function(z, eta, psi)) for z, eta in ((1, 0), (2, 1), (5, -1))]
        np.testing.assert_allclose(together, alone, rtol=1e-14)
        np.testing.assert_array_equal(together, function(whole + 0.0, np.array([0.0, 1, -1]), psi))
