"""A strength whose V falls all the way to its limit is put there; one with an optimum is not."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.engine import Theta, grid_criterion
from reml_sae.manifolds import Circle
from reml_sae.models import PenaltyTerm, SAEManifoldModel
from reml_sae.penalties import HarmonicRoughnessPenalty

SEEDS = range(4)
SD = 0.2


def circle_model(seed, second):
    """A noisy circle with a second harmonic of this length, at its true angles."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(-np.pi, np.pi, (200, 1))
    Z = Circle(2).basis(t)[:, 1:] * [1.0, 1.0, second, second] + SD * rng.normal(size=(200, 4))
    theta = Theta(t, np.zeros((5, 4)))
    theta.beta[1:] = np.diag([1.0, 1.0, second, second])
    penalty = HarmonicRoughnessPenalty(period=5)
    return SAEManifoldModel(Z - Z.mean(axis=0), [Circle(2)], [PenaltyTerm(penalty, "decoder", 0)],
                            np.ones((200, 1), bool), theta, np.array([0.0, 2.0 * np.log(SD)]))


@pytest.mark.parametrize("second", [0.0, 0.02, 0.04, 0.06, 0.1])
def test_v_is_lowest_over_the_strength(second):
    for seed in SEEDS[:2]:
        model = circle_model(seed, second)
        fit = rs.fit_reml(model)
        assert fit.converged
        line = grid_criterion(model.with_state(fit.theta, fit.rho), fit.rho,
                              {model.rho_names[0]: np.arange(-6.0, 18.0)})
        assert fit.criterion <= line.min() + 1e-3


def test_the_way_to_a_limit_is_short():
    found = [rs.fit_reml(circle_model(seed, 0.0)) for seed in SEEDS]
    reached = [fit for fit in found if fit.limits]
    assert len(reached) >= len(SEEDS) // 3
    steps = [sum(row.stage == "trust-region" for row in fit.trace) for fit in reached]
    assert np.mean(steps) <= 4.0
