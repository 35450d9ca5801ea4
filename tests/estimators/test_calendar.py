"""The bundled real data: weekdays on a circle in their order, dates around the year."""

import runpy
from pathlib import Path

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.cli import main
from reml_sae.datasets import load_weekdays
from reml_sae.diagnostics import align_angles, circular_correlation, shows_rows

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("harmonics", ["one", "open"])
def test_weekdays(harmonics, tmp_path, monkeypatch, fits_once):
    monkeypatch.chdir(tmp_path)
    data = load_weekdays()
    if harmonics == "one":
        # as the gallery and the page of the report fit it
        model = rs.SAEManifold(n_atoms=1, topology=rs.manifolds.Circle(1), noise="diagonal",
                               n_init=1).fit(data.Z)
    else:
        pytest.importorskip("matplotlib.pyplot").switch_backend("agg")
        model = runpy.run_path(str(EXAMPLES / "weekdays.py"))["model"]
    assert model.converged_
    angles = align_angles(model.codes_.coordinates[0][:, 0], data.phase)
    means = np.array([np.angle(np.exp(1j * angles[data.labels == day]).mean())
                      for day in range(7)])
    start = np.argsort(np.mod(means, 2 * np.pi)).tolist()
    first = start.index(0)
    assert start[first:] + start[:first] == list(range(7))
    assert circular_correlation(means, 2 * np.pi * np.arange(7) / 7) >= 0.95


def test_demo(tmp_path, capsys, fits_once):
    assert main(["demo", "-o", str(tmp_path / "week")]) == 0
    out = capsys.readouterr().out
    model = rs.load(tmp_path / "week")
    assert model.summary() in out and shows_rows(tmp_path / "week" / "report.html")
    assert "Wednesday" in (tmp_path / "week" / "report.html").read_text()
    assert main(["demo", "-o", str(tmp_path / "week")]) == 2
    assert "Wednesday" in out and "explained variance" in out and "circular correlation" in out


def test_dates(fits_once):
    example = runpy.run_path(str(EXAMPLES / "dates.py"))
    data, model = example["dates"], example["model"]
    assert model.converged_
    assert circular_correlation(example["angles"], data.phase) >= 0.95
    assert model.score(data.Z) == pytest.approx(0.66, abs=0.02)
