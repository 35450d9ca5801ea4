"""What a fit says of its noise, and of rows that are outside of it."""

import warnings
from functools import cache

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.cli import main
from reml_sae.datasets import planted_circles, planted_manifolds
from reml_sae.diagnostics import plot_noise
from reml_sae.discovery.metric import posterior_moment
from reml_sae.errors import DataWarning
from reml_sae.manifolds import Circle

N, P = 120, 6


def rows(kind, seed=0):
    data = planted_circles(N, P, 1, noise_sd=0.0, random_state=seed)
    rng = np.random.default_rng(100 + seed)
    noise = 0.15 * rng.normal(size=(N, P))
    if kind == "diagonal":
        noise *= np.geomspace(0.3, 3.0, P)
    if kind == "factor":
        noise += rng.normal(size=(N, 1)) @ np.linalg.qr(rng.normal(size=(P, 1)))[0].T
    return data.signal + noise


@cache
def fitted(kind, noise="auto"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rs.SAEManifold(n_atoms=1, topology=Circle(1), n_init=1, noise=noise).fit(rows(kind))


def check(model, name):
    return next(item for item in model.diagnostics_.checks if item.name == name)


@pytest.mark.parametrize("kind", ["isotropic", "diagonal", "factor"])
def test_shares_are_those_of_the_variance(kind):
    model, Z = fitted(kind), rows(kind)
    account = model.diagnostics_.noise
    total = ((Z - Z.mean(axis=0)) ** 2).mean()
    covariance = model.dispersion_ * model.noise_.shape
    assert model.noise_.kind == kind
    assert account.share == pytest.approx(np.trace(covariance) / P / total, rel=1e-9)
    assert account.explained == pytest.approx(model.score(Z), abs=1e-6)


@pytest.mark.parametrize("kind", ["diagonal", "factor"])
def test_what_the_shape_earns_at_the_same_curves(kind):
    """The gain is that of the log densities of one second moment, each at its best dispersion."""
    model = fitted(kind)
    account, arrow = model.diagnostics_.noise, model.build_model(rows(kind))
    second = posterior_moment(arrow, arrow.initial_theta(), model.rho_)
    levels = np.trace(second), np.trace(np.linalg.solve(model.noise_.shape, second))
    assert account.gained == pytest.approx(0.5 * N * P * np.log(levels[0] / levels[1]), rel=1e-6)
    assert account.cost == model.noise_.cost(N) > 0.0
    assert check(model, "noise").status == "pass"
    assert "V needs it" in model.summary()


def test_isotropic_noise_that_is_wrong_is_said_to_be():
    poor, good = fitted("factor", "isotropic"), fitted("isotropic")
    assert poor.diagnostics_.noise.better and poor.diagnostics_.noise.missed > 20.0
    assert check(poor, "noise").status == "warn" and "noise='auto'" in poor.summary()
    assert check(good, "noise").status == "pass"


def test_the_account_is_saved(tmp_path):
    model = fitted("factor")
    model.save(tmp_path / "fit.safetensors")
    again = rs.load(tmp_path / "fit.safetensors")
    assert again.diagnostics_.noise == model.diagnostics_.noise
    assert again.diagnostics_.checks == model.diagnostics_.checks
    assert again.summary() == model.summary()


@pytest.mark.parametrize("kind", ["isotropic", "factor"])
def test_the_report_has_the_account_and_the_spectrum(kind, tmp_path, capsys):
    fitted(kind).save(tmp_path / "fit.safetensors")
    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert '<figure id="noise">' in page and f'"{kind} noise"' in page
    assert f">{kind}" in page and "of the variance of the rows" in page


@pytest.mark.parametrize("kind", ["isotropic", "diagonal", "factor"])
def test_the_figure_shows_the_spectrum(kind):
    figure_class = pytest.importorskip("matplotlib.figure").Figure
    model = fitted(kind)
    lines = plot_noise(model, figure_class()).axes[0].get_lines()
    variances = np.linalg.eigvalsh(model.dispersion_ * model.noise_.shape)[::-1]
    if kind == "isotropic":
        np.testing.assert_allclose(lines[0].get_ydata(), np.sqrt(variances[0]))
    else:
        shown = lines[0].get_ydata()
        np.testing.assert_allclose(shown, np.sqrt(variances[: len(shown)]), rtol=1e-8)


# --- rows that the model does not describe ----------------------------------------------------


def small_fit(Z):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return rs.SAEManifold(n_atoms=1, n_init=1, integration="laplace",
                              topology=Circle(1)).fit(Z)


def test_planted_outliers_are_named_and_good_rows_are_not():
    false = 0
    for seed in range(2):
        Z = rows("isotropic", seed)
        false += check(small_fit(Z), "rows not described").status != "pass"
        rng = np.random.default_rng(seed)
        outliers = rng.choice(N, 2, replace=False)
        Z[outliers] += np.sign(rng.normal(size=(2, P)))
        found = check(small_fit(Z), "rows not described")
        assert found.status == "warn" and found.figure == len(found.rows)
        assert set(outliers) <= set(found.rows) and len(found.rows) <= 3
        assert all(str(row) in found.message for row in outliers)
    assert false == 0


def test_extreme_rows_warn_before_the_fit_and_stay_in_the_checks():
    Z = rows("isotropic")
    Z[[7, 40]] *= 50.0
    with pytest.warns(DataWarning, match=r"Z: rows \d+, \d+ \(2 of 120\) hold 9\d%.*Drop them"):
        model = rs.SAEManifold(n_atoms=1, n_init=1, topology="linear").fit(Z)
    found = check(model, "rows of extreme norm")
    assert found.status == "warn" and sorted(found.rows) == [7, 40]
    assert "rows of extreme norm" in model.summary()


# --- no noise at all -------------------------------------------------------------------------


@pytest.mark.parametrize(("topology", "p", "noise"), [
    (Circle(1), 6, "auto"), ("circle", 2, "isotropic"), ("linear", 6, "auto")])
def test_rows_without_noise(topology, p, noise):
    shape = "linear" if topology == "linear" else "circle"
    Z = planted_manifolds(60, p, [shape], noise_sd=0.0).signal
    with pytest.warns(DataWarning, match="Z has no noise"):
        model = rs.SAEManifold(n_atoms=1, topology=topology, n_init=1, noise=noise).fit(Z)
    assert model.converged_ and model.score(Z) > 1.0 - 1e-9
    assert dict(model.limits_)["log_dispersion"] == "zero"
    assert check(model, "noise").status == "warn"
    assert "there is no noise" in model.summary()


def test_no_quadrature_goes_on_where_there_is_no_noise(caplog):
    """Its nodes would be ever more: a fit by quadrature is left where none would begin."""
    Z = planted_manifolds(60, 2, ["circle"], noise_sd=0.0).signal
    with caplog.at_level("INFO", "reml_sae"), pytest.warns(DataWarning, match="Z has no noise"):
        model = rs.SAEManifold(n_atoms=1, topology=Circle(1), n_init=1, noise="isotropic").fit(Z)
    assert "the rows are left to Laplace's method" in caplog.text
    assert caplog.text.count("outer") < 80
    assert model.score(Z) > 1.0 - 1e-9
