"""SAE-manifolds of counts, binary codes, positive data and heavy tails."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.diagnostics import align_angles
from reml_sae.errors import InputError
from reml_sae.families import get_family
from reml_sae.manifolds import Circle

N, P = 150, 10
FAMILIES = [("poisson", []), ({"family": "binomial", "n_trials": 6}, []),
            ("gamma", [np.log(0.2)]), ("negative_binomial", [2.0]),
            ({"family": "student_t", "df": 4.0}, [-1.5])]
NAMES = [get_family(family).name for family, _ in FAMILIES]


def planted(family, psi, seed=0, size=3.0):
    rng = np.random.default_rng(seed)
    t = rng.uniform(-np.pi, np.pi, N)
    frame = np.linalg.qr(rng.normal(size=(P, 2)))[0]
    eta = size * np.column_stack([np.cos(t), np.sin(t)]) @ frame.T + 0.3 * rng.normal(size=P)
    return t, frame, eta, get_family(family).sample(rng, eta, np.array(psi))


@pytest.fixture(scope="module", params=FAMILIES, ids=NAMES)
def fitted(request):
    """A family, its psi, the plant and its fit."""
    family, psi = request.param
    plant = planted(family, psi)
    model = rs.SAEManifold(n_atoms=1, topology=Circle(1), family=family)
    return family, psi, plant, model.fit(plant[-1])


def test_a_planted_circle(fitted):
    family, psi, (t, frame, eta, Z), model = fitted
    assert model.converged_, model.message_
    angles = align_angles(model.codes_.coordinates[0][:, 0], t)
    error = np.sqrt(np.mean(np.angle(np.exp(1j * (angles - t))) ** 2))
    # the Cramer-Rao bound of a row's angle, its curve known
    likelihood = get_family(family)
    slope = 3.0 * np.column_stack([-np.sin(t), np.cos(t)]) @ frame.T
    information = (likelihood.weight(Z, eta, np.array(psi), 0) * slope**2).sum(axis=1)
    assert error < 1.6 * np.sqrt(np.mean(1.0 / information))
    for name, value in zip(likelihood.psi_names, psi, strict=True):
        assert model.rho_[model.rho_names_.index(name)] == pytest.approx(value, abs=0.3)


def test_codes_mean_and_file(fitted, tmp_path):
    family, _, (_, _, eta, Z), model = fitted
    codes = model.encode(Z)
    same = np.abs(np.angle(np.exp(1j * (codes.coordinates[0] - model.codes_.coordinates[0]))))
    assert np.mean(same < 1e-6) > 0.95  # a row of small counts can have two equal places
    mean = model.predict(Z)
    truth = get_family(family).mean(eta)
    assert np.corrcoef(mean.ravel(), truth.ravel())[0, 1] > 0.9
    assert 0.1 < model.score(Z) < 1.0
    assert "explained deviance" in model.summary()
    model.save(tmp_path / "fit.safetensors")
    again = rs.load(tmp_path / "fit.safetensors")
    np.testing.assert_array_equal(again.predict(Z), mean)
    assert again.summary() == model.summary()


def test_two_circles_of_counts():
    rng = np.random.default_rng(3)
    labels, t = rng.integers(0, 2, 200), rng.uniform(-np.pi, np.pi, 200)
    frames = np.linalg.qr(rng.normal(size=(12, 4)))[0].reshape(12, 2, 2)
    circle = 4.0 * np.stack([np.cos(t), np.sin(t)], axis=1)
    eta = 1.0 + np.einsum("nd,pnd->np", circle, frames[:, labels])
    Z = rng.poisson(np.exp(eta))
    model = rs.SAEManifold(n_atoms=2, topology=Circle(1), family="poisson").fit(Z)
    found = model.codes_.assignments.argmax(axis=1)
    assert max(np.mean(found == labels), np.mean(found != labels)) > 0.95


@pytest.mark.parametrize(("family", "data", "message"), [
    ("poisson", -np.ones((20, 3)), "Poisson"),
    ({"family": "binomial", "n_trials": 2}, 3.0 * np.ones((20, 3)), "n_trials"),
    ("gamma", np.zeros((20, 3)), "amma"),
    ("poison", np.ones((20, 3)), "'poisson'"),
])
def test_wrong_data_are_named(family, data, message):
    with pytest.raises(InputError, match=message):
        rs.SAEManifold(n_atoms=1, family=family).fit(data)
