"""Rows without structure, fitted as circles: every figure is possible, and most fits converge."""

import warnings

import numpy as np
import pytest

from reml_sae import SAEManifold
from reml_sae.datasets import planted_circles
from reml_sae.errors import ConvergenceWarning, DataWarning

SEEDS = 3


@pytest.mark.parametrize("p", [3, 8])
def test_pure_noise_as_one_circle(p):
    ended = 0
    for seed in range(SEEDS):
        Z = np.random.default_rng(seed).normal(size=(50, p))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", DataWarning)
            model = SAEManifold(n_atoms=1, n_init=1).fit(Z)
        atom = model.atoms_[0]
        assert 0.0 <= atom.edf <= atom.coefficients.size
        assert 0.0 <= model.edf_ <= atom.coefficients.size + len(Z)
        low, high = atom.band(np.linspace(-np.pi, np.pi, 50))
        assert (high - low).max() < 4.0 * np.abs(Z).max()
        ended += model.converged_
    assert ended >= SEEDS - 1


def test_pure_noise_has_no_atom():
    Z = np.random.default_rng(0).normal(size=(70, 8))
    with pytest.warns(DataWarning, match="no atom is left"):
        model = SAEManifold(n_atoms="auto", n_init=1).fit(Z)
    assert model.converged_ and [atom.topology.name for atom in model.atoms_] == ["point"]


@pytest.mark.parametrize("assignment", ["softmax", "topk"])
@pytest.mark.parametrize("n_atoms", [1, 2])
def test_atoms_that_explain_nothing_are_named(n_atoms, assignment):
    """Of several none is asked whether a flat would do."""
    options = {"n_atoms": n_atoms, "assignment": assignment, "n_init": 1}
    Z = np.random.default_rng(0).normal(size=(60, 6))
    with pytest.warns(DataWarning, match="the atoms explain nothing"):
        model = SAEManifold(**options).fit(Z)
    assert "atoms against none" in [check.name for check in model.diagnostics_.checks]
    assert model.search_.no_atom and bool(model.search_.flat_twins) == (n_atoms == 1)
    assert "; no structure was found" in model.message_
    (move,) = model.search_.no_atom
    one = SAEManifold(n_atoms=1, topology="point").fit(Z)
    assert move.after == pytest.approx(one.criterion_, abs=0.1)
    circles = SAEManifold(**options).fit(planted_circles(40 * n_atoms, 4, n_atoms, noise_sd=0.1).Z)
    assert not circles.search_.no_atom and "found" not in circles.message_


def test_rows_on_a_flat_have_no_curved_structure():
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(70, 2)) @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(70, 5))
    with pytest.warns(DataWarning, match="no better than a flat"):
        model = SAEManifold(n_atoms=1, n_init=1, noise="isotropic").fit(Z)
    assert "; no curved structure was found" in model.message_
    assert model.message_ in model.summary().replace("\n", " ")


@pytest.mark.parametrize("p", [3, 5])
def test_curves_that_share_out_a_flat_are_named(p):
    """None of them is worse than a flat of its own rows."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(50, 2)) @ rng.normal(size=(2, p)) + 0.1 * rng.normal(size=(50, p))
    options = {"n_atoms": 2, "noise": "isotropic", "assignment": "topk", "n_init": 1}
    with pytest.warns(DataWarning, match="no better than one flat"):
        model = SAEManifold(**options).fit(Z)
    assert "; no curved structure was found: one flat" in model.message_
    assert "atoms against one flat" in [check.name for check in model.diagnostics_.checks]
    assert any("one flat: one flat of dimension 2" in line and line.endswith("kept as asked")
               for line in model.search_.lines())
    (move,) = model.search_.one_flat
    plane = SAEManifold(n_atoms=1, topology="plane", noise="isotropic").fit(Z)
    assert move.after == pytest.approx(plane.criterion_, abs=0.5)
    circles = SAEManifold(**options).fit(planted_circles(80, 4, 2, noise_sd=0.1).Z)
    assert not circles.search_.one_flat and "found" not in circles.message_


@pytest.mark.parametrize("n_columns", [8, 60])
def test_a_flat_of_all_rows_is_of_the_noise(n_columns):
    """V is lower with it, by its prior alone."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(50, 2)) @ rng.normal(size=(2, n_columns))
    Z += 0.1 * rng.normal(size=Z.shape)
    with pytest.warns(DataWarning, match="the atoms explain nothing"):
        model = SAEManifold(n_atoms=1, topology="plane").fit(Z)
    (move,) = model.search_.no_atom
    assert move.after > move.before + model.search_.policy.move.margin


def test_a_line_that_some_rows_are_on_is_not_of_the_noise():
    rng = np.random.default_rng(0)
    Z = 0.1 * rng.normal(size=(200, 8))
    Z[:40] += rng.normal(size=(40, 1)) * np.eye(1, 8) + np.eye(1, 8, 1)
    model = SAEManifold(n_atoms=1, topology="linear", assignment="threshold_gate", n_init=1).fit(Z)
    assert not model.search_.no_atom and "found" not in model.message_
