"""Diagnostics find what is wrong with a fit."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.diagnostics import checks
from reml_sae.diagnostics.checks import check_coverage, check_duplicates
from reml_sae.diagnostics.places import check_places, place_grid
from reml_sae.manifolds import Circle

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
    # of the fit it is near the threshold; of the arc itself it is far below
    assert any(check.name == "atom 0 coverage" for check in model.diagnostics_.checks)
    assert check_coverage(0, rs.manifolds.Circle(1), t[:, None]).status == "warn"


def test_a_good_fit_passes_everything():
    model = rs.SAEManifold(n_atoms=1).fit(DATA.Z)
    assert model.diagnostics_.status == "pass"


def test_one_circle_fitted_twice_is_seen_and_costs_evidence():
    one, two = (rs.SAEManifold(n_atoms=k, topology=Circle(1), n_init=1,
                               noise="isotropic").fit(DATA.Z)
                for k in (1, 2))
    assert "fail" in {status(two, f"atom {k} occupancy") for k in range(2)}
    assert one.criterion_ < two.criterion_ - 10.0


def test_atoms_in_one_plane_are_duplicates():
    decoder = np.random.default_rng(0).normal(size=(3, 6))
    turned = decoder.copy()
    turned[1:] = [[0.6, 0.8], [-0.8, 0.6]] @ decoder[1:]
    other = np.random.default_rng(1).normal(size=(3, 6))
    assert check_duplicates([decoder, turned]).status == "warn"
    assert check_duplicates([decoder, other]).status == "pass"


def twice_round(winding, n=40, sd=0.1):
    """The check of rows on a circle of which their coordinates are a multiple."""
    atom, rng = Circle(2), np.random.default_rng(0)
    t = rng.uniform(-np.pi, np.pi, size=n)
    rows = np.column_stack([np.cos(t), np.sin(t)]) + sd * rng.normal(size=(n, 2))
    grid = winding * place_grid(atom)
    curve = np.column_stack([np.cos(grid), np.sin(grid)])
    nats = ((rows[:, None] - curve) ** 2).sum(axis=2) / (2.0 * sd**2)
    return check_places(0, atom, nats, nats)


def test_a_circle_that_winds_twice_does_not_tell_where_its_rows_are():
    once, twice = twice_round(1), twice_round(2)
    assert (once.status, once.figure) == ("pass", 0.0)
    assert (twice.status, twice.figure) == ("fail", 1.0)


@pytest.mark.parametrize("assignment", ["softmax", "topk"])
def test_the_best_place_of_a_row_is_that_of_its_code(monkeypatch, assignment):
    """The posterior on the grid of an atom peaks at the fitted coordinate, within a few cells."""
    seen = []
    monkeypatch.setattr(checks, "check_places",
                        lambda k, atom, nats, drawn: (seen.append(nats)
                                                      or check_places(k, atom, nats, drawn)))
    plant = planted_circles(80, 5, 2, noise_sd=0.05, amplitude_sd=0.2)
    model = rs.SAEManifold(n_atoms=2, topology=Circle(1), assignment=assignment,
                           noise="isotropic", n_init=1, integration="laplace").fit(plant.Z)
    grid = place_grid(model.atoms_[0].topology)
    assert len(seen) == 2
    for k, nats in enumerate(seen):
        t = model.codes_.coordinates[k][model.codes_.gates[:, k]]
        resolved = np.ptp(nats, axis=1) > 20.0
        found = grid[nats.argmin(axis=1)]
        apart = model.atoms_[k].topology.distance(found, t[:len(found)])
        assert resolved.sum() > 30
        assert (apart[resolved] < 0.1).all()
