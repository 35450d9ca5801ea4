"""Where rows may be on an atom, by their posterior on a grid of it with all else held.

A curve that comes back to where it was, or a surface that is folded or goes through itself, gives
rows two places (`check_places`). A fit has placed its own rows where that tells them best, so few
of them may lie where such a surface meets itself; rows that are drawn from it lie there as often
as any (`drawn_nats`).

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
DRAWN = 400
"""Count of rows that are drawn."""


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
    return _nats(atom, grid, rest, amplitudes.a[:, k, None], curve, mean,
                 model.family.dispersion(rho[model.outer.psi]))


def drawn_nats(
    model: SAEManifoldModel, theta: Theta, rho: Array, k: int, rows: NDArray[np.intp],
    rng: np.random.Generator,
) -> Array:
    """The same of rows that are drawn from the prior of atom k and the noise.

    From that part of the grid that is near some of its rows: no data tell the decoder elsewhere.
    """
    atom, where = model.atoms[k], model.layout.basis_slices[k]
    grid, beta = place_grid(atom), theta.beta
    own = float(np.mean(model.amplitudes(theta).a[rows, k]))
    curve = own * (atom.basis(grid) @ beta[where]
                   - model.assignment.whole_constants(beta[where.start]))
    variance = model.family.dispersion(rho[model.outer.psi])
    log_odds = -atom.prior_jet(grid, 0)[0]
    places = theta.xi[rows][:, model.coordinate_columns(k)]
    near = np.min([_distances(atom, t, grid) for t in places], axis=0) < FAR
    odds = near * np.exp(log_odds - log_odds.max())
    drawn = curve[rng.choice(len(grid), DRAWN, p=odds / odds.sum())]
    drawn = drawn + np.sqrt(variance) * rng.standard_normal(drawn.shape)
    return _nats(atom, grid, drawn, 1.0, curve, np.zeros(curve.shape[1]), variance)


def _nats(
    atom: Manifold, grid: Array, rest: Array, own: Array | float, curve: Array, mean: Array,
    variance: float,
) -> Array:
    """Negative log posterior (n, G) of what rows have of an atom, above the loss at its mean."""
    squares = own**2 * ((curve**2).sum(axis=1) - mean @ mean) - 2.0 * own * (
        rest @ (curve - mean).T)
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


def check_places(k: int, atom: Manifold, nats: Array, drawn: Array) -> Check:
    """Share of rows that may be somewhere else on the atom, by their posteriors (n, G) on its grid.

    Neither of the two coordinates is then known. Of the atom's rows or of drawn ones, whichever
    share is larger.
    """
    share = max(_unsure(atom, nats), _unsure(atom, drawn))
    status: Status = "fail" if share > MOST_UNSURE else "warn" if share > MANY_UNSURE else "pass"
    return Check(f"atom {k} places", status, share,
                 "share of rows, or of others drawn from the atom, that may as well be elsewhere "
                 f"on it: with a probability above {UNSURE:g} they are {FAR:g} or more, in radians "
                 "or standard deviations, from where they are likeliest")


def _distances(atom: Manifold, point: Array, grid: Array) -> Array:
    """Of the points (G, d) of a grid from one (d,)."""
    return atom.distance(np.broadcast_to(point, grid.shape), grid)


def _unsure(atom: Manifold, nats: Array) -> float:
    grid = place_grid(atom)
    weight = np.exp(nats.min(axis=1, keepdims=True) - nats)
    best, which = np.unique(nats.argmin(axis=1), return_inverse=True)
    away = np.empty(len(nats))
    for number, point in enumerate(grid[best]):
        away[which == number] = weight[which == number] @ (_distances(atom, point, grid) > FAR)
    away /= weight.sum(axis=1)
    return float((away > UNSURE).mean())
