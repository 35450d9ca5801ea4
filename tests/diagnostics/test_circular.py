"""Angles known up to rotation and reflection."""

import numpy as np
import pytest

from reml_sae.diagnostics import align_angles, circular_correlation
from reml_sae.errors import InputError

RNG = np.random.default_rng(0)


def test_correlation_of_rotations_and_reflections():
    a = RNG.uniform(-np.pi, np.pi, 50)
    assert circular_correlation(a, a + 1.3) == pytest.approx(1.0)
    assert circular_correlation(a, 0.4 - a) == pytest.approx(-1.0)
    assert abs(circular_correlation(a, RNG.uniform(-np.pi, np.pi, 50))) < 0.5


def test_alignment_undoes_a_reflection():
    a = RNG.uniform(-np.pi, np.pi, 30)
    np.testing.assert_allclose(np.exp(1j * align_angles(2.0 - a, a)), np.exp(1j * a), atol=1e-9)


def test_wrong_angles():
    with pytest.raises(InputError, match="same length"):
        circular_correlation(np.zeros(3), np.zeros(4))
    with pytest.raises(InputError, match="no correlation"):
        circular_correlation(np.zeros(3), np.arange(3.0))
