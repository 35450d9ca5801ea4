"""The face: scikit-learn conventions, atoms, persistence, trace, diagnostics."""

import copy
import io
import re
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.diagnostics.report.advice import ADVICE
from reml_sae.errors import InputError

pytestmark = pytest.mark.usefixtures("searches_once")

DATA = planted_circles(100, 8, 2, noise_sd=0.05, random_state=2)


@pytest.fixture(scope="module")
def model():
    return rs.SAEManifold(n_atoms=2).fit(DATA.Z)


def test_parameters_are_kept_untouched():
    topology = ["circle", "linear"]
    model = rs.SAEManifold(n_atoms=2, topology=topology)
    assert model.topology is topology
    assert clone(model).get_params() == model.get_params()
    assert rs.SAEManifold().set_params(n_atoms=3).n_atoms == 3


def test_an_executor_survives_clone():
    class Cluster:
        elements = 10

        def map(self, task, chunks):
            return map(task, chunks)

        def __deepcopy__(self, memo):
            raise TypeError("a connection cannot be copied")

    model = rs.SAEManifold(n_atoms=2, executor=Cluster()).set_output(transform="pandas")
    made = clone(model)
    assert made.executor is model.executor and made is not model
    assert made.get_params() == model.get_params()
    assert made._sklearn_output_config == model._sklearn_output_config


def test_codes(model):
    codes = model.codes_
    np.testing.assert_allclose(codes.assignments.sum(axis=1), 1.0, rtol=1e-12)
    assert [t.shape for t in codes.coordinates] == [(100, 1), (100, 1)]
    assert codes.gates.shape == (100, 2) and codes.objective.shape == (100,)
    assert len(model.encode(DATA.Z[:1])) == 1


def test_fit_transform_is_fit_then_the_table_of_the_codes(model):
    table = rs.SAEManifold(n_atoms=2).fit_transform(DATA.Z)
    np.testing.assert_array_equal(table, model.codes_.to_array())
    np.testing.assert_allclose(model.transform(DATA.Z), table, atol=1e-6)


def test_curve_and_band(model):
    for atom in model.atoms_:
        t = np.linspace(-np.pi, np.pi, 50)
        curve = atom.curve(t)
        narrow, wide = ([side - curve for side in atom.band(t, level)] for level in (0.5, 0.95))
        np.testing.assert_allclose(narrow[1], -narrow[0], atol=1e-12)
        np.testing.assert_allclose(wide[1], 1.959964 / 0.674490 * narrow[1], rtol=1e-5)
        assert (narrow[1] > 0.0).all()
        radius = np.linalg.norm(curve, axis=1)
        assert np.abs(radius - 1.0).max() < 0.1
        with pytest.raises(InputError, match="level"):
            atom.band(t, 1.5)
        with pytest.raises(InputError, match="shape"):
            atom.curve(np.zeros((3, 2)))


def test_atoms_are_needed(model):
    for atom in model.atoms_:
        assert atom.evidence > 100.0
        assert 0.0 < atom.edf <= atom.coefficients.size
        assert atom.share == pytest.approx(0.5, abs=0.05)


def test_save_and_load(model, tmp_path):
    path = tmp_path / "fit.safetensors"
    model.save(path)
    loaded = rs.load(path)
    assert loaded.summary() == model.summary()
    assert loaded.get_params()["n_atoms"] == 2
    assert (loaded.predict(DATA.Z) == model.predict(DATA.Z)).all()
    assert loaded.diagnostics_.summary() == model.diagnostics_.summary()
    pd.testing.assert_frame_equal(loaded.trace_.to_frame(), model.trace_.to_frame())
    np.testing.assert_array_equal(loaded.atoms_[0].band(np.zeros(1))[0],
                                  model.atoms_[0].band(np.zeros(1))[0])
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match="truncated"):
        rs.load(path)
    with pytest.raises(InputError, match="no such file"):
        rs.load(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="folder does not exist"):
        model.save(tmp_path / "no" / "fit.safetensors")
    assert {item.name for item in tmp_path.iterdir()} == {"fit.safetensors"}


def test_a_file_remembers_how_many_atoms_a_row_may_use(tmp_path):
    """The bound that was asked for may exceed the number of atoms that the search chose."""
    options = {"n_atoms": "auto", "max_atoms": 2, "assignment": "topk", "n_active": 2,
               "noise": "isotropic"}
    model = rs.SAEManifold(**options, n_init=1).fit(planted_circles(60, 4, 1, noise_sd=0.1).Z)
    assert len(model.atoms_) == 1
    model.save(tmp_path / "fit.safetensors")
    again = rs.load(tmp_path / "fit.safetensors")
    assert again.assignment_ == model.assignment_


def test_a_refit_that_fails_leaves_the_fit_as_it_was():
    """Whether it is the data that are refused, the search that raises, or what comes after it."""
    model = rs.SAEManifold(n_atoms=1, noise="isotropic", n_init=1).fit(DATA.Z)
    kept = dict(vars(model))

    def burst(row):
        raise RuntimeError("a callback that fails")

    with pytest.raises(InputError):
        model.fit(np.full((20, 3), np.nan))
    model.callbacks = (burst,)
    with pytest.raises(RuntimeError, match="a callback that fails"):
        model.fit(DATA.Z[:, :5])
    model.callbacks = ()
    assert vars(model).keys() == kept.keys()
    assert all(vars(model)[name] is value for name, value in kept.items())


def test_build_model_solves_again_from_the_fit(model):
    arrow = model.build_model(DATA.Z)
    assert arrow.rho_names == model.rho_names_
    value = rs.criterion(arrow, model.rho_)
    assert value.value == pytest.approx(model.criterion_, rel=1e-9)
    assert value.inner.n_iter <= 2


def test_build_model_encodes_other_rows_of_the_same_number(model):
    other = np.roll(DATA.Z, 1, axis=0)
    arrow = model.build_model(other)
    xi = arrow.initial_theta().xi
    for k, coordinates in enumerate(model.encode(other).coordinates):
        np.testing.assert_allclose(xi[:, arrow.coordinate_columns(k)], coordinates)
    assert not np.allclose(xi, model.build_model(DATA.Z).initial_theta().xi)


def test_trace(model):
    stages = [row.stage for row in model.trace_]
    assert stages[0] == "fellner-schall" and stages[-1] == "trust-region"
    frame = model.trace_.to_frame()
    assert len(frame) == model.n_iter_
    assert frame["criterion"].iloc[-1] == pytest.approx(model.criterion_)
    row = model.trace_[-1]
    assert sum(row.parts.values()) == pytest.approx(row.criterion)
    assert np.isfinite(frame["gradient_norm"]).all()


def test_callbacks_see_every_row():
    seen = []
    data = planted_circles(60, 5, 2).Z
    model = rs.SAEManifold(n_atoms=2, n_init=2, callbacks=(seen.append,)).fit(data)
    assert all(any(row is other for other in seen) for row in model.trace_)
    assert len(seen) > len(model.trace_)  # the starts that lost


def test_figures_and_html(model, tmp_path):
    import matplotlib

    matplotlib.use("Agg")
    assert model.trace_.plot() is not None
    assert model.diagnostics_.plot() is not None
    figure = rs.diagnostics.plot_atoms(model, DATA.Z)
    assert len(figure.axes) >= 2
    model.diagnostics_.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "outer convergence" in page and page.rstrip().endswith("</html>")


def test_summary_says_what_a_reader_needs(model):
    text = model.summary()
    for word in ("explained variance", "noise sd", "edf", "V =", "converged", "circle"):
        assert word in text


def test_what_a_terminal_shows_of_results_is_short(model):
    shown = {name: repr(item) for name, item in (
        ("trace", model.trace_), ("search", model.search_), ("checks", model.diagnostics_),
        ("metrics", model.metrics(DATA.Z)), ("top", model.top_rows(0)), ("data", DATA),
        ("model", model.build_model(DATA.Z)))}
    assert all(len(text) < 600 and "array(" not in text for text in shown.values())
    n = len(model.diagnostics_.checks)
    assert f"{n} of {n} checks pass" in shown["checks"] and "bits a row" in shown["metrics"]


def test_the_summary_says_what_to_do_about_a_check_that_does_not_pass(model):
    checks = [replace(check, status="warn") if check.name == "atom 1 coverage" else check
              for check in model.diagnostics_.checks]
    other = copy.copy(model)
    other.diagnostics_ = replace(model.diagnostics_, checks=tuple(checks))
    found = " ".join(other.summary().split())
    assert "warn: atom 1 coverage" in found and f"-> {ADVICE['coverage']}" in found
    assert "\n   ->" not in model.summary()
    assert "warn: atom 1 coverage" in repr(other.diagnostics_)


def test_log_lines_without_a_terminal(caplog):
    with caplog.at_level("INFO", logger="reml_sae"):
        rs.SAEManifold(n_atoms=1, verbose=1).fit(planted_circles(60, 5).Z)
    assert sum("outer" in message for message in caplog.messages) >= 3
    starts = [message for message in caplog.messages if message.startswith("start ")]
    n = sum(" of " in message for message in starts)
    assert starts[0] == f"start 1 of {n}" and f"start {n} of {n}" in starts
    assert "REML fit, round 1" in caplog.messages


def test_a_line_on_a_terminal_keeps_its_clock_at_80_columns(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    written = Terminal()
    monkeypatch.setattr(sys, "stderr", written)
    for name, value in {"COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    rs.SAEManifold(n_atoms=1, verbose=1).fit(planted_circles(60, 5).Z)
    monkeypatch.undo()
    lines = [line for line in re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "",
                                                        written.getvalue())) if line.strip()]
    assert lines and all(len(line) <= 80 for line in lines)
    assert all(re.match(r"0:0\d:\d\d ", line) for line in lines)
    assert any("REML fit" in line and " V " in line for line in lines)
