"""dV/drho against central differences of the criterion with the inner problem solved again."""

import numpy as np
import pytest

import reml_sae as rs
from tests.models.differences import check_gradient_of_the_criterion
from tests.models.sae.systems import MODELS, QUADRATURE, at_mode, by_quadrature

CASES = [*((name, None) for name in MODELS), *((name, by_quadrature) for name in QUADRATURE)]


@pytest.mark.parametrize("name, build_model", CASES,
                         ids=lambda value: value if isinstance(value, str) else (
                             "quadrature" if value else "laplace"))
def test_gradient_of_the_criterion(name, build_model):
    model = at_mode(name, build_model=build_model)
    check_gradient_of_the_criterion(model, model.initial_rho(), step=1e-4, order=4, tol=1e-12)


@pytest.mark.parametrize("name", ["ellipse", "two-circles", "topk-pair"])
def test_a_loose_adjoint_gives_nearly_the_gradient_and_is_not_kept(name):
    model = at_mode(name)
    exact, loose = (rs.criterion(model, model.initial_rho(), **given)
                    for given in ({}, {"adjoint_rtol": 1e-3}))
    assert exact.adjoint is not None
    assert loose.adjoint is None
    assert loose.value == exact.value
    np.testing.assert_allclose(loose.gradient, exact.gradient,
                               atol=1e-2 * np.abs(exact.gradient).max())


def test_wrong_rho_is_named():
    model = MODELS["ellipse"]()
    with pytest.raises(rs.errors.InputError, match="log_dispersion"):
        rs.criterion(model, np.zeros(3))
    with pytest.raises(rs.errors.InputError, match="finite"):
        rs.criterion(model, np.array([np.nan]))


def test_a_normaliser_within_a_penalty_is_not_energy():
    """Fellner-Schall steps need the quadratic form of an amplitude prior on its own."""
    model = at_mode("topk-pair")
    rho = model.initial_rho()
    found = rs.criterion(model, rho)
    j = model.rho_names.index("ard.amplitudes")
    theta = found.inner.theta
    z = model.logits(theta)[model.is_open]
    strength = np.exp(rho[j])
    assert found.explicit["objective"][j] == pytest.approx(0.5 * strength * z @ z, rel=1e-10)
    assert found.explicit["log_normalizer"][j] == pytest.approx(-0.5 * len(z), rel=1e-10)
    assert model.outer.quadratic[j]
