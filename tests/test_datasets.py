"""Planted data against their own description, and the bundled data."""

import numpy as np
import pytest

from reml_sae.datasets import load_dates, load_weekdays, planted_circles, planted_mixture
from reml_sae.errors import InputError


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
