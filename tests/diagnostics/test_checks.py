"""Diagnostics find what is wrong with a fit."""

import numpy as np

import reml_sae as rs
from reml_sae.datasets import planted_circles

DATA = planted_circles(150, 6, 1)


def status(model, name):
    return next(check.status for check in model.diagnostics_.checks if check.name == name)


def test_an_arc_is_not_a_covered_circle():
    rng = np.random.default_rng(0)
    t = rng.uniform(0.0, 1.2, 200)
    Z = np.column_stack([np.cos(t), np.sin(t), np.zeros((200, 3))])
    Z += 0.01 * rng.normal(size=Z.shape)
    # integrated over a whole circle, the rows would squeeze it until they cover half of it
    model = rs.SAEManifold(n_atoms=1, topology=rs.manifolds.Circle(1),
                           integration="laplace").fit(Z)
    assert model.score(Z) > 0.99
    assert status(model, "atom 0 coverage") == "warn"
    assert "coverage" in model.summary()


def test_a_good_fit_passes_everything():
    model = rs.SAEManifold(n_atoms=1).fit(DATA.Z)
    assert model.diagnostics_.status == "pass"


def test_one_circle_fitted_twice_is_seen_and_costs_evidence():
    one, two = (rs.SAEManifold(n_atoms=k, n_init=2).fit(DATA.Z) for k in (1, 2))
    assert status(two, "duplicate atoms") == "warn"
    assert one.criterion_ < two.criterion_ - 10.0
