"""Steps of rows on their own."""

import numpy as np

from reml_sae.models.sae.rows import _Curved, _slid
from tests.models.sae.systems import MODELS


def test_a_singular_majorizer_far_above_the_scale_gives_a_step():
    curved = _Curved.of(-np.eye(2)[None], np.ones((1, 2)), np.array([[1.0, 2.0]]))
    step = curved.newton(curved.rough, lambda rows: np.full((len(rows), 2, 2), 1e14))
    assert np.isfinite(step).all()
    assert (step * np.array([[1.0, 2.0]])).sum() < 0.0


def test_a_step_on_a_flat_moves_amplitude_times_coordinates():
    model = MODELS["topk-pair"]()  # the flat is the second of its atoms
    xi, t = model.theta.xi, model.coordinate_columns(1)
    step = np.clip(np.random.default_rng(1).normal(size=xi.shape), -2.0, 2.0)
    amplitude = np.exp(xi[:, [1]])
    asked = amplitude * (xi[:, t] + step[:, t] + step[:, [1]] * xi[:, t])
    moved = _slid(model, xi, step)
    np.testing.assert_allclose(np.exp(moved[:, [1]]) * moved[:, t], asked, rtol=1e-12)
    others = np.ones(xi.shape[1], bool)
    others[t] = False
    assert (moved[:, others] == model.move_rows(xi, step)[:, others]).all()
