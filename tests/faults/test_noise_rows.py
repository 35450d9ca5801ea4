"""Rows without structure, fitted as a circle: every figure is possible, and most fits converge."""

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


@pytest.mark.parametrize("n_atoms", [1, 2])
def test_atoms_that_explain_nothing_are_named(n_atoms):
    """Of several none is asked whether a flat would do."""
    Z = np.random.default_rng(0).normal(size=(70, 8))
    with pytest.warns(DataWarning, match="the atoms explain nothing"):
        model = SAEManifold(n_atoms=n_atoms, n_init=1).fit(Z)
    assert "atoms against none" in [check.name for check in model.diagnostics_.checks]
    assert model.search_.no_atom and bool(model.search_.flat_twins) == (n_atoms == 1)
    circle = planted_circles(80, 4, 1, noise_sd=0.2).Z
    assert not SAEManifold(n_atoms=1, n_init=1).fit(circle).search_.no_atom
