"""Fits under gates: superposed rows, more atoms than columns, codes of the training rows."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles, planted_manifolds, recovery_scores
from reml_sae.errors import InputError
from reml_sae.manifolds import Circle

TWO = planted_circles(80, 6, 2, noise_sd=0.05)


@pytest.fixture(scope="module", params=["topk", "ordered_beta_bernoulli", "threshold_gate"])
def one_active(request):
    return rs.SAEManifold(n_atoms=2, topology=Circle(1), assignment=request.param).fit(TWO.Z)


def test_one_active(one_active):
    assert one_active.converged_
    scores = recovery_scores(TWO, one_active.codes_)
    assert scores.assignment_accuracy == 1.0
    assert max(scores.coordinate_error) < 0.09
    assert one_active.score(TWO.Z) == pytest.approx(TWO.explained_variance, abs=0.01)


def test_transform_gives_the_fitted_codes(one_active):
    codes, fitted = one_active.encode(TWO.Z), one_active.codes_
    assert (codes.gates == fitted.gates).all()
    assert np.abs(codes.assignments - fitted.assignments).max() < 1e-6
    assert np.abs(codes.objective - fitted.objective).max() < 1e-6
    assert codes.converged.all()
    for k, t in enumerate(codes.coordinates):
        rows = codes.gates[:, k]
        apart = one_active.atoms_[k].topology.distance(t[rows], fitted.coordinates[k][rows])
        assert apart.max() < 1e-6


def test_save_and_load(one_active, tmp_path):
    one_active.save(tmp_path / "fit.safetensors")
    again = rs.load(tmp_path / "fit.safetensors")
    assert again.summary() == one_active.summary()
    np.testing.assert_array_equal(again.predict(TWO.Z[:20]), one_active.predict(TWO.Z[:20]))
    model, other = one_active.build_model(TWO.Z), again.build_model(TWO.Z)
    values = [rs.criterion(m, one_active.rho_).value for m in (model, other)]
    assert values[0] == values[1] == pytest.approx(one_active.criterion_, rel=1e-9)


def of_pairs():
    return rs.SAEManifold(n_atoms=4, topology=Circle(1), assignment="topk", n_active=2)


@pytest.fixture(scope="module")
def superposed():
    data = planted_manifolds(240, 8, ["circle"] * 4, n_active=2, noise_sd=0.05)
    return data, of_pairs().fit(data.Z)


def test_two_atoms_a_row(superposed):
    data, model = superposed
    assert model.converged_
    scores = recovery_scores(data, model.codes_)
    assert scores.assignment_accuracy > 0.99
    assert max(scores.coordinate_error) < 0.1
    assert (model.codes_.gates.sum(axis=1) == 2).all()


def test_units_and_order_of_rows(superposed):
    data, model = superposed
    order = np.random.default_rng(0).permutation(len(data.Z))
    again = of_pairs().fit(100.0 * data.Z[order])
    shift = data.Z.size * np.log(100.0)
    assert again.criterion_ - shift == pytest.approx(model.criterion_, abs=1e-3)


def test_unused_amplitudes_are_zero(superposed):
    model = superposed[1]
    assert (model.codes_.assignments[~model.codes_.gates] == 0.0).all()


@pytest.mark.parametrize(("change", "message"), [
    ({"assignment": "topk", "n_active": 3}, "n_active"),
    ({"assignment": "tpk"}, "did you mean 'topk'"),
    ({"assignment": {"assignment": "threshold_gate", "height": 1.0}}, "has no parameter 'height'"),
    ({"assignment": {"assignment": "threshold_gate", "width": -1.0}}, "width"),
    ({"assignment": "topk", "penalties": [{"kind": "softmax_assignment_sparsity", "k_atoms": 2}]},
     "prior on the simplex"),
    ({"penalties": [{"kind": "ordered_beta_bernoulli", "k_atoms": 2}]}, "prior on gates"),
    ({"assignment": "topk", "topology": "linear",
      "penalties": [{"kind": "total_variation", "latent_dim": 1}]}, "couples the coordinates"),
])
def test_refused(change, message):
    with pytest.raises(InputError, match=message):
        rs.SAEManifold(**{"n_atoms": 2, **change}).fit(TWO.Z)


def test_a_prior_on_gates_can_be_given():
    penalty = {"kind": "ordered_beta_bernoulli", "k_atoms": 2, "learnable": False, "weight": 3.0}
    model = rs.SAEManifold(n_atoms=2, topology=Circle(1), assignment="ordered_beta_bernoulli",
                           penalties=[penalty]).fit(TWO.Z)
    assert model.converged_ and "ordered_beta_bernoulli" not in str(model.rho_names_)
