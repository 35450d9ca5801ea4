"""Rows of extreme norm under noise with a scale for every row: they do not decide a fit."""

import warnings
from functools import cache

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.cli import main
from reml_sae.datasets import planted_circles
from reml_sae.errors import DataWarning, InputError

N, P, FACTOR = 120, 8, 100.0
CIRCLE = rs.manifolds.Circle(n_harmonics=1)


def spoiled(k, seed, noise=None):
    """Planted circles of which 1 % of the rows are at many times their norm."""
    data = planted_circles(N, P, k, noise_sd=0.1, random_state=seed)
    rng = np.random.default_rng(100 + seed)
    Z, rows = data.Z.copy(), rng.choice(N, 2, replace=False)
    if noise == "factor":
        Z += 0.6 * rng.normal(size=(N, 1)) @ np.linalg.qr(rng.normal(size=(P, 1)))[0].T
    Z[rows] *= FACTOR
    return data, Z, sorted(rows.tolist())


@cache
def fitted(k, seed, assignment="softmax"):
    Z = spoiled(k, seed)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)  # none of these rows is warned of
        return rs.SAEManifold(n_atoms=k, topology=CIRCLE, n_init=2, assignment=assignment,
                              row_noise="student_t").fit(Z)


def check(model, name):
    return next(item for item in model.diagnostics_.checks if item.name == name)


def test_the_other_rows_are_parted_as_planted():
    purity = []
    for seed, assignment in enumerate(("softmax", "topk", "softmax")):
        data, _, extreme = spoiled(2, seed)
        model = fitted(2, seed, assignment)
        others = np.setdiff1d(np.arange(N), extreme)
        labels = model.codes_.assignments.argmax(axis=1)[others]
        same = (labels == data.labels[others]).mean()
        purity.append(max(same, 1.0 - same))
        assert model.converged_
        assert sorted(check(model, "rows not described").rows) == extreme
        assert model.codes_.weights[extreme].max() < 1e-3 < 0.3 < model.codes_.weights[others].min()
        radius = np.linalg.norm(model.atoms_[0].coefficients[1:3], axis=1)
        assert np.abs(radius - np.sqrt(2.0) / 2.0 * np.linalg.norm(radius)).max() < 0.1
    assert min(purity) >= 0.99


def test_they_are_named_and_the_degrees_of_freedom_are_told():
    _, Z, extreme = spoiled(1, 0)
    model = fitted(1, 0)
    undescribed, norms = check(model, "rows not described"), check(model, "rows of extreme norm")
    assert undescribed.status == "warn" and undescribed.figure == 2.0
    assert f"rows {', '.join(map(str, undescribed.rows))} (2 of {N}) hardly count" in (
        undescribed.message)
    assert norms.status == "pass" and sorted(norms.rows) == extreme
    text = model.summary()
    assert f"a t with {model.df_:.4g} degrees of freedom" in text
    assert "hardly count" in text
    assert 1.0 < model.df_ < 20.0
    assert model.score(Z) > 0.8


def test_rows_of_one_scale_end_at_the_gaussian_limit():
    data = planted_circles(N, P, 1, noise_sd=0.1, random_state=3)
    plain, free = (rs.SAEManifold(n_atoms=1, topology=CIRCLE, n_init=1, row_noise=kind).fit(data.Z)
                   for kind in ("gaussian", "student_t"))
    assert free.df_ == np.inf and ("log_df", "infinite") in free.limits_
    assert free.criterion_ == pytest.approx(plain.criterion_, abs=1e-3)
    assert "the Gaussian" in free.summary()
    assert (plain.codes_.weights == 1.0).all()


def test_save_load_encode_and_solve_again(tmp_path):
    _, Z, _ = spoiled(1, 0)
    model = fitted(1, 0)
    model.save(tmp_path / "fit.safetensors")
    again = rs.load(tmp_path / "fit.safetensors")
    assert again.summary() == model.summary()
    assert again.get_params()["row_noise"] == "student_t" and again.df_ == model.df_
    np.testing.assert_array_equal(again.codes_.weights, model.codes_.weights)
    codes = again.encode(Z)
    np.testing.assert_allclose(codes.weights, model.codes_.weights, rtol=1e-6)
    value = rs.criterion(again.build_model(Z), again.rho_, gradient=False).value
    assert value == pytest.approx(model.criterion_, abs=1e-6)
    lower, upper = again.atoms_[0].band(np.zeros((1, 1)))
    assert (upper > lower).all() and (upper - lower < 0.5).all()


def test_the_units_of_the_data():
    _, Z, _ = spoiled(1, 0)
    one = fitted(1, 0)
    other = rs.SAEManifold(n_atoms=1, topology=CIRCLE, n_init=2,
                           row_noise="student_t").fit(10.0 * Z)
    assert other.criterion_ - one.criterion_ == pytest.approx(Z.size * np.log(10.0), abs=0.01)
    assert other.df_ == pytest.approx(one.df_, rel=1e-3)


def test_with_a_shape_of_the_noise():
    """The shape is that of the noise of all rows, not of those far away."""
    data, Z, extreme = spoiled(2, 1, noise="factor")
    model = rs.SAEManifold(n_atoms=2, topology=CIRCLE, n_init=1, noise="factor", assignment="topk",
                           row_noise={"row_noise": "student_t", "df": 6.0}).fit(Z)
    others = np.setdiff1d(np.arange(N), extreme)
    residual = (Z - data.signal)[others]
    truth = residual.T @ residual / len(others)
    shape = model.noise_.shape / np.trace(model.noise_.shape)
    assert np.abs(shape - truth / np.trace(truth)).max() < 0.2
    assert model.df_ == 6.0 and model.noise_.rank == 1


@pytest.mark.parametrize(("parameters", "message"), [
    ({"row_noise": "t"}, "unknown row_noise 't'"),
    ({"row_noise": {"row_noise": "student_t", "df": -1.0}}, "df, the degrees of freedom"),
    ({"row_noise": {"row_noise": "student_t", "df": 1e155}}, "df, the degrees of freedom"),
    ({"row_noise": {"kind": "student_t", "df": 4}}, "has no key 'row_noise'"),
    ({"row_noise": "student_t", "family": "poisson"}, "for the Gaussian family"),
    ({"row_noise": "student_t", "curvature": "exact"}, "curvature='exact'")])
def test_refused_before_the_fit(parameters, message):
    with pytest.raises(InputError, match=message):
        rs.SAEManifold(n_atoms=1, **parameters).fit(np.ones((40, 3)))


def test_command_line(tmp_path, capsys):
    _, Z, extreme = spoiled(1, 0)
    np.save(tmp_path / "Z.npy", Z)
    config = tmp_path / "fit.toml"
    config.write_text('n_atoms = 1\nn_init = 1\nnoise = "isotropic"\n'
                      'topology = {topology = "circle", n_harmonics = 1}\n'
                      '[row_noise]\nrow_noise = "student_t"\ndf = 5.0\n')
    out = str(tmp_path / "out")
    assert main(["fit", str(tmp_path / "Z.npy"), "--config", str(config), "-o", out]) == 0
    assert "a t with 5 degrees of freedom" in capsys.readouterr().out
    assert main(["encode", out, str(tmp_path / "Z.npy"), "-o", str(tmp_path / "codes.npz")]) == 0
    assert np.load(tmp_path / "codes.npz")["weights"][extreme].max() < 1e-3
    with pytest.raises(SystemExit):
        main(["fit", str(tmp_path / "Z.npy"), "--row-noise", "t", "-o", out])
