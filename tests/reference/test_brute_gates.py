"""Brute force for gates, and importance sampling as a check of every Laplace step over decoders."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from reml_sae.datasets import planted_manifolds
from reml_sae.manifolds import Circle, Euclidean
from tests.reference.brute_force import atom_likelihood, brute_force
from tests.reference.brute_gates import GatedRows
from tests.reference.importance import circle_side, importance, line_side
from tests.reference.second_order import second_order

ONE_CIRCLE = (Circle(1), "circle", circle_side)
ONE_LINE = (Euclidean(1, 1), "linear", line_side)


@pytest.mark.parametrize("p", [2, 3])
@pytest.mark.parametrize("kind", [ONE_CIRCLE, ONE_LINE], ids=["circle", "line"])
def test_laplace_over_decoders_errs_by_one_over_the_rows(kind, p):
    """By .4 nats at most where there are 24 rows, and less than .1 where there are 100."""
    atom, shape, side = kind
    for n, bound in ((24, 0.4), (100, 0.1)):
        for seed in range(2):
            data = planted_manifolds(n, p, [shape], noise_sd=0.2, random_state=seed)
            truth = brute_force(data.Z - data.Z.mean(0), atom, dispersion=0.04,
                                coordinates=data.coordinates[0])
            found = importance(truth, [side(slice(0, atom.basis_size))], n=2000)
            assert found.effective_size > 300
            assert found.value == pytest.approx(truth.value, abs=bound)


@pytest.mark.parametrize("kind", [ONE_CIRCLE, ONE_LINE], ids=["circle", "line"])
def test_the_next_order_is_most_of_what_laplace_lacks(kind):
    atom, shape, side = kind
    lacking, left = [], []
    for seed in range(4):
        data = planted_manifolds(24, 3, [shape], noise_sd=0.2, random_state=seed)
        truth = brute_force(data.Z - data.Z.mean(0), atom, dispersion=0.04,
                            coordinates=data.coordinates[0])
        found = importance(truth, [side(slice(0, atom.basis_size))], n=4000)
        lacking.append(found.value - truth.value)
        left.append(lacking[-1] - second_order(truth).total)
    assert np.abs(left).max() < 0.06
    assert np.abs(np.mean(left)) < 0.3 * np.abs(np.mean(lacking))


@pytest.mark.parametrize("kind", [ONE_CIRCLE, ONE_LINE], ids=["circle", "line"])
def test_group_volume_and_multiplicity_by_draws_from_the_prior(kind):
    """-log p(Z) of a few rows, averaged over decoders of the prior: no mode, no slice, no group."""
    atom, shape, side = kind
    data = planted_manifolds(6, 2, [shape], noise_sd=0.4, random_state=2)
    truth = brute_force(data.Z, atom, dispersion=0.16, coordinates=data.coordinates[0])
    found = importance(truth, [side(slice(0, atom.basis_size))], n=6000, rounds=2, widen=1.5)
    L = atom_likelihood(data.Z, atom, np.eye(atom.basis_size), 0.16, 64)
    draws = np.random.default_rng(0).normal(size=(20_000, atom.basis_size, 2))
    log_p = np.array([-L.row_values(B).sum() for B in draws])
    exact = np.log(len(draws)) - logsumexp(log_p)
    weights = np.exp(log_p - logsumexp(log_p))
    spread = np.sqrt((weights**2).sum())
    assert spread < 0.1
    assert found.value - truth.log_multiplicity == pytest.approx(exact, abs=3 * spread + 0.03)


def two_circles(active, p, n=24, sd=0.1, alpha=400.0, seed=1, nodes=(48, 6)):
    """Rows of two circles with their planted supports, and decoders by least squares."""
    atoms = [Circle(1), Circle(1)]
    data = planted_manifolds(n, p, ["circle"] * 2, noise_sd=sd, n_active=active, offset=1.0,
                             amplitude_sd=alpha**-0.5, orthogonal=p >= 4, random_state=seed)
    Z = data.Z - data.Z.mean(0)
    rows = GatedRows(Z, atoms, data.support, alpha, sd**2, *nodes)
    return rows, rows.least_squares(data.coordinates, data.amplitudes)


@pytest.mark.parametrize(("active", "p", "sd"), [(1, 2, 0.1), (1, 3, 0.1), (2, 4, 0.2)])
def test_laplace_over_the_decoders_of_gates(active, p, sd):
    rows, B = two_circles(active, p, sd=sd, nodes=(64 if active == 1 else 20, 4))
    truth = rows.truth(B)
    found = importance(truth, [circle_side(block) for block in rows.blocks],
                       value=rows.fast_value(truth.likelihood), n=2000, rounds=3)
    assert found.effective_size >= 100
    assert found.value + rows.log_patterns() == pytest.approx(truth.value, abs=0.9)


@pytest.mark.parametrize("active", [1, 2])
def test_fast_sum_over_two_atoms(active):
    rows, B = two_circles(active, 4, sd=0.2, nodes=(16, 4))
    L = rows.likelihood()
    assert rows.fast_value(L)(B) == pytest.approx(L.value(B), rel=1e-12)
    V = np.random.default_rng(0).normal(size=B.shape)
    above, below = L.value(B + 1e-5 * V), L.value(B - 1e-5 * V)
    assert L.derivatives(B)[1] @ V.ravel() == pytest.approx((above - below) / 2e-5, rel=1e-6)


def test_amplitudes_of_one_are_no_gate():
    data = planted_manifolds(20, 3, ["circle"], noise_sd=0.3)
    atom = Circle(1)
    rows = GatedRows(data.Z, [atom], np.ones((20, 1), bool), 1e16, 0.09)
    B = np.vstack([np.random.default_rng(1).normal(size=(3, 3)), np.zeros(3)])
    plain = atom_likelihood(data.Z, atom, np.eye(3), 0.09, 48).row_values(B[:3])
    np.testing.assert_allclose(rows.likelihood().row_values(B), plain, rtol=1e-9)


def test_two_lines_are_probabilistic_pca():
    data = planted_manifolds(20, 4, ["linear"] * 2, n_active=2, noise_sd=0.4)
    rows = GatedRows(data.Z, [Euclidean(1, 1)] * 2, data.support, 1e16, 0.16, 48, 2)
    B = rows.least_squares(data.coordinates, data.amplitudes)
    cov = B[[1, 3]].T @ B[[1, 3]] + 0.16 * np.eye(4)
    exact = -multivariate_normal(B[0] + B[2] + B[4], cov).logpdf(data.Z)
    np.testing.assert_allclose(rows.likelihood().row_values(B), exact, rtol=1e-8)
