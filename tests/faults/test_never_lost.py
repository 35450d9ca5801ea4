"""Ctrl-C keeps the best state wherever it comes, and what failed leaves the last fit as it was."""

import signal

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.discovery import encode as encode_module
from reml_sae.discovery import fitting
from reml_sae.errors import ConvergenceWarning, InputError
from reml_sae.estimators import _fitted
from reml_sae.manifolds import Circle

pytestmark = pytest.mark.usefixtures("searches_once")

Z, Y = planted_circles(60, 5, 2).Z, planted_circles(60, 5, 1).Z
OPTIONS = {"n_init": 1, "topology": Circle(1), "noise": "isotropic"}


def interrupting(monkeypatch, module, name, calls):
    """Send a SIGINT from within some calls of a function; the list of all calls."""
    function, made = getattr(module, name), []

    def wrapped(*arguments, **options):
        made.append(name)
        if len(made) in calls:
            signal.raise_signal(signal.SIGINT)
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, wrapped)
    return made


@pytest.mark.parametrize("call", [1, 2])
def test_between_the_iterations(monkeypatch, call):
    made = interrupting(monkeypatch, fitting, "encode", [call])
    with pytest.warns(ConvergenceWarning, match="interrupted by the user; the best state"):
        model = rs.SAEManifold(n_atoms=2, **OPTIONS).fit(Z)
    assert not model.converged_ and len(made) <= call + 2
    assert np.isfinite(model.predict(Z)).all() and len(model.encode(Z)) == len(Z)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_at_every_iteration():
    for at in (1, 5, 12):
        seen = []

        def stop(row, seen=seen, at=at):
            seen.append(row)
            if len(seen) == at:
                signal.raise_signal(signal.SIGINT)

        with pytest.warns(ConvergenceWarning, match="interrupted"):
            model = rs.SAEManifold(n_atoms=2, callbacks=[stop]).fit(Z)
        assert not model.converged_ and len(seen) <= at + 1


def test_when_the_fit_is_complete(monkeypatch):
    interrupting(monkeypatch, _fitted, "diagnose", [1])
    with pytest.warns(ConvergenceWarning, match="interrupted by the user when the fit was comp"):
        model = rs.SAEManifold(n_atoms=2, **OPTIONS).fit(Z)
    assert model.converged_ and len(model.atoms_) == 2


def unchanged(model, action, error):
    """Whether what raises an error leaves a model as it was."""
    before = {name: value for name, value in vars(model).items() if name.endswith("_")}
    with pytest.raises(error):
        action()
    after = {name: value for name, value in vars(model).items() if name.endswith("_")}
    return after.keys() == before.keys() and all(after[name] is before[name] for name in before)


def test_a_failed_refit_leaves_the_fit_as_it_was(monkeypatch):
    model = rs.SAEManifold(n_atoms=1, n_init=1).fit(Y)
    assert unchanged(model, lambda: model.fit(Z[:, :0]), InputError)
    for error in (RuntimeError, MemoryError):
        def fail(row, error=error):
            raise error

        model.set_params(callbacks=[fail])
        assert unchanged(model, lambda: model.fit(2.0 * Y), error)
    model.set_params(callbacks=[])
    for name in ("diagnose", "remember"):  # a second interrupt is raised where it comes
        interrupting(monkeypatch, _fitted, name, [1])
    assert unchanged(model, lambda: model.fit(2.0 * Y), KeyboardInterrupt)


def test_a_stopped_fit_takes_no_search_for_what_it_remembers(monkeypatch):
    """To look which rows would be found anew takes longer than a short budget itself."""
    monkeypatch.setattr(encode_module, "_lost", lambda *_: pytest.fail("there is no time"))
    with pytest.warns(ConvergenceWarning, match="max_time"):
        model = rs.SAEManifold(n_atoms=2, max_time=1e-9).fit(Z)
    np.testing.assert_array_equal(model.encode(Z).assignments, model.codes_.assignments)
