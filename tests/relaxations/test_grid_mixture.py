"""The E step of the latent-grid mixture, whose exponentials are of single precision."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp

from reml_sae.manifolds import Circle, Sphere
from reml_sae.relaxations.grid_mixture import Grid, Moments, State, log_mixture
from reml_sae.relaxations.joint_mixture import JointGrid
from reml_sae.relaxations.policy import JointPolicy


def rows_of_two_atoms(sd, n=40, r=5):
    """Their grid, whose basis has two blocks, rows near it, and the state that they are from."""
    rng = np.random.default_rng(0)
    grid = JointGrid.of([Circle(2), Sphere(1)], JointPolicy(surface_points=60)).grid
    decoder = rng.normal(size=(grid.basis.shape[1], r))
    X = grid.basis[rng.integers(len(grid.basis), size=n)] @ decoder
    return grid, X + sd * rng.normal(size=X.shape), State(decoder, sd**2, 1.0)


@pytest.mark.parametrize("sd", [1e-3, 0.1, 1.0])
def test_the_evidence_is_that_of_double_precision(sd):
    grid, X, state = rows_of_two_atoms(sd)
    apart = ((X[:, None] - grid.basis @ state.decoder) ** 2).sum(axis=2)
    joint = grid.log_weight - 0.5 * apart / sd**2 - 0.5 * X.shape[1] * np.log(2 * np.pi * sd**2)
    mixing, total, value = log_mixture(X, grid, state)
    assert value == pytest.approx(-logsumexp(joint, axis=1).sum(), rel=1e-9, abs=1e-5)
    exact = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    np.testing.assert_allclose(mixing / total[:, None], exact, rtol=1e-5, atol=1e-7)


def test_what_rows_tell_is_exact_for_their_responsibilities():
    """They sum to one to rounding: where noise is small, what is left hangs on it."""
    grid, X, state = rows_of_two_atoms(0.1)
    mixing, total, _ = log_mixture(X, grid, state)
    R, found = mixing / total[:, None], Moments.of(X, grid, mixing, total)
    np.testing.assert_allclose(R.sum(axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(found.counts, R.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.right, grid.basis.T @ R.T @ X, atol=1e-12)
    np.testing.assert_allclose(found.gram, (grid.basis.T * R.sum(axis=0)) @ grid.basis, atol=1e-12)


def test_blocks_are_what_their_whole_is():
    grid, X, state = rows_of_two_atoms(0.3)
    whole: Grid = replace(grid, blocks=((slice(None), slice(None)),))
    assert len(grid.blocks) == 2
    for found, same in zip(log_mixture(X, grid, state), log_mixture(X, whole, state), strict=True):
        np.testing.assert_allclose(found, same, rtol=1e-5)
    counts = np.arange(1.0, len(grid.basis) + 1.0)
    np.testing.assert_allclose(grid.gram(counts), whole.gram(counts), atol=1e-9)
