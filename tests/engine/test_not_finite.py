"""No state without a finite V and a finite gradient is ever returned as converged."""

import warnings

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.engine import solve_inner
from reml_sae.errors import RemlSaeError
from tests.models.sae.systems import MODELS

every = pytest.mark.parametrize("name", MODELS)


@every
@pytest.mark.parametrize("far", [-1e4, -301.0, -250.0, 250.0, 301.0, np.inf])
def test_extreme_outer_parameters(name, far):
    model = MODELS[name]()
    for j in range(len(model.rho_names)):
        rho = model.initial_rho()
        rho[j] = far
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            try:
                found = rs.criterion(model, rho, max_inner=4)
            except RemlSaeError:
                continue
        assert abs(far) < 300.0
        assert np.isfinite(found.value) and np.isfinite(found.gradient).all(), model.rho_names[j]


@every
def test_an_infinite_objective_is_no_minimum(name, monkeypatch):
    model = MODELS[name]()
    at = model.at

    def infinite(theta, rho):
        point = at(theta, rho)
        point.objective = np.inf
        monkeypatch.setattr(point, "gradient", lambda: theta.scaled(0.0))
        return point

    monkeypatch.setattr(type(model), "at", lambda _, theta, rho: infinite(theta, rho))
    assert not solve_inner(model, model.initial_rho(), max_iter=3).converged
