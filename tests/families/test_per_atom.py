"""Noises of groups of atoms: the metric of a row is that of its atom, and what sizes cost."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import special_ortho_group

from reml_sae.families.noise import Diagonal, Factor, Isotropic, PerAtom

P = 4
NOISES = (Factor(special_ortho_group.rvs(P, random_state=1)[:, :2], np.array([30.0, 2.0]),
                 np.array([30.0, 2.0]), np.ones(P - 2)),
          Isotropic(P), Diagonal(np.array([1.0, -2.0, 0.5, 0.5]), 1.0))
GROUPS = np.array([1, 0, 1, 2])


def example():
    return PerAtom(NOISES, np.array([0.5, -0.7, 0.2]), np.array([1.1, 0.9, 1.4]), GROUPS)


def test_rows_are_in_the_metric_of_their_atom():
    noise, rng = example(), np.random.default_rng(0)
    atoms = rng.integers(0, 4, 4000)
    metrics = noise.metrics(np.eye(4, dtype=bool)[atoms], np.zeros(4000, np.intp))
    np.testing.assert_array_equal(metrics, GROUPS[atoms])
    Z = rng.normal(size=(4000, P))
    for k in range(4):
        covariance = np.exp(noise.log_size(k)) * noise.of_atom(k).shape
        Z[atoms == k] = Z[atoms == k] @ np.linalg.cholesky(covariance).T
    white = noise.whiten_rows(Z, metrics)
    for k in range(4):
        own = white[atoms == k]
        np.testing.assert_allclose(own.T @ own / len(own), np.eye(P), atol=0.15)
    np.testing.assert_allclose(noise.colour_rows(white, metrics), Z, atol=1e-12)


def test_a_row_without_an_atom_keeps_its_metric():
    support = np.array([[False] * 4, [True, False, False, False]])
    np.testing.assert_array_equal(example().metrics(support, np.array([2, 2])), [2, 1])


def test_arrays_and_parameters_are_all_that_there_is():
    noise = example()
    again = PerAtom.of(noise.arrays(), [own.kind for own in noise.noises], P)
    other = noise.at(noise.parameters())
    metrics = np.repeat([0, 1, 2], 20)
    for found in (again, other):
        assert found.rows_cost(metrics) == pytest.approx(noise.rows_cost(metrics), rel=1e-12)
        for k in range(4):
            np.testing.assert_allclose(found.of_atom(k).shape, noise.of_atom(k).shape, atol=1e-12)
            assert found.log_size(k) == pytest.approx(noise.log_size(k), abs=1e-12)
    np.testing.assert_array_equal(again.decoder_precisions(4), noise.decoder_precisions(4))


def test_one_group_costs_what_its_shape_costs():
    alike = PerAtom.alike(NOISES[0], 4)
    metrics = np.zeros(50, np.intp)
    assert alike.rows_cost(metrics) == pytest.approx(NOISES[0].cost(50), rel=1e-12)


@pytest.mark.parametrize("counts", [(30, 90), (200, 8), (15, 25, 60)])
def test_the_evidence_of_sizes(counts):
    """Against the integral over their prior on a grid, at the dispersion of the best sizes."""
    rng, G = np.random.default_rng(2), len(counts)
    squares = np.array([(np.exp(rng.normal(scale=0.4)) * rng.chisquare(n * P)) for n in counts])
    n = np.array(counts) * P
    logs = np.log(squares / n)
    sizes, phi = logs - logs.mean(), np.exp(logs.mean())

    def losses(d):
        return 0.5 * (n * d + squares * np.exp(-d) / phi).sum(axis=-1)

    basis = np.linalg.svd(np.ones((1, G)))[2][1:]
    line = np.linspace(-1.5, 1.5, 301 if G == 3 else 4001)
    away = np.stack(np.meshgrid(*[line] * (G - 1), indexing="ij"), -1).reshape(-1, G - 1)
    d = sizes + away @ basis
    log_prior = -0.5 * (d**2).sum(1) - 0.5 * (G - 1) * np.log(2.0 * np.pi)
    exact = -logsumexp(log_prior - losses(d)) - (G - 1) * np.log(line[1] - line[0])
    noise = PerAtom((Isotropic(P),) * G, sizes, np.ones(G), np.arange(G))
    found = losses(sizes) + noise.rows_cost(np.repeat(np.arange(G), counts))
    assert found == pytest.approx(exact, abs=0.05)
