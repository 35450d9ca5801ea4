"""Fits of every topology on its planted rows, and shapes chosen by the estimator."""

import warnings
from functools import cache

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import gaussian_control, planted_circles, planted_manifolds, recovery_scores
from reml_sae.discovery import search
from reml_sae.errors import DataWarning
from reml_sae.manifolds import Circle, Interval

SHAPES = {"sphere": "sphere", "torus": "torus", "cylinder": "cylinder", "mobius": "mobius",
          "projective_plane": "projective_plane", "interval": "interval",
          "curved_sheet": {"topology": "euclidean", "dim": 2, "degree": 2}}
OPEN = ("interval", "curved_sheet")
"""With the most nodes, which `tests/models/sae/test_quadrature.py` has."""


@pytest.mark.parametrize("name", SHAPES)
def test_planted_shape(name):
    data = planted_manifolds(80, 6, [name], noise_sd=0.05)
    model = rs.SAEManifold(n_atoms=1, topology=SHAPES[name], n_init=1, noise="isotropic",
                           integration="laplace" if name in OPEN else "auto").fit(data.Z)
    assert model.converged_
    assert model.atoms_[0].topology.name == rs.manifolds.get_manifold(SHAPES[name]).name
    assert np.sqrt(model.dispersion_) == pytest.approx(0.05, rel=0.1)
    assert model.score(data.Z) == pytest.approx(data.explained_variance, abs=0.01)
    assert recovery_scores(data, model.codes_).coordinate_error[0] < 0.35
    codes = model.encode(data.Z)
    apart = model.atoms_[0].topology.distance(codes.coordinates[0], model.codes_.coordinates[0])
    assert apart.max() < 1e-6


def no_ring(seed):
    return gaussian_control(40, 4, rank=2, noise_sd=0.1, random_state=seed)


@cache
def kept(asked, seed):
    with pytest.warns(DataWarning, match="atom 0 is no better than a flat.*demote=True"):
        return rs.SAEManifold(n_atoms=1, topology=asked, n_init=1).fit(no_ring(seed))


@pytest.mark.parametrize("asked", ["circle", "interval"])
def test_a_shape_that_was_asked_for_stays_and_is_named(asked):
    named = []
    for seed in range(2):
        model = kept(asked, seed)
        assert model.atoms_[0].topology.name == asked
        (check,) = [c for c in model.diagnostics_.checks if c.name == "atom 0 against its flat"]
        assert check.status == "warn" and check.figure > -3.0
        named.append("kept as asked" in model.summary() and check.name in model.summary())
    assert all(named)


def test_a_flat_is_demoted_where_that_is_asked_for():
    with pytest.warns(DataWarning, match="changed by the search, demote: circle"):
        model = rs.SAEManifold(n_atoms=1, demote=True, n_init=1).fit(no_ring(1))
    assert model.atoms_[0].topology.name == "euclidean"
    assert any(move.accepted for move in model.search_.moves)
    assert kept("circle", 1).criterion_ > model.criterion_ - model.search_.policy.move.margin


def test_a_circle_is_not_named():
    data = planted_circles(150, 5, 1, noise_sd=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        model = rs.SAEManifold(n_atoms=1, n_init=1).fit(data.Z)
    assert not model.search_.flat_twins
    assert not any("against its flat" in check.name for check in model.diagnostics_.checks)


def test_shape_by_evidence(tmp_path):
    data = planted_circles(50, 3, 1, noise_sd=0.1)
    model = rs.SAEManifold(n_atoms=1, topology="auto", n_init=1, noise="isotropic",
                           integration="laplace").fit(data.Z)
    assert model.atoms_[0].topology.name == "circle"
    choice = model.search_.topologies[0]
    assert choice.p_value < 0.05 and choice.table[0][0].startswith("circle")
    model.save(tmp_path / "fit.safetensors")
    assert rs.load(tmp_path / "fit.safetensors").summary() == model.summary()


def tuned_to_angles(seed):
    rng = np.random.default_rng(seed)
    gap = rng.uniform(-np.pi, np.pi, 80)[:, None] - 2.0 * np.pi * np.arange(12) / 12
    return np.exp(4.0 * (np.cos(gap) - 1.0)) + 0.05 * rng.normal(size=gap.shape)


def test_a_ring_of_many_harmonics_is_no_interval(monkeypatch):
    monkeypatch.setattr(search, "AUTO_TOPOLOGIES", (Circle(2), Circle(4), Interval(8)))
    for seed in range(2):
        model = rs.SAEManifold(n_atoms=1, topology="auto", n_init=1, noise="isotropic",
                               integration="laplace").fit(tuned_to_angles(seed))
        assert model.atoms_[0].topology.name == "circle"


def test_number_by_evidence():
    data = planted_circles(100, 6, 2, noise_sd=0.05)
    model = rs.SAEManifold(n_atoms="auto", max_atoms=3, n_init=1, noise="isotropic").fit(data.Z)
    assert len(model.atoms_) == 2
    assert [number for number, _ in model.search_.n_atoms] == [1, 2, 3]
