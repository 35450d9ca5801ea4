"""What a topology that others wrote answers, asked before a fit."""

from __future__ import annotations

import numpy as np

from reml_sae.answers import Asked
from reml_sae.manifolds._base import Manifold

POINTS = 50
STEP = 0.1


def check_answers(manifold: Manifold) -> None:
    """Ask a topology for all that a fit asks it, at points of its grid.

    Raises
    ------
    InputError
        Naming the topology and the method, where it raises, has another shape or is not finite.
    """
    asked = Asked(manifold, manifold.name,
                  "reml_sae.manifolds.check_manifold compares it with what is asked for")
    d, size = manifold.latent_dim, manifold.basis_size
    grid = asked.answer("grid", POINTS)
    n = len(grid) if np.ndim(grid) else 0
    t = asked.finite("grid", (n, d), grid)
    asked.arrays("jet", [(n, *(d,) * order, size) for order in range(4)], t, 3)
    asked.arrays("prior_jet", [(n, *(d,) * order) for order in range(4)], t, 3)
    if asked.answer("roughness") is not None:
        asked.array("roughness", (size, size))
    asked.array("log_prior_volume", ())
    asked.array("prior_mean_basis", (size,))
    moved = asked.array("retract", (n, d), t, np.full((n, d), STEP))
    asked.array("distance", (n,), t, moved)
    count = len(asked.answer("gauge_generators"))
    asked.array("gauge_generators", (count, size, size))
    asked.array("gauge_field", (count, n, d), t)
    asked.array("gauge_move", (n, d), t, np.full(count, STEP))
    points = asked.array("ambient", (n, len(manifold.ambient_names)), t)
    asked.array("from_ambient", (n, d), points)
