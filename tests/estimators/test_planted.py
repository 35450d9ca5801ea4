"""Planted circles and lines: convergence, explained variance, phase error, labels."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import reml_sae as rs
from reml_sae.datasets import planted_circles, planted_mixed_rows, planted_mixture
from reml_sae.diagnostics import align_angles


def phase_error(angles, truth):
    aligned = align_angles(angles, truth)
    return float(np.sqrt(np.mean(np.angle(np.exp(1j * (aligned - truth))) ** 2)))


def oracle_error(data):
    """Phase error of who knows the circle's plane, centre and radius."""
    local = data.Z @ data.frames[0].T
    return phase_error(np.arctan2(local[:, 1], local[:, 0]), data.coordinates[0][:, 0])


def accuracy(model, data):
    k = len(model.atoms_)
    table = np.zeros((k, k))
    np.add.at(table, (data.labels, model.codes_.assignments.argmax(1)), 1)
    return table[linear_sum_assignment(-table)].sum() / len(data.Z)


@pytest.mark.parametrize("noise_sd", [0.02, 0.05, 0.3])
@pytest.mark.parametrize("seed", [0, 1])
def test_one_circle(noise_sd, seed):
    data = planted_circles(200, 12, 1, noise_sd=noise_sd, random_state=seed)
    model = rs.SAEManifold(n_atoms=1, topology="circle").fit(data.Z)
    assert model.converged_
    # the fit may explain more: N fitted angles absorb their share of the noise, N (r^2 sd^2)
    absorbed = 1.2 * model.edf_ / data.Z.size * (1.0 - data.explained_variance)
    gain = model.score(data.Z) - data.explained_variance
    assert -0.005 <= gain <= max(0.005, absorbed)
    found = phase_error(model.codes_.coordinates[0][:, 0], data.coordinates[0][:, 0])
    assert found <= 1.5 * oracle_error(data)
    assert np.sqrt(model.dispersion_) == pytest.approx(noise_sd, rel=0.06)
    assert all(check.status == "pass" for check in model.diagnostics_.checks)


@pytest.mark.parametrize("seed", [0, 1])
def test_two_circles(seed):
    data = planted_circles(200, 12, 2, noise_sd=0.05, random_state=seed)
    model = rs.SAEManifold(n_atoms=2).fit(data.Z)
    assert model.converged_
    assert accuracy(model, data) >= 0.99
    assert model.score(data.Z) >= data.explained_variance - 0.005
    codes = model.encode(data.Z)
    assert np.abs(codes.assignments - model.codes_.assignments).max() < 1e-6
    assert (codes.gates == model.codes_.gates).all()
    for k in range(2):
        mine = codes.gates[:, k]
        gap = codes.coordinates[k][mine] - model.codes_.coordinates[k][mine]
        assert np.abs(np.angle(np.exp(1j * gap))).max() < 1e-6
    np.testing.assert_allclose(model.reconstruct(codes), model.predict(data.Z), atol=1e-12)


def test_circle_and_line():
    data = planted_mixture(200, 10, ["circle", "linear"], noise_sd=0.05, offset=2.0)
    model = rs.SAEManifold(n_atoms=2, topology=["circle", "linear"]).fit(data.Z)
    assert accuracy(model, data) >= 0.97
    assert model.score(data.Z) >= data.explained_variance - 0.005


@pytest.mark.filterwarnings("ignore::reml_sae.errors.ConvergenceWarning")
def test_rows_that_mix_two_circles():
    data = planted_mixed_rows(120, 8)
    Z, a = data.Z, data.weights[:, 0]
    model = rs.SAEManifold(n_atoms=2, max_outer=15).fit(Z)
    assert model.score(Z) > 0.98
    assert model.dispersion_ == pytest.approx(0.05**2, rel=0.4)
    found = model.codes_.assignments[:, 0]
    assert abs(np.corrcoef(found, a)[0, 1]) > 0.98
    again = model.encode(Z).assignments
    assert (np.abs(again - model.codes_.assignments).max(axis=1) < 1e-6).mean() > 0.95


def test_curved_sheet():
    rng = np.random.default_rng(0)
    t = rng.normal(size=300)
    Z = np.column_stack([t, 0.5 * t**2, np.zeros(300), np.zeros(300)])
    Z += 0.05 * rng.normal(size=Z.shape)
    straight, curved = (
        rs.SAEManifold(n_atoms=1, topology=rs.manifolds.Euclidean(1, degree),
                       noise="isotropic").fit(Z)
        for degree in (1, 2))
    assert curved.criterion_ < straight.criterion_ - 50.0
    assert curved.score(Z) > 0.99


@pytest.mark.parametrize("seed", [1, 2])
def test_bent_plane(seed):
    """By V it is of degree two; at seed 0 the cubic one stalls, where a row has no curvature."""
    rng = np.random.default_rng(seed)
    t = rng.normal(size=(150, 2))
    Z = np.column_stack([t, 0.5 * t[:, 0] ** 2, 0.3 * t[:, 0] * t[:, 1], np.zeros((150, 2))])
    Z += 0.05 * rng.normal(size=Z.shape)
    fits = [rs.SAEManifold(n_atoms=1, topology=rs.manifolds.Euclidean(2, degree), n_init=1,
                           noise="isotropic").fit(Z)
            for degree in (1, 2, 3)]
    assert all(model.converged_ for model in fits)
    assert np.argmin([model.criterion_ for model in fits]) == 1
    assert np.sqrt(fits[1].dispersion_) == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize("curvature", ["majorizer", "exact"])
def test_curvatures(curvature):
    data = planted_circles(120, 8, 1, noise_sd=0.05)
    model = rs.SAEManifold(n_atoms=1, curvature=curvature).fit(data.Z)
    assert model.converged_
    assert model.criterion_ == pytest.approx(
        model.diagnostics_.figures[f"V ({curvature})"], rel=1e-12)


def test_schedule_anneals_to_the_same_fit():
    data = planted_circles(200, 10, 2, noise_sd=0.05)
    schedule = {"kind": "geometric", "w_start": 10.0, "w_end": 1.0, "rate": 0.3}
    entropy = {"kind": "softmax_assignment_sparsity", "k_atoms": 2}
    plain, annealed = (
        rs.SAEManifold(n_atoms=2, topology=rs.manifolds.Circle(1), penalties=[penalty]).fit(data.Z)
        for penalty in (entropy, {**entropy, "weight_schedule": schedule}))
    weights = [row.weights["softmax_assignment_sparsity.logits"] for row in annealed.trace_
               if row.stage == "anneal"]
    assert weights[0] == 10.0 and weights[-1] == pytest.approx(1.0, rel=1e-2)
    assert (np.diff(weights) < 0).all()
    assert annealed.criterion_ == pytest.approx(plain.criterion_, abs=1e-2)
    with_model = annealed.build_model(data.Z)
    assert rs.criterion(with_model, annealed.rho_).value == pytest.approx(annealed.criterion_)
