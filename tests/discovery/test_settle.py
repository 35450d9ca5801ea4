"""What comes out of the rounds has no higher V than what went in, whatever the rows choose."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from reml_sae.datasets import planted_manifolds, planted_mixture
from reml_sae.diagnostics.places import left_out
from reml_sae.discovery import settle
from reml_sae.discovery.first_fit import fit_starts
from reml_sae.discovery.metric import MetricRows
from reml_sae.discovery.policy import SearchPolicy, SettlePolicy
from reml_sae.engine import Theta, criterion
from reml_sae.manifolds import Circle, get_manifold
from tests.discovery.test_discovery import settings, standardised

SEEDS, SLACK = range(2), 0.1
COLUMNS, ATOMS = 5, [Circle(1), Circle(1)]


@cache
def start(seed):
    Z = standardised(planted_mixture(80, COLUMNS, ["circle", "circle"], noise_sd=0.2,
                                     random_state=seed).Z)
    rows = MetricRows.isotropic(Z)
    return fit_starts(rows, ATOMS, settings(COLUMNS), np.random.default_rng(seed))


def shuffled(model, theta, rho, policy):
    """Codes of other rows: about the worst that a choice can be."""
    order = np.random.default_rng(0).permutation(len(theta.xi))
    turned = Theta(theta.xi[order], theta.beta)
    return model.with_state(turned, rho, model.active[order]), len(order)


def value(fitted, curvature):
    """V of a fit; its own is of the majorizer where no exact fit was usable."""
    return criterion(fitted.model, fitted.result.rho, theta=fitted.result.theta,
                     curvature=curvature, gradient=False).value


@pytest.mark.parametrize("curvature", ["majorizer", "exact"])
@pytest.mark.parametrize("choose", [settle.reassign, shuffled])
def test_v_is_not_above_the_start(choose, curvature, monkeypatch):
    monkeypatch.setattr(settle, "reassign", choose)
    # two rounds are enough to be led up
    policy = SearchPolicy(settle=SettlePolicy(most_rounds=2, most_rough_rounds=2))
    for seed in SEEDS:
        given = start(seed)
        found = settle.settle(given, replace(settings(COLUMNS), curvature=curvature,
                                            policy=policy))
        assert value(found, curvature) <= value(given, curvature) + SLACK


def test_shares_that_cost_nothing_are_not_taken():
    """Crossing atoms in much noise: V falls as all rows mix, on coordinates that none carries."""
    atoms = [get_manifold("plane"), get_manifold("circle")]
    for seed in (1, 2):
        made = planted_manifolds(40, 4, ["plane", "circle"], noise_sd=0.3, random_state=seed)
        rows, rng = MetricRows.isotropic(standardised(made.Z)), np.random.default_rng(seed)
        own = replace(settings(4), n_init=1)
        found = settle.settle(fit_starts(rows, atoms, own, rng), own)
        lacks = left_out(found.model, found.result.theta, found.result.rho, np.arange(40)).sum()
        assert abs(lacks) < settle.LACKING
        assert found.result.converged
