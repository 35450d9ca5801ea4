"""Angles of rows along one closed curve, by the Laplacian eigenmap of their neighbour graph.

The second and third eigenvectors of the Laplacian of a loop are its cosine and sine (Belkin and
Niyogi 2003), however the loop winds through space, while the main plane of a curve with many
harmonics may cross itself.
"""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

from reml_sae.relaxations.axes import sample_rows
from reml_sae.relaxations.graphs import walk_modes
from reml_sae.relaxations.policy import LoopPolicy
from reml_sae.typing import Array


def loop_angles(
    Z: Array, share: float, rng: np.random.Generator, policy: LoopPolicy
) -> Array | None:
    """Angles (N,) in [-pi, pi); None where there are too few rows for a graph.

    Parameters
    ----------
    Z : (N, r) array
    share : float
        Neighbours of a row, as a share of all rows.
    rng : numpy.random.Generator
        Chooses the rows of the graph where there are many; the others take their neighbour's
        angle.
    policy : LoopPolicy
    """
    if len(Z) < policy.least_rows or not Z.any():
        return None
    few = sample_rows(Z, policy.most_rows, rng)
    y = walk_modes(few, int(np.clip(share * len(few) - 1, 3, len(few) - 2)), 2)[1]
    y *= np.sign(y[np.abs(y).argmax(axis=0), [0, 1]])  # the same sign on every machine
    y = (y - y.mean(0)) / np.maximum(y.std(0), 1e-300)
    angles = np.arctan2(y[:, 0], y[:, 1])
    if len(few) < len(Z):
        nearest = NearestNeighbors(n_neighbors=1).fit(few).kneighbors(Z, return_distance=False)
        angles = angles[nearest[:, 0]]
    return np.where(angles >= np.pi, -np.pi, angles)
