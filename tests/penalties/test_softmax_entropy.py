"""Entropy penalty in the engine: pull-backs of its curvature. Its page is `test_seed_page.py`."""

import numpy as np
import pytest

from reml_sae.errors import InputError
from reml_sae.penalties import SoftmaxAssignmentSparsityPenalty

RHO = np.array([0.3])
STEP = 1e-5


def difference(function, x, v):
    return (8 * (function(x + STEP * v) - function(x - STEP * v))
            - (function(x + 2 * STEP * v) - function(x - 2 * STEP * v))) / (12 * STEP)


@pytest.mark.parametrize(("k", "tau"), [(2, 1.0), (3, 0.7), (5, 2.0), (40, 1.0)])
@pytest.mark.parametrize("kind", ["blocks", "majorizer"])
def test_pullbacks(k, tau, kind):
    rng = np.random.default_rng(0)
    penalty = SoftmaxAssignmentSparsityPenalty(k, tau)
    z, v = rng.normal(size=(2, 6, k))
    weights = rng.normal(size=(6, k, k))
    weights = weights + weights.transpose(0, 2, 1)
    forward, pullback = getattr(penalty, f"row_{kind}"), getattr(penalty, f"row_{kind}_vjp")
    expected = difference(lambda x: (forward(x, RHO) * weights).sum(), z, v)
    found = (pullback(z, RHO, weights) * v).sum()
    assert abs(found - expected) <= 1e-7 * max(abs(expected), 1e-3)


def test_wrong_target_width():
    with pytest.raises(InputError, match=r"\(n, 3\)"):
        SoftmaxAssignmentSparsityPenalty(3, 1.0).value(np.zeros((4, 2)), RHO)
