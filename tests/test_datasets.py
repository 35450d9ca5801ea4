"""Families against scipy, planted data against their own description."""

import numpy as np
import pytest
from scipy.stats import norm

from reml_sae.datasets import load_dates, load_weekdays, planted_circles, planted_mixture
from reml_sae.errors import InputError
from reml_sae.families import Gaussian

RNG = np.random.default_rng(0)
FAMILIES = [Gaussian()]


def test_gaussian_loss_is_the_log_density():
    z, eta = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 3))
    expected = -norm.logpdf(z, eta, np.exp(0.5 * 0.7)).sum(axis=1)
    np.testing.assert_allclose(Gaussian().loss(z, eta, 0.7), expected, rtol=1e-12)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_family_derivatives(family):
    z, eta, v = (RNG.normal(size=(5, 3)) for _ in range(3))
    step = 1e-6

    def loss(eta, log_dispersion=0.3):
        return family.loss(z, eta, log_dispersion).sum()

    slope = (loss(eta + step * v) - loss(eta - step * v)) / (2 * step)
    assert -(family.score(z, eta, 0.3) * v).sum() == pytest.approx(slope, rel=1e-7)
    by_phi = (loss(eta, 0.3 + step) - loss(eta, 0.3 - step)) / (2 * step)
    assert family.loss_log_dispersion(z, eta, 0.3) == pytest.approx(by_phi, rel=1e-7)
    draws = eta + np.exp(0.15) * RNG.normal(size=(20_000, 5, 3))
    scores = np.mean([family.score(draw, eta, 0.3) ** 2 for draw in draws], axis=0)
    np.testing.assert_allclose(scores, family.weights(z, eta, 0.3), rtol=0.06)


def test_planted_noise_and_frames():
    data = planted_mixture(3000, 9, ["circle", "linear", "plane"], noise_sd=0.1, offset=1.0)
    assert (data.Z - data.signal).std() == pytest.approx(0.1, rel=0.02)
    frames = np.concatenate(data.frames)
    np.testing.assert_allclose(frames @ frames.T, np.eye(5), atol=1e-12)
    assert np.bincount(data.labels).tolist() == [1000, 1000, 1000]
    again = planted_mixture(3000, 9, ["circle", "linear", "plane"], noise_sd=0.1, offset=1.0)
    assert (again.Z == data.Z).all()


def test_planted_circle_lies_on_its_circle():
    data = planted_circles(50, 4, 1, noise_sd=0.0)
    np.testing.assert_allclose(np.linalg.norm(data.Z, axis=1), 1.0)
    assert data.explained_variance == pytest.approx(1.0)


@pytest.mark.parametrize(("arguments", "message"), [
    ((10, 3, ["torus"]), "torus"), ((10, 3, ["plane", "plane"]), "orthogonal")])
def test_wrong_plants(arguments, message):
    with pytest.raises(InputError, match=message):
        planted_mixture(*arguments)


def test_calendar():
    week, year = load_weekdays(), load_dates()
    assert week.Z.shape == (140, 384) and year.Z.shape == (365, 384)
    for template in range(20):
        np.testing.assert_allclose(week.Z[week.groups == template].mean(axis=0), 0.0, atol=1e-12)
    assert "sentence encoder" in week.description
    assert (load_weekdays(center_templates=False).Z != week.Z).any()
