"""Units, rotations and orders change V by the known constant and nothing else."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles

DATA = planted_circles(100, 6, 2, noise_sd=0.05, random_state=4)
N, P = DATA.Z.shape


def fit(Z):
    return rs.SAEManifold(n_atoms=2, tol=1e-8).fit(Z)


@pytest.fixture(scope="module")
def plain():
    return fit(DATA.Z)


def assert_same(model, plain, shift=0.0, order=slice(None)):
    assert model.criterion_ - shift == pytest.approx(plain.criterion_, rel=1e-6)
    a, b = model.codes_.assignments, plain.codes_.assignments[order]
    if np.abs(a - b).max() > 1e-3:  # the atoms may come out in another order
        a = a[:, ::-1]
    assert np.abs(a - b).max() < 1e-4
    assert model.score_ == pytest.approx(plain.score_, rel=1e-6)


@pytest.fixture(autouse=True)
def _score(monkeypatch):
    monkeypatch.setattr(rs.SAEManifold, "score_", property(
        lambda self: self.diagnostics_.figures["explained variance"]), raising=False)


@pytest.mark.parametrize("factor", [1000.0, 1e-3])
def test_units(plain, factor):
    model = fit(factor * DATA.Z)
    assert_same(model, plain, shift=N * P * np.log(factor))
    assert model.dispersion_ == pytest.approx(factor**2 * plain.dispersion_, rel=1e-5)


def test_rotation(plain):
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(P, P)))[0]
    assert_same(fit(DATA.Z @ rotation), plain)


def test_shift(plain):
    assert_same(fit(DATA.Z + 7.0), plain)


def test_row_order(plain):
    order = np.random.default_rng(1).permutation(N)
    assert_same(fit(DATA.Z[order]), plain, order=order)


def test_same_seed_same_bits(plain):
    again = fit(DATA.Z)
    assert again.criterion_ == plain.criterion_
    assert (again.rho_ == plain.rho_).all()
    assert (again.codes_.assignments == plain.codes_.assignments).all()


def test_temperature(plain):
    """The temperature is a unit of the logits."""
    assert_same(rs.SAEManifold(n_atoms=2, tol=1e-8, temperature=0.2).fit(DATA.Z), plain)
