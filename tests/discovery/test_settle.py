"""What comes out of the rounds has no higher V than what went in, whatever the rows choose."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles, planted_manifolds, planted_mixture
from reml_sae.diagnostics.places import left_out
from reml_sae.discovery import settle
from reml_sae.discovery.first_fit import fit_starts
from reml_sae.discovery.metric import MetricRows
from reml_sae.discovery.policy import SearchPolicy, SettlePolicy
from reml_sae.engine import Theta, criterion
from reml_sae.manifolds import Circle, Euclidean, get_manifold
from tests.discovery.test_discovery import settings, standardised

pytestmark = pytest.mark.usefixtures("searches_once")

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


@pytest.mark.parametrize("seed", [1, 3, 7])
@pytest.mark.parametrize("bend", [0.5, 0.7])
def test_surfaces_whose_quadrature_would_have_too_many_nodes_are_found(bend, seed):
    """A saddle of normal coordinates, whose nodes grow with its far ends, and which is longer than
    it is wide at a bend of .7: its main axes are not those of its coordinates. At seed 3 no rough
    fit by quadrature reached a usable state.
    """
    rng = np.random.default_rng(seed)
    u, frame = rng.normal(size=(120, 2)), np.linalg.qr(rng.normal(size=(5, 5)))[0][:3]
    saddle = np.column_stack([u, bend * (u[:, 0] ** 2 - u[:, 1] ** 2)]) @ frame
    Z = saddle + 0.1 * rng.normal(size=(120, 5))
    model = rs.SAEManifold(n_atoms=1, topology=Euclidean(2, 2), noise="isotropic").fit(Z)
    assert model.converged_
    assert np.sqrt(model.dispersion_) < 0.11
    left = np.linalg.norm(model.reconstruct(model.codes_) - saddle) / np.linalg.norm(saddle)
    assert left < 0.12


@pytest.mark.parametrize("sd, by", [(0.1, "laplace"), (0.3, "quadrature")])
def test_rows_of_many_atoms_are_integrated_out_where_v_differs(sd, by):
    for seed in (0, 2):
        Z = planted_circles(80, 6, 2, noise_sd=sd, random_state=seed).Z
        found, exact = (
            rs.SAEManifold(n_atoms=2, topology=Circle(1), assignment="topk", noise="isotropic",
                           n_init=1, integration=integration).fit(Z)
            for integration in ("auto", "quadrature"))
        assert found.integration_ == by and found.converged_
        assert abs(found.criterion_ - exact.criterion_) < SLACK
