"""Hyperpriors on outer parameters: part of V, and stronger where they are sharper."""

import numpy as np
import pytest
from scipy.stats import norm

import reml_sae as rs
from reml_sae import penalties as pen
from reml_sae.datasets import planted_circles

Z = planted_circles(80, 6, 1, noise_sd=0.1).Z
CIRCLE = [{"kind": "harmonic_roughness", "period": 5}]


def fitted(*hyperpriors):
    return rs.SAEManifold(n_atoms=1, penalties=[*CIRCLE, *hyperpriors]).fit(Z)


def test_a_sharp_hyperprior_holds_its_parameter():
    free = fitted()
    held = {}
    for sd in (10.0, 0.1, 1e-3):
        prior = pen.LogStrengthPriorPenalty(names=["log_dispersion"], mean=-1.0, sd=sd)
        held[sd] = fitted(prior).rho_[-1]
    assert held[10.0] == pytest.approx(free.rho_[-1], abs=0.01)
    assert abs(held[1e-3] + 1.0) < 1e-3
    assert abs(held[0.1] + 1.0) < abs(free.rho_[-1] + 1.0)


def test_it_is_one_part_of_the_criterion():
    plain = fitted()
    prior = pen.LogStrengthPriorPenalty(names=["harmonic_*", "log_dispersion"], mean=0.5, sd=2.0)
    model = rs.SAEManifold(n_atoms=1, penalties=[*CIRCLE, prior]).fit(Z).build_model(Z)
    rho = plain.rho_
    value = rs.criterion(model, rho, tol=1e-9)
    reference = rs.criterion(plain.build_model(Z), rho, tol=1e-9)
    expected = -norm.logpdf(rho, 0.5, 2.0).sum()
    assert value.parts["hyperprior"] == pytest.approx(expected, rel=1e-12)
    assert value.value - reference.value == pytest.approx(expected, abs=1e-7)
    np.testing.assert_allclose(value.gradient - reference.gradient, (rho - 0.5) / 4.0, atol=1e-5)
