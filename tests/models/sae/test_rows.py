"""Steps of rows on their own."""

import numpy as np

from reml_sae.models.sae.rows import _Curved


def test_a_singular_majorizer_far_above_the_scale_gives_a_step():
    curved = _Curved.of(-np.eye(2)[None], np.ones((1, 2)), np.array([[1.0, 2.0]]))
    step = curved.newton(curved.rough, lambda rows: np.full((len(rows), 2, 2), 1e14))
    assert np.isfinite(step).all()
    assert (step * np.array([[1.0, 2.0]])).sum() < 0.0
