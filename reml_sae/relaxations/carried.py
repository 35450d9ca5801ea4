"""Coordinates of rows on one atom, carried on to a local optimum of the latent-grid mixture.

Between coordinates that were read off a plane or a graph and those of a fit, the joint objective of
rows and decoder curves downwards in many directions, and Newton's method strays. The mixture has
integrated the coordinates out: its EM goes straight down at a small part of the work, and the
evidence at its end ranks where the starts lead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reml_sae.linalg import single_threaded
from reml_sae.manifolds import Manifold
from reml_sae.relaxations.axes import TINY
from reml_sae.relaxations.grid_mixture import (
    FLOOR,
    Grid,
    Moments,
    State,
    anneal,
    decoder_evidence,
    fit_decoder,
    make_grid,
    responsibilities,
)
from reml_sae.relaxations.policy import GridPolicy
from reml_sae.typing import Array

STRENGTH = 1.0
"""Of the roughness at first; it then follows by Fellner-Schall."""


@single_threaded
def carried_on(
    X: Array, atom: Manifold, starts: Sequence[Array], policy: GridPolicy, within: float
) -> list[Array]:
    """Where coordinates of rows lead, the best first and no two alike.

    Parameters
    ----------
    X : (n, r) array
        Rows about their mean.
    atom : Manifold
    starts : sequence of (n, d) arrays
    policy : GridPolicy
    within : float
        Nats of log evidence by which an end may be behind the best.

    Returns
    -------
    list of (n, d) arrays
        On a grid; the starts as they are where rows are equal.
    """
    unit = float(np.sqrt((X**2).sum(axis=1).mean())) if X.size else 0.0
    if not unit > TINY:
        return list(starts)
    grid, Y = make_grid(atom, policy.coarse_grid), X / unit
    ends = sorted((_end(Y, atom, grid, t, policy) for t in starts), key=lambda end: end[0])
    kept: list[tuple[float, Array, Array]] = []
    for value, t, curve in ends:
        near = policy.same * float(((Y - curve) ** 2).sum())
        if value < ends[0][0] + within and all(
                ((curve - other) ** 2).sum() > near for _, _, other in kept):
            kept.append((value, t, curve))
    return [t for _, t, _ in kept]


def _end(
    Y: Array, atom: Manifold, grid: Grid, t: Array, policy: GridPolicy
) -> tuple[float, Array, Array]:
    """Negative log evidence, coordinates and reconstruction (n, r) where EM ends."""
    basis, n = atom.basis(t), len(Y)
    known = Moments(basis.T @ basis, basis.T @ Y, float((Y**2).sum()))
    # a decoder of least squares, up to rounding
    decoder, squares, _ = fit_decoder(known, grid, FLOOR, STRENGTH)
    state = anneal(Y, grid, State(decoder, max(squares / Y.size, FLOOR), STRENGTH))
    R, value = responsibilities(Y, grid, state)
    gram = Moments.of(Y, grid, R, np.ones(n)).gram
    return (value + decoder_evidence(gram, grid, state), grid.points[R.argmax(axis=1)],
            R @ grid.basis @ state.decoder)
