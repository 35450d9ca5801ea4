"""Fits of every topology on its planted rows, and shapes chosen by the estimator."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import gaussian_control, planted_circles, planted_manifolds, recovery_scores
from reml_sae.errors import DataWarning

SHAPES = {"sphere": "sphere", "torus": "torus", "cylinder": "cylinder", "mobius": "mobius",
          "projective_plane": "projective_plane", "interval": "interval",
          "curved_sheet": {"topology": "euclidean", "dim": 2, "degree": 2}}


@pytest.mark.parametrize("name", SHAPES)
def test_planted_shape(name):
    data = planted_manifolds(250, 7, [name], noise_sd=0.05)
    model = rs.SAEManifold(n_atoms=1, topology=SHAPES[name]).fit(data.Z)
    assert model.converged_
    assert model.atoms_[0].topology == rs.manifolds.get_manifold(SHAPES[name])
    assert np.sqrt(model.dispersion_) == pytest.approx(0.05, rel=0.1)
    assert model.score(data.Z) == pytest.approx(data.explained_variance, abs=0.01)
    assert recovery_scores(data, model.codes_).coordinate_error[0] < 0.35
    codes = model.transform(data.Z)
    apart = model.atoms_[0].topology.distance(codes.coordinates[0], model.codes_.coordinates[0])
    assert apart.max() < 1e-6


def test_a_flat_is_not_called_curved():
    Z = gaussian_control(150, 5, rank=2, noise_sd=0.1, random_state=1)
    with pytest.warns(DataWarning, match="demote: circle"):
        model = rs.SAEManifold(n_atoms=1).fit(Z)
    assert model.atoms_[0].topology.name == "euclidean"
    assert any(move.accepted for move in model.search_.moves)
    kept = rs.SAEManifold(n_atoms=1, demote=False).fit(Z)
    assert kept.atoms_[0].topology.name == "circle" and kept.criterion_ > model.criterion_


def test_shape_by_evidence(tmp_path):
    data = planted_circles(100, 4, 1, noise_sd=0.1)
    model = rs.SAEManifold(n_atoms=1, topology="auto", n_init=1).fit(data.Z)
    assert model.atoms_[0].topology.name == "circle"
    choice = model.search_.topologies[0]
    assert choice.p_value < 0.05 and choice.table[0][0].startswith("circle")
    model.save(tmp_path / "fit.safetensors")
    assert rs.load(tmp_path / "fit.safetensors").summary() == model.summary()


def test_number_by_evidence():
    data = planted_circles(150, 6, 2, noise_sd=0.05)
    model = rs.SAEManifold(n_atoms="auto", max_atoms=3, n_init=2).fit(data.Z)
    assert len(model.atoms_) == 2
    assert [number for number, _ in model.search_.n_atoms] == [1, 2, 3]
