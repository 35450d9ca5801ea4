"""Profiles and grids of V."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.errors import InputError
from reml_sae.manifolds import Circle


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    t = rng.uniform(-np.pi, np.pi, 80)
    curve = np.column_stack([np.cos(t), np.sin(t), 0.5 * np.cos(2 * t), 0.3 * np.sin(3 * t)])
    data = curve + 0.15 * rng.normal(size=curve.shape)
    fit = rs.SAEManifold(n_atoms=1, topology=Circle(4)).fit(data)
    assert fit.converged_ and not fit.limits_
    return fit, fit.build_model(data)


def test_profile_lies_below_the_slice_and_has_its_minimum_at_the_fit(fitted):
    fit, model = fitted
    at = fit.rho_[-1] + np.array([-0.4, -0.2, 0.0, 0.2, 0.4])
    found = rs.profile_criterion(model, fit.rho_, "log_dispersion", at)
    assert found.converged.all()
    assert found.criterion[2] == pytest.approx(fit.criterion_, abs=1e-6)
    assert np.argmin(found.criterion) == 2
    held = rs.grid_criterion(model, fit.rho_, {"log_dispersion": at})
    assert (found.criterion <= held + 1e-7).all()
    assert found.criterion[0] < held[0] - 1e-6  # the other parameters have moved
    np.testing.assert_allclose(found.rho[:, -1], at)


def test_interval_of_a_log_variance(fitted):
    """About a chi-squared: sd (2 / degrees of freedom)^(1/2)."""
    fit, model = fitted
    at = fit.rho_[-1] + np.linspace(-0.5, 0.5, 21)
    low, high = rs.profile_criterion(model, fit.rho_, "log_dispersion", at).interval(0.95)
    half = 1.96 * np.sqrt(2.0 / (model.Z.size - fit.edf_))
    assert low < fit.rho_[-1] < high
    assert 0.5 * (high - low) == pytest.approx(half, rel=0.1)


def test_an_open_end_is_infinite(fitted):
    fit, model = fitted
    found = rs.profile_criterion(model, fit.rho_, "log_dispersion", fit.rho_[-1] + [0.0, 0.01])
    assert found.interval() == (-np.inf, np.inf)


def test_grid_has_an_axis_for_each_name(fitted):
    fit, model = fitted
    names = model.rho_names
    axes = {names[1]: fit.rho_[1] + [-0.1, 0.0, 0.1], names[0]: fit.rho_[0] + [0.0, 0.5]}
    found = rs.grid_criterion(model, fit.rho_, axes)
    assert found.shape == (3, 2)
    assert found[1, 0] == pytest.approx(fit.criterion_, abs=1e-6)
    assert np.unravel_index(found.argmin(), found.shape) == (1, 0)


def test_plot(fitted):
    fit, model = fitted
    figure = rs.profile_criterion(model, fit.rho_, "log_dispersion", [fit.rho_[-1]]).plot()
    assert figure.axes


@pytest.mark.parametrize(("name", "values", "message"), [
    ("log_dispersin", [0.0], "no outer parameter"), ("log_dispersion", [np.nan], "finite")])
def test_wrong_arguments(fitted, name, values, message):
    fit, model = fitted
    with pytest.raises(InputError, match=message):
        rs.profile_criterion(model, fit.rho_, name, values)
