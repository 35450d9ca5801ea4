"""Rows of extreme norm are named, and rows that only vary are not."""

import numpy as np
import pytest

from reml_sae.datasets import gaussian_control, planted_circles, planted_manifolds
from reml_sae.io import extreme_rows

SEEDS = range(25)


def circles(n, seed):
    return planted_circles(n, 12, 2, noise_sd=0.1, random_state=seed).Z


def spoiled(n, times, seed):
    """One row in a hundred at so many times the norm of the others, and which these are."""
    Z, rng = circles(n, seed), np.random.default_rng(seed)
    index = rng.choice(n, round(0.01 * n), replace=False)
    towards = rng.normal(size=(len(index), Z.shape[1]))
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    Z[index] = times * np.sqrt((Z**2).sum(axis=1).mean()) * towards
    return Z, index


@pytest.mark.parametrize("times", [10.0, 100.0])
@pytest.mark.parametrize("n", [120, 300, 1000])
def test_one_in_a_hundred_is_named(n, times):
    for seed in SEEDS:
        Z, index = spoiled(n, times, seed)
        found = extreme_rows(Z)
        assert found is not None
        assert sorted(found.index) == sorted(index)
        assert found.share > 0.4 and found.ratio > 0.8 * times


def student(n, p, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, p)) / np.sqrt(rng.chisquare(5, size=(n, 1)) / 5)


HONEST = {
    "circles": circles,
    "log-normal amplitudes": lambda n, seed: planted_circles(
        n, 8, 2, amplitude_sd=1.0, random_state=seed).Z,
    "gates": lambda n, seed: planted_manifolds(
        n, 8, ["circle"] * 4, n_active_range=(1, 4), amplitude_sd=0.5, random_state=seed).Z,
    "rare atoms away": lambda n, seed: planted_manifolds(
        n, 16, ["circle"] * 3, imbalance=20.0, offset=2.0, random_state=seed).Z,
    "Gaussian": lambda n, seed: np.random.default_rng(seed).normal(size=(n, 4)),
    "low rank": lambda n, seed: gaussian_control(n, 64, random_state=seed),
    "one column": lambda n, seed: np.random.default_rng(seed).normal(size=(n, 1)),
    "heavy tails": lambda n, seed: student(n, 16, seed),
}


@pytest.mark.parametrize("name", HONEST)
def test_rows_that_only_vary_are_not(name):
    found = [extreme_rows(HONEST[name](n, seed)) for n in (60, 120, 300) for seed in range(100)]
    assert sum(item is not None for item in found) <= 3


@pytest.mark.parametrize("Z", [np.zeros((40, 3)), np.ones((1, 2)), 1e150 * np.eye(30)])
def test_degenerate_rows(Z):
    assert extreme_rows(Z) is None


def test_the_message_names_them_and_what_to_do():
    Z, index = spoiled(300, 100.0, 0)
    message = extreme_rows(1e-200 * Z).message()
    assert all(str(i) in message for i in index)
    assert "(3 of 300)" in message and "99" in message
    assert "Drop" in message and "rescale" in message
