"""Whole fits by sweeps: planted atoms are found, and what an M step may not do."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from reml_sae.datasets import planted_circles
from reml_sae.errors import InputError
from reml_sae.manifolds import Circle, Interval
from reml_sae.sweeps import fit_sweeps, get_backend, sweep
from reml_sae.sweeps.update import objective, updated


def standardised(plant):
    Z = plant.Z - plant.Z.mean(axis=0)
    return Z / np.sqrt((Z**2).mean())


def accuracy(fit, plant):
    K = plant.support.shape[1]
    table = np.zeros((K, K))
    np.add.at(table, (fit.codes.labels, plant.labels), 1)
    rows, columns = linear_sum_assignment(-table)
    return table[rows, columns].sum() / len(plant.labels)


def test_circles_that_share_dimensions_are_found():
    """12 planes in 12 dimensions."""
    found = []
    for seed in range(6):
        plant = planted_circles(1500, 12, 12, n_active=1, noise_sd=0.05, orthogonal=False,
                                random_state=seed)
        fit = fit_sweeps(standardised(plant), [Circle(1)] * 12, get_backend(),
                         0)
        found.append(accuracy(fit, plant))
    assert np.mean(np.array(found) > 0.98) >= 0.8


def test_the_noise_is_found_and_the_objective_falls():
    for seed in range(3):
        plant = planted_circles(800, 16, 4, n_active=1, noise_sd=0.1, random_state=seed)
        Z = standardised(plant)
        fit = fit_sweeps(Z, [Circle(2)] * 4, get_backend(), seed)
        noise = 0.01 * (Z**2).mean() / ((plant.Z - plant.Z.mean(0)) ** 2).mean()
        assert fit.state.dispersion == pytest.approx(noise, rel=0.05)
        assert (np.diff(fit.trace) < 1e-4 * np.abs(fit.trace[0])).all()
        assert fit.trace[-1] == objective(fit.state, fit.sums)


def test_an_em_step_at_fixed_strengths_lowers_the_objective():
    """With noise, strengths and amplitudes held, by more than rounding at a state that is none."""
    plant = planted_circles(400, 8, 3, n_active=1, noise_sd=0.1, random_state=1)
    Z, backend = standardised(plant), get_backend(precision="float64")
    fit = fit_sweeps(Z, [Circle(2)] * 3, backend, 0)
    rng = np.random.default_rng(2)
    state = fit.state
    moved = replace(state, decoders=tuple(
        B + 0.1 * rng.normal(size=B.shape) for B in state.decoders))
    offset, values = np.zeros(8), []
    for _ in range(4):
        sums = sweep(Z, moved, backend, offset=offset, n_candidates=3)[0]
        values.append(objective(moved, sums))
        moved = replace(moved, decoders=updated(moved, sums).decoders)
    assert (np.diff(values) < 0.0).all()


def test_fits_are_the_same_twice():
    Z = standardised(planted_circles(500, 10, 4, n_active=1, noise_sd=0.05, random_state=3))
    fits = [fit_sweeps(Z, [Circle(1)] * 4, get_backend(), 0)
            for _ in range(2)]
    np.testing.assert_array_equal(fits[0].trace, fits[1].trace)
    np.testing.assert_array_equal(fits[0].codes.labels, fits[1].codes.labels)


def test_atoms_that_seeds_do_not_find_are_refused():
    with pytest.raises(InputError, match="rings alone"):
        fit_sweeps(np.ones((10, 4)), [Interval(6)], get_backend(), 0)
