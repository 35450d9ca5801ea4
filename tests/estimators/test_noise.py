"""Noise with a covariance in whole fits: found, kept, in the units of the data, and refused."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.diagnostics import align_angles
from reml_sae.discovery.metric import (
    MetricRows,
    observed_noise,
    posterior_moment,
    whitened_model,
)
from reml_sae.errors import ArtifactError, DataWarning, InputError
from reml_sae.families.noise import best_noise, charged
from reml_sae.io import read_artifact, write_artifact
from reml_sae.manifolds import Circle

N, P = 200, 6


def planted(kind, seed):
    """A circle in noise; its strongest direction is longer than the radius."""
    data = planted_circles(N, P, 1, noise_sd=0.0, random_state=seed)
    rng = np.random.default_rng(100 + seed)
    noise = 0.2 * rng.normal(size=(N, P))
    if kind == "diagonal":
        noise *= np.geomspace(0.3, 3.0, P)
    if kind == "factor":
        noise += 1.5 * rng.normal(size=(N, 1)) @ np.linalg.qr(rng.normal(size=(P, 1)))[0].T
    return data, data.signal + noise


def fit(Z, noise="auto"):
    return rs.SAEManifold(n_atoms=1, topology=Circle(1), n_init=1, noise=noise).fit(Z)


@cache
def fitted(kind, seed, noise="auto"):
    return fit(planted(kind, seed)[1], noise)


def phase_error(model, data):
    truth = data.coordinates[0][:, 0]
    gap = align_angles(model.codes_.coordinates[0][:, 0], truth) - truth
    return np.sqrt(np.mean(np.angle(np.exp(1j * gap)) ** 2))


@pytest.mark.parametrize("kind", ["isotropic", "diagonal", "factor"])
def test_the_kind_is_found_and_the_circle_in_it(kind):
    found = [fitted(kind, seed) for seed in range(3)]
    errors = [phase_error(model, planted(kind, seed)[0]) for seed, model in enumerate(found)]
    assert all(model.converged_ for model in found)
    assert sum(model.noise_.kind == kind for model in found) >= 2
    assert np.median(errors) < 0.3
    if kind == "factor":
        assert [model.noise_.rank for model in found].count(1) >= 2


def test_isotropic_noise_is_what_it_was():
    """Where no shape is found, the fit is that without one."""
    auto, plain = (fitted("isotropic", 0, noise) for noise in ("auto", "isotropic"))
    assert auto.noise_.kind == "isotropic"
    assert auto.criterion_ == pytest.approx(plain.criterion_, abs=0.02)


@pytest.mark.parametrize("seed", range(2))
def test_the_noise_is_charged_by_what_the_state_leaves_it(seed):
    """V is one function of what was found, however the search has come to it."""
    Z = planted("diagonal", seed)[1]
    model = fit(Z, {"kind": "factor", "rank": 1})
    arrow = model.build_model(Z)
    state = arrow.initial_theta(), arrow.initial_rho()
    assert observed_noise(arrow, *state).constant == pytest.approx(arrow.constant, abs=1e-6)
    changed = arrow.with_changes(noise=replace(arrow.noise, across=np.ones(P - 1)))
    assert abs(changed.constant - arrow.constant) > 1e-3
    again = observed_noise(changed, *state)
    assert rs.criterion(again, state[1]).value == pytest.approx(model.criterion_, abs=1e-6)


@pytest.mark.parametrize("rank", [1, 2])
def test_noise_alone_is_no_circle(rank):
    """One that has taken a factor for its curve is far above noise alone, and none is named."""
    found = []
    n = 100
    for seed in range(2):
        rng = np.random.default_rng(seed)
        frame = np.linalg.qr(rng.normal(size=(P, rank)))[0]
        Z = 0.2 * rng.normal(size=(n, P)) + 2.0 * rng.normal(size=(n, rank)) @ frame.T
        with pytest.warns(DataWarning, match="explain nothing"):
            model = fit(Z)
        found.append(model.noise_.kind == "factor" and model.noise_.rank == rank)
        second = Z.T @ Z / n
        noise = best_noise("factor", second, n)
        alone = charged(noise, second, n) + 0.5 * Z.size * (1.0 + np.log(2.0 * np.pi))
        assert model.criterion_ < alone + 0.5 * P * np.log(n) + 20.0
    assert all(found)


def test_the_units_of_the_data():
    """V moves by N p log c alone, and all that is read by c; the covariance too."""
    _, Z = planted("factor", 0)
    one = fitted("factor", 0)
    other, third = fit(10.0 * Z), fit(3.0 * Z)
    assert other.criterion_ - one.criterion_ == pytest.approx(Z.size * np.log(10.0), abs=1e-6)
    assert third.criterion_ - one.criterion_ == pytest.approx(Z.size * np.log(3.0), abs=1e-6)
    curves = [model.atoms_[0].coefficients for model in (one, other)]
    covariances = [model.dispersion_ * model.noise_.shape for model in (one, other)]
    for (a, b), unit in ((curves, 10.0), (covariances, 100.0)):
        np.testing.assert_allclose(np.abs(a), np.abs(b) / unit, atol=1e-3 * np.abs(a).max())


def test_the_covariance_and_the_curve_are_in_the_units_of_the_data():
    data, Z = planted("factor", 1)
    model = fitted("factor", 1)
    residual = Z - data.signal
    truth = residual.T @ residual / N
    found = model.dispersion_ * model.noise_.shape
    assert np.abs(found - truth).max() < 0.15 * np.abs(truth).max()
    t = np.linspace(-np.pi, np.pi, 40)
    assert model.diagnostics_.figures["explained variance"] == pytest.approx(model.score(Z),
                                                                             abs=1e-6)
    lower, upper = model.atoms_[0].band(t[:, None])
    assert (upper > lower).all()
    radius = np.linalg.norm(model.atoms_[0].curve(t[:, None]) - data.signal.mean(0), axis=1)
    assert np.median(np.abs(radius - 1.0)) < 0.15


@pytest.mark.parametrize("kind", ["diagonal", "factor"])
def test_save_load_encode_and_solve_again(kind, tmp_path):
    _, Z = planted(kind, 0)
    model = fitted(kind, 0)
    model.save(tmp_path / "fit.safetensors")
    again = rs.load(tmp_path / "fit.safetensors")
    np.testing.assert_array_equal(again.noise_.shape, model.noise_.shape)
    np.testing.assert_array_equal(again.predict(Z[:20]), model.predict(Z[:20]))
    np.testing.assert_allclose(model.encode(Z).coordinates[0], model.codes_.coordinates[0],
                               atol=1e-6)
    arrow = again.build_model(Z)
    assert rs.criterion(arrow, arrow.initial_rho()).value == pytest.approx(
        model.criterion_, abs=1e-6)


def test_files_of_other_noise(tmp_path):
    """Of before variances of the rows were kept, and with some that are not its own."""
    fitted("factor", 0).save(tmp_path / "fit.safetensors")
    tensors, metadata = read_artifact(tmp_path / "fit.safetensors")
    along, across = tensors.pop("noise.along"), tensors.pop("noise.across")
    write_artifact(tmp_path / "before", tensors, metadata)
    before = rs.load(tmp_path / "before").noise_
    np.testing.assert_array_equal(before.across, np.ones(P - 1))
    np.testing.assert_array_equal(before.along, before.ratios)
    assert (along != before.ratios).all()
    write_artifact(tmp_path / "other", {**tensors, "noise.across": across[1:]}, metadata)
    with pytest.raises(ArtifactError, match="across has 4 variances, not one for each of the 5"):
        rs.load(tmp_path / "other")


def test_a_model_in_another_metric_is_the_same_model():
    """Its curve and codes are; only V differs, by what the noise's shape explains."""
    _, Z = planted("factor", 2)
    plain = fit(Z, "isotropic")
    model = plain.build_model(Z)
    theta, rho = model.initial_theta(), model.initial_rho()
    second = posterior_moment(model, theta, rho)
    noise = best_noise("factor", second, N)
    other = whitened_model(model, theta, rho, noise, second)
    eta, same = (m.unit * m.noise.colour(m.scaled_basis(t)[1] @ t.beta)
                 for m, t in ((model, theta), (other, other.initial_theta())))
    np.testing.assert_allclose(same, eta, atol=1e-12 * np.abs(eta).max())
    back = MetricRows.of(other).whitened(model.noise)
    np.testing.assert_allclose(back.unit * back.Z, model.unit * model.Z, atol=1e-12)
    assert rs.fit_reml(other, max_outer=20).criterion < plain.criterion_ - 50.0


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("noise", ["diagonal", "factor"])
def test_rows_without_any_noise(noise):
    """An exact circle, or one beside a column that does not vary: V has a minimum all the same."""
    exact = planted_circles(40, 3, 1, noise_sd=0.0, random_state=0).signal
    still = np.column_stack([planted("isotropic", 0)[1][:40], np.ones(40)])
    model = rs.SAEManifold(n_atoms=1, n_init=1, noise=noise, max_outer=30).fit(
        exact if noise == "factor" else still)
    assert np.isfinite(model.criterion_) and np.isfinite(model.noise_.shape).all()


@pytest.mark.parametrize("kind", ["isotropic", "factor"])
def test_a_rank_that_is_given_is_kept(kind):
    """Whatever V says of it, which is then no lower than where V may choose."""
    _, Z = planted(kind, 0)
    for rank in (1, 2):
        model = fit(Z, {"kind": "factor", "rank": rank})
        assert model.converged_
        assert model.noise_.rank == rank
        assert model.criterion_ > fitted(kind, 0).criterion_ - 0.5


@pytest.mark.parametrize(("noise", "message"), [
    ({"kind": "factor", "rank": P - 1}, f"use at most rank {P - 2}"),
    ({"kind": "factor", "rank": 0}, "rank of noise"),
    ({"kind": "factor", "rank": 1.5}, "rank of noise"),
    ({"kind": "diagonal", "rank": 1}, "rank of noise is for kind='factor'")])
def test_ranks_that_cannot_be(noise, message):
    with pytest.raises(InputError, match=message):
        fit(planted("isotropic", 0)[1], noise)


def test_counts_have_the_noise_of_their_family():
    Z = np.random.default_rng(0).poisson(2.0, (40, 3)).astype(float)
    model = rs.SAEManifold(n_atoms=1, topology=Circle(1), noise="auto", family="poisson",
                           n_init=1)
    with pytest.warns(DataWarning, match="no better than a flat"):
        model.fit(Z)
    assert model.noise_.kind == "isotropic"


def test_refused():
    Z = np.random.default_rng(0).poisson(2.0, (40, 3)).astype(float)
    with pytest.raises(InputError, match="noise='factor' is for the Gaussian family"):
        rs.SAEManifold(n_atoms=1, noise="factor", family="poisson").fit(Z)
    with pytest.raises(InputError, match="noise='coloured' is unknown"):
        rs.SAEManifold(n_atoms=1, noise="coloured").fit(Z)
