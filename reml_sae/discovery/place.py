"""Coordinates of rows on one atom of any topology, from their leading scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reml_sae.discovery.policy import SearchPolicy
from reml_sae.manifolds import Manifold
from reml_sae.relaxations.axes import leading_scores
from reml_sae.relaxations.latent_grid import latent_grid_starts, nearest_coordinates
from reml_sae.typing import Array


def place_everyone(
    own: Array, everyone: Array, rows: NDArray[np.intp], atom: Manifold,
    policy: SearchPolicy, rng: np.random.Generator,
) -> Array:
    """Coordinates (N, d) of all rows (N, r) from the scores (n, r) of those that use the atom.

    All are at one point where there are too few to tell a shape.
    """
    if len(rows) < policy.start.least_rows:
        return np.repeat(atom.grid(1)[:1], len(everyone), axis=0)
    best = latent_grid_starts(own, atom, 1, rng, policy.relaxation.grid)[0]
    coordinates = nearest_coordinates(everyone, atom, best.coefficients, policy.relaxation.grid)[0]
    coordinates[rows] = best.coordinates
    return coordinates


def place_rows(
    X: Array, atom: Manifold, policy: SearchPolicy, rng: np.random.Generator
) -> Array:
    """Coordinates (n, d) of rows (n, p) on one atom."""
    if len(X) < policy.start.least_rows:
        return np.repeat(atom.grid(1)[:1], len(X), axis=0)
    scores = leading_scores(X, atom.linear_dim + policy.start.extra_axes)[0]
    best = latent_grid_starts(scores, atom, 1, rng, policy.relaxation.grid)[0]
    return nearest_coordinates(scores, atom, best.coefficients, policy.relaxation.grid)[0]
