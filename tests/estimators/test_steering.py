"""Steering, top rows, metrics and the linear dictionary beside a fit."""

import dataclasses

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.errors import InputError
from reml_sae.estimators import _reading
from reml_sae.rows import SerialRows

NOISE_SD = 0.05
DATA = planted_circles(150, 6, 2, noise_sd=NOISE_SD, random_state=1)
OPTIONS = {"noise": "isotropic", "n_init": 1, "max_outer": 30}


@pytest.fixture(scope="module")
def model():
    return rs.SAEManifold(2, rs.manifolds.Circle(1), "topk", **OPTIONS).fit(DATA.Z)


def test_steering_moves_the_coordinate_and_keeps_the_residual(model):
    codes = model.encode(DATA.Z)
    on = codes.gates[:, 0]
    moved = model.steer(DATA.Z, 0, 0.7)
    np.testing.assert_array_equal(moved[~on], DATA.Z[~on])
    again = model.encode(moved)
    assert (again.gates[:, 0] == on).all()
    turn = rs.manifolds.wrap_angle(again.coordinates[0][on] - codes.coordinates[0][on])
    # an ellipse with a residual: the nearest angle is nearly, not just, the one moved to
    assert np.abs(turn - 0.7).max() < 0.1 and abs(turn.mean() - 0.7) < 0.02
    atom = model.atoms_[0]
    step = atom.curve(codes.coordinates[0][on] + 0.7) - atom.curve(codes.coordinates[0][on])
    np.testing.assert_allclose((moved - DATA.Z)[on], codes.assignments[on, :1] * step, atol=1e-10)
    np.testing.assert_allclose(model.steer(DATA.Z, 0, [2.0 * np.pi]), DATA.Z, atol=1e-10)


def test_steering_says_what_it_cannot_do(model):
    for atom, delta, words in [(2, 0.1, "atoms 0 to 1"), (-1, 0.1, "atom must be an integer"),
                               (0, [0.1, 0.2], "1 finite number for atom 0"),
                               (0, np.nan, "1 finite number")]:
        with pytest.raises(InputError, match=words):
            model.steer(DATA.Z, atom, delta)


def test_top_rows(model):
    top = model.top_rows(1, 5)
    assert len(top) == 5 and (np.diff(top.amplitudes) <= 0.0).all()
    amplitudes = model.codes_.assignments[:, 1]
    assert top.amplitudes[0] == amplitudes.max() and top.index[0] == amplitudes.argmax()
    np.testing.assert_array_equal(top.coordinates, model.codes_.coordinates[1][top.index])
    assert len(model.top_rows(0, 1000)) == model.codes_.gates[:, 0].sum()
    assert len(str(top).splitlines()) == 6
    with pytest.raises(InputError, match="n must be"):
        model.top_rows(0, 0)


def test_metrics_of_one_circle_are_those_of_the_formula():
    """An angle on a circle of radius r at noise s: log2(2 pi r / (s sqrt(2 pi e))) bits."""
    for seed in range(3):
        data = planted_circles(80, 6, 1, noise_sd=NOISE_SD, random_state=seed)
        model = rs.SAEManifold(1, rs.manifolds.Circle(1), **OPTIONS).fit(data.Z)
        found = model.metrics(data.Z)
        radius = np.linalg.norm(model.atoms_[0].coefficients[1:]) / np.sqrt(2.0)
        expected = np.log2(2.0 * np.pi * radius / np.sqrt(2.0 * np.pi * np.e * model.dispersion_))
        assert found.bits_per_row == pytest.approx(expected, abs=0.05)
        assert (found.n_active, found.n_numbers, found.dead_atoms) == (1.0, 1.0, ())
        assert found.explained_variance == pytest.approx(model.score(data.Z), rel=1e-9)
        assert found.mse == pytest.approx(np.mean((data.Z - model.predict(data.Z)) ** 2))


def test_what_reads_rows_reads_them_in_chunks(model, tmp_path, monkeypatch):
    np.save(tmp_path / "z.npy", DATA.Z)
    path = tmp_path / "z.npy"
    whole = (model.metrics(DATA.Z), model.steer(DATA.Z, 0, 0.7), model.compare_linear(DATA.Z))
    monkeypatch.setattr(model, "executor", SerialRows(2000))  # five chunks
    metrics, steered, linear = (model.metrics(path), model.steer(path, 0, 0.7),
                                model.compare_linear(path))
    for name, value in dataclasses.asdict(whole[0]).items():
        assert getattr(metrics, name) == pytest.approx(value, rel=1e-9)
    np.testing.assert_allclose(steered, whole[1], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(linear.linear_explained, whole[2].linear_explained)
    monkeypatch.setattr(_reading, "COMPARED_ROWS", 50)
    few = model.compare_linear(path)
    assert few.n_rows == 50 and "mean of 50 rows" in str(few)
    some = DATA.Z[np.linspace(0, 149, 50).astype(int)]
    assert few.explained_variance == pytest.approx(model.metrics(some).explained_variance)


def test_rows_count_at_their_weights_everywhere():
    Z = DATA.Z.copy()
    Z[:3] *= 30.0
    model = rs.SAEManifold(2, rs.manifolds.Circle(1), "topk", row_noise="student_t",
                           **OPTIONS).fit(Z)
    found = model.metrics(Z)
    assert found.explained_variance == pytest.approx(model.score(Z), rel=1e-12)
    even = 1.0 - ((Z - model.predict(Z)) ** 2).sum() / ((Z - Z.mean(axis=0)) ** 2).sum()
    assert abs(found.explained_variance - even) > 0.05  # the three rows would decide it
    linear = model.compare_linear(Z)
    assert linear.explained_variance == found.explained_variance
    assert 0.3 < linear.linear_explained[1] < found.explained_variance


def test_metrics_of_gates(model):
    found = model.metrics(DATA.Z)
    assert found.n_rows == 150 and found.n_active == 1.0 and found.n_numbers == 2.0
    alone = model.metrics(DATA.Z[model.codes_.gates[:, 1]])
    assert alone.dead_atoms == (0,) and "dead atoms: 0" in str(alone)
    angle = np.log2(2.0 * np.pi / (NOISE_SD * np.sqrt(2.0 * np.pi * np.e)))
    assert 1.0 + angle - 0.3 < found.bits_per_row < 1.0 + angle + 1.0  # which atom, where, how much
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.mse = 0.0
    with pytest.raises(InputError, match="constant"):
        model.metrics(DATA.Z[:1])


def test_a_curve_earns_its_place_at_equal_bits(model):
    found = model.compare_linear(DATA.Z)
    assert found.n_atoms == 6 and found.bits == model.metrics(DATA.Z).bits_per_row
    assert found.linear_bits[0] == 0.0 and found.linear_explained[0] == 0.0
    assert (np.diff(found.linear_explained) > 0.0).all()
    assert (np.diff(found.linear_bits) > 0.0).all()
    assert found.linear_explained[1] < found.at_equal_numbers
    assert found.at_equal_numbers == pytest.approx(found.linear_explained[2])
    assert found.explained_variance > found.at_equal_bits + 0.03
    assert "bits a row" in str(found) and "linear, 6 atoms" in str(found)
    # two numbers a row are two atoms; the bits lie between two codes, and the table says so
    below = int(np.searchsorted(found.linear_bits, found.bits)) - 1
    bits, numbers = str(found).splitlines()[1:3]
    assert bits.endswith(f" {below}..{below + 1}") and numbers.endswith(" 2")
    poisson = rs.SAEManifold(1, "linear", family="poisson", n_init=1, max_outer=1)
    counts = np.random.default_rng(0).poisson(3.0, (40, 4)).astype(float)
    with pytest.warns(UserWarning):
        poisson.fit(counts)
    with pytest.raises(InputError, match="Gaussian family"):
        poisson.compare_linear(counts)
