"""Where rows may be on an atom, by their posterior on a grid of it with all else held.

A curve that comes back to where it was, or a surface that is folded or goes through itself, gives
rows two places (`check_places`).

A row of a mixture may have a share of an atom whose coordinate it does not carry. The model has the
mean of the curve in its place: V lacks what the coordinate would cost, which no row pays for, or
gain. On the grid the coordinate is integrated out (`left_out`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from reml_sae.diagnostics.check import Check, Status
from reml_sae.engine import Theta
from reml_sae.manifolds import Manifold
from reml_sae.models import SAEManifoldModel
from reml_sae.typing import Array

PLACES, PLACES_SURFACE = 400, 2500
"""Points of a curve and of a surface among which rows are placed."""
FAR, UNSURE = 1.0, 0.1
"""Distance, in radians or standard deviations, and probability of another place that counts."""
MANY_UNSURE, MOST_UNSURE = 0.05, 0.1
"""Share of the rows of an atom with such a place that is warned of, and that fails."""


def rows_are_gaussian(model: SAEManifoldModel) -> bool:
    """Whether all rows have one Gaussian noise, each by itself."""
    return (model.family.equal_weights and model.noise.n_metrics == 1
            and not model.couples_rows)


def place_grid(atom: Manifold) -> Array:
    """Coordinates (G, d) among which the places of rows are looked for."""
    return atom.grid(PLACES if atom.intrinsic_dim == 1 else PLACES_SURFACE)


def place_nats(
    model: SAEManifoldModel, theta: Theta, rho: Array, k: int, rows: NDArray[np.intp]
) -> Array:
    """Negative log posterior (n, G) of points on the grid of atom k, of some rows.

    All else of the rows is held; above the loss at the mean of the curve.
    """
    atom, where = model.atoms[k], model.layout.basis_slices[k]
    part, beta = model.rows(rows), theta.beta
    amplitudes, features = part.scaled_basis(Theta(theta.xi[rows], beta))
    features[:, where] = 0.0
    centre = model.assignment.whole_constants(beta[where.start])
    rest = part.working - features @ beta - centre
    grid = place_grid(atom)
    mean = atom.prior_mean_basis() @ beta[where] - centre
    curve = atom.basis(grid) @ beta[where] - centre
    own = amplitudes.a[:, k, None]
    squares = own**2 * ((curve**2).sum(axis=1) - mean @ mean) - 2.0 * own * (
        rest @ (curve - mean).T)
    variance = model.family.dispersion(rho[model.outer.psi])
    return np.asarray(0.5 * squares / variance + atom.prior_jet(grid, 0)[0])


def left_out(
    model: SAEManifoldModel, theta: Theta, rho: Array, rows: NDArray[np.intp]
) -> Array:
    """Nats (n,) that V lacks for the coordinates that some rows do not carry."""
    lacks = np.zeros(len(rows))
    for k, atom in enumerate(model.atoms):
        out = ~model.active[rows, k]
        if atom.latent_dim and out.any():
            prior = atom.prior_jet(place_grid(atom), 0)[0]
            lacks[out] += (logsumexp(-prior) - logsumexp(
                -place_nats(model, theta, rho, k, rows[out]), axis=1))
    return lacks


def check_places(k: int, atom: Manifold, nats: Array) -> Check:
    """Share of rows that may be somewhere else on the atom, by their posteriors (n, G) on its grid.

    Neither of the two coordinates is then known.
    """
    grid = place_grid(atom)
    weight = np.exp(nats.min(axis=1, keepdims=True) - nats)
    best = np.repeat(grid[nats.argmin(axis=1)], len(grid), axis=0)
    far = atom.distance(best, np.tile(grid, (len(nats), 1))).reshape(nats.shape) > FAR
    away = (weight * far).sum(axis=1) / weight.sum(axis=1)
    share = float((away > UNSURE).mean())
    status: Status = "fail" if share > MOST_UNSURE else "warn" if share > MANY_UNSURE else "pass"
    return Check(f"atom {k} places", status, share,
                 "share of rows that may as well be elsewhere on the atom: with a probability "
                 f"above {UNSURE:g} they are {FAR:g} or more, in radians or standard deviations, "
                 "from where they are likeliest")
