"""Modes of walks between neighbouring rows."""

import numpy as np
import pytest
from sklearn.manifold import SpectralEmbedding
from sklearn.neighbors import NearestNeighbors

from reml_sae.relaxations.graphs import walk_modes


@pytest.mark.parametrize("seed", range(3))
def test_modes_are_eigenvectors_of_the_walk(seed):
    X = np.random.default_rng(seed).normal(size=(60, 3))
    near = NearestNeighbors(n_neighbors=7).fit(X).kneighbors_graph().toarray()
    W = near + near.T
    walk = W / W.sum(axis=1, keepdims=True)
    values, modes = walk_modes(X, 7, 4)
    np.testing.assert_allclose(walk @ modes, modes * values, atol=1e-10)
    np.testing.assert_allclose(values, np.sort(np.linalg.eigvals(walk).real)[-5:-1], atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_modes_are_the_laplacian_eigenmap(seed):
    """That of scikit-learn, whose count of neighbours has the row itself."""
    X = np.random.default_rng(seed).normal(size=(80, 3))
    embedded = SpectralEmbedding(2, affinity="nearest_neighbors", n_neighbors=9, random_state=0,
                                 eigen_solver="arpack").fit_transform(X)[:, ::-1]
    modes = walk_modes(X, 8, 2)[1]
    ratio = embedded / modes
    np.testing.assert_allclose(ratio, np.broadcast_to(np.median(ratio, axis=0), ratio.shape),
                               rtol=1e-5)
