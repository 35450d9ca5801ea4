"""Noises of the atoms' own in whole fits: found where they are, not where they are not."""

import warnings
from functools import cache

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import reml_sae as rs
from reml_sae.cli import main
from reml_sae.datasets import planted_manifolds
from reml_sae.diagnostics import plot_noise
from reml_sae.errors import InputError
from reml_sae.manifolds import Circle

pytestmark = pytest.mark.usefixtures("searches_once")

N, P = 80, 4
SDS = np.array([0.07, 0.35])


def planted(kind, seed):
    """Two circles in noise of two sizes, of one, or with a factor in that of the first alone."""
    plant = planted_manifolds(N, P, ["circle"] * 2, noise_sd=0.0, offset=0.5, random_state=seed)
    rng = np.random.default_rng(100 + seed)
    noise = 0.15 * rng.normal(size=(N, P))
    if kind == "sizes":
        noise *= (SDS[plant.labels] / 0.15)[:, None]
    if kind == "factor":
        axis = np.linalg.qr(rng.normal(size=(P, 1)))[0].T
        noise += (plant.labels == 0)[:, None] * 1.5 * rng.normal(size=(N, 1)) @ axis
    return plant, plant.signal + noise


def fitted(kind, seed, noise, per_atom=True):
    return _fitted(kind, seed, noise, per_atom)


@cache
def _fitted(kind, seed, noise, per_atom):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rs.SAEManifold(
            n_atoms=2, topology=Circle(1), assignment="topk", n_init=1, integration="laplace",
            noise={"kind": noise, "per_atom": per_atom}).fit(planted(kind, seed)[1])


def names(model, plant):
    """Share of rows on their own atom, and the planted atom of each fitted one."""
    found = model.codes_.gates.argmax(1)
    table = np.array([[((found == a) & (plant.labels == b)).sum() for b in range(2)]
                      for a in range(2)])
    rows, atoms = linear_sum_assignment(-table)
    return table[rows, atoms].sum() / N, atoms


def sds(model):
    return np.sqrt(model.dispersion_ * np.exp([model.noise_.log_size(k) for k in range(2)]))


def test_sizes_are_found_and_rows_named_by_them():
    shares = []
    for seed in range(2):
        plant, _ = planted("sizes", seed)
        one, own = (fitted("sizes", seed, "isotropic", per_atom) for per_atom in (False, True))
        assert one.noise_.n_metrics == 1 and own.noise_.n_metrics == 2
        assert own.criterion_ < one.criterion_ - 50.0
        before, (share, atoms) = names(one, plant)[0], names(own, plant)
        shares.append((before, share))
        np.testing.assert_allclose(sds(own), SDS[atoms], rtol=0.25)
    before, after = np.transpose(shares)
    assert (after > before).all() and (after > 0.97).all()


def test_a_factor_of_one_atom_is_found():
    """It is longer than the radius of the circles, and the other atom has none."""
    for seed, least in ((0, 0.95), (2, 0.85)):
        plant, _ = planted("factor", seed)
        model = fitted("factor", seed, "factor")
        share, atoms = names(model, plant)
        ranks = [getattr(model.noise_.of_atom(int(np.flatnonzero(atoms == b)[0])), "rank", 0)
                 for b in range(2)]
        assert share > least and ranks == [1, 0]


def test_equal_noise_stays_one():
    for seed in range(1):
        one, own = (fitted("same", seed, "factor", per_atom) for per_atom in (False, True))
        assert own.noise_.n_metrics == 1
        assert own.criterion_ == pytest.approx(one.criterion_, abs=1e-6)


def test_save_load_encode_and_solve_again(tmp_path):
    _, Z = planted("sizes", 0)
    model = fitted("sizes", 0, "isotropic")
    model.save(tmp_path / "fit.safetensors")
    again = rs.load(tmp_path / "fit.safetensors")
    assert again.noise == {"kind": "isotropic", "per_atom": True}
    np.testing.assert_array_equal(sds(again), sds(model))
    np.testing.assert_array_equal(again.predict(Z[:20]), model.predict(Z[:20]))
    codes = model.encode(Z)
    np.testing.assert_array_equal(codes.gates, model.codes_.gates)
    np.testing.assert_allclose(codes.objective, model.codes_.objective, atol=1e-8)
    np.testing.assert_allclose(model.encode(Z[::-1]).objective[::-1], codes.objective, atol=1e-8)
    arrow = again.build_model(Z)
    assert rs.criterion(arrow, arrow.initial_rho()).value == pytest.approx(
        model.criterion_, abs=1e-6)


def test_in_the_units_of_the_data():
    plant, Z = planted("sizes", 0)
    model = fitted("sizes", 0, "isotropic")
    assert model.score(Z) == pytest.approx(model.diagnostics_.figures["explained variance"],
                                           abs=1e-5)
    atoms = names(model, plant)[1]
    for k, atom in enumerate(model.atoms_):
        mine = plant.labels == atoms[k]
        residual = (Z - model.reconstruct(model.codes_))[mine]
        assert np.sqrt((residual**2).mean()) < SDS[atoms[k]]
        centre = plant.signal[mine].mean(axis=0)
        assert np.linalg.norm(model.intercept_ + atom.coefficients[0] - centre) < 0.3
        lower, upper = atom.band(np.linspace(-3.0, 3.0, 9))
        assert (upper > lower).all()


def test_what_a_reader_sees():
    figures = pytest.importorskip("matplotlib.figure")
    model = fitted("sizes", 0, "isotropic")
    text = model.summary()
    for k, sd in enumerate(sds(model)):
        assert f"atom {k}: isotropic: sd {sd:.4g} in every direction" in text
    check = next(item for item in model.diagnostics_.checks if item.name == "noise")
    assert check.status == "pass" and "noises of the atoms" in check.message
    account, own = model.diagnostics_.noise, model.codes_.gates.mean(axis=0) @ sds(model) ** 2
    _, Z = planted("sizes", 0)
    assert account.share == pytest.approx(own / ((Z - Z.mean(0)) ** 2).mean(), rel=1e-9)
    levels = [line.get_ydata()[0] for line in plot_noise(model, figures.Figure()).axes[0].lines]
    np.testing.assert_allclose(np.sort(levels[:2]), np.sort(sds(model)))


@pytest.mark.parametrize("options", [
    {"assignment": "softmax"}, {"assignment": "topk", "n_active": 2},
    {"assignment": "ordered_beta_bernoulli"}, {"assignment": "topk", "n_active": 2,
                                               "n_atoms": "auto"}], ids=str)
def test_refused_where_rows_use_other_than_one_atom(options):
    model = rs.SAEManifold(**{"n_atoms": 3, **options}, noise={"kind": "auto", "per_atom": True})
    with pytest.raises(InputError, match="per_atom=True is for rows that use exactly one atom"):
        model.fit(planted("same", 0)[1])


@pytest.mark.parametrize(("noise", "message"), [
    ({"per_atom": True}, "noise must be a kind or"),
    ({"kind": "factor", "own": True}, "noise must be a kind or"),
    ({"kind": "coloured"}, "noise='coloured' is unknown"),
    ({"kind": "factor", "per_atom": 1}, "per_atom of noise must be True or False")])
def test_refused_as_an_argument(noise, message):
    with pytest.raises(InputError, match=message):
        rs.SAEManifold(n_atoms=2, assignment="topk", noise=noise).fit(planted("same", 0)[1])


def test_refused_for_other_families():
    Z = np.random.default_rng(0).poisson(2.0, (40, 3))
    with pytest.raises(InputError, match="is for the Gaussian family"):
        rs.SAEManifold(n_atoms=2, assignment="topk", family="poisson",
                       noise={"kind": "isotropic", "per_atom": True}).fit(Z)


def test_refused_for_rows_of_unequal_scale():
    with pytest.raises(InputError, match="per_atom=True is for rows of one scale"):
        rs.SAEManifold(n_atoms=2, assignment="topk", row_noise="student_t",
                       noise={"kind": "isotropic", "per_atom": True}).fit(planted("same", 0)[1])


def test_from_the_command_line_and_a_file(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(rs.SAEManifold, "fit", lambda self, Z: given.append(self.noise) or 1 / 0)
    np.save(tmp_path / "Z.npy", planted("same", 0)[1])
    (tmp_path / "fit.toml").write_text('noise = {kind = "diagonal", per_atom = true}\n')
    for options in (["--noise", "factor", "--noise-per-atom"], ["--noise-per-atom"],
                    ["--config", str(tmp_path / "fit.toml")]):
        with pytest.raises(ZeroDivisionError):
            main(["fit", str(tmp_path / "Z.npy"), *options, "-o", str(tmp_path / "out")])
    assert given == [{"kind": kind, "per_atom": True}
                     for kind in ("factor", "isotropic", "diagonal")]
