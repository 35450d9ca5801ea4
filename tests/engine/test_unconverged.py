"""V is defined at a mode: where an inner solve or the adjoint did not converge, it is not used."""

import sys
from dataclasses import replace

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.engine import InnerStatus, preconditioned_cg
from reml_sae.engine.criterion import rho_differences
from reml_sae.errors import InnerConvergenceError
from tests.models.sae.systems import MODELS, at_mode

# `reml_sae.engine.criterion` is the function too
MODULE = sys.modules["reml_sae.engine.criterion"]
FAILURES = [status for status in InnerStatus if status is not InnerStatus.CONVERGED]
RADIUS = 0.25


@pytest.fixture(scope="module")
def model():
    fitted = rs.fit_reml(at_mode("ellipse"))
    assert fitted.converged
    return at_mode("ellipse").with_state(fitted.theta, fitted.rho)


@pytest.fixture(params=FAILURES, ids=lambda status: status.name)
def fails_above(request, monkeypatch, model):
    """The inner solve reports a failure where log_dispersion lies above its start."""
    limit = model.initial_rho()[-1] + 1e-9
    solve = MODULE.solve_inner

    def failing(model, rho, *rest, **options):
        found = solve(model, rho, *rest, **options)
        return replace(found, status=request.param) if rho[-1] > limit else found

    monkeypatch.setattr(MODULE, "solve_inner", failing)
    return model


def axis(model):
    return model.initial_rho()[-1] + RADIUS * np.array([-2, -1, 0, 1, 2])


def test_grid(fails_above):
    at = axis(fails_above)
    found = rs.grid_criterion(fails_above, fails_above.initial_rho(), {"log_dispersion": at})
    np.testing.assert_array_equal(np.isfinite(found), [True, True, True, False, False])
    assert not np.isnan(found).any()


def test_profile(fails_above):
    at = axis(fails_above)
    found = rs.profile_criterion(fails_above, fails_above.initial_rho(), "log_dispersion", at)
    np.testing.assert_array_equal(found.converged, [True, True, True, False, False])
    np.testing.assert_array_equal(np.isfinite(found.criterion), found.converged)
    assert found.interval()[1] == np.inf, "the profile is open towards points that failed"
    assert len(found.plot().axes[0].lines[0].get_xdata()) == 3


def test_differences_name_the_place(fails_above):
    with pytest.raises(InnerConvergenceError, match=r"log_dispersion = .*did not converge"):
        rho_differences(fails_above, fails_above.initial_rho())


def test_a_profile_without_a_converged_point_says_so(fails_above):
    at = axis(fails_above)[3:]
    found = rs.profile_criterion(fails_above, fails_above.initial_rho(), "log_dispersion", at)
    assert not found.converged.any()
    for read in (found.interval, found.plot):
        with pytest.raises(InnerConvergenceError, match="log_dispersion"):
            read()


def test_an_interval_interpolates_over_points_that_failed(model):
    """V = x^2 / 2: the ends of the 95 % interval are at 1.96."""
    values = np.linspace(-3, 3, 121)
    converged = np.ones(121, bool)
    converged[60 + 38:60 + 41] = False  # 1.9 to 2.0
    found = rs.engine.CriterionProfile("x", values, np.where(converged, 0.5 * values**2, np.inf),
                                      values[:, None], converged)
    low, high = found.interval()
    assert low == pytest.approx(-1.96, abs=1e-3)
    assert high == pytest.approx(1.96, abs=1e-2)


@pytest.mark.parametrize("name", MODELS)
def test_an_adjoint_that_did_not_converge_is_refused(name, monkeypatch):
    model = at_mode(name)
    rho = model.initial_rho()
    needed = 0

    def counted(*arguments):
        nonlocal needed
        found = preconditioned_cg(*arguments)
        needed = found.n_iter
        return found

    monkeypatch.setattr(MODULE, "preconditioned_cg", counted)
    rs.criterion(model, rho)
    assert needed <= 3 * MODULE.ADJOINT_ITERATIONS // 4
    monkeypatch.setattr(MODULE, "ADJOINT_ITERATIONS", needed // 2)
    if needed < 2:  # H is the exact Hessian here
        return
    with pytest.raises(InnerConvergenceError, match=r"residual of \d\.\de-\d\d after"):
        rs.criterion(model, rho)
    assert np.isfinite(rs.criterion(model, rho, gradient=False).value)


def test_fellner_schall_steps_end_where_no_mode_was_reached():
    """They hold at a mode; with enough Newton steps there are several."""
    model = at_mode("ellipse")
    far = model.with_state(model.initial_theta(), model.initial_rho() + 3.0)
    short, whole = (rs.fit_reml(far, rough=True, max_inner=steps) for steps in (1, 100))
    assert [row.inner_status for row in short.trace] == ["max_iter"]
    assert len(whole.trace) > 1
