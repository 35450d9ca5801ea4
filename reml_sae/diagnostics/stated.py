"""What a fit itself says of its errors: where rows are on an atom, and which atom they are on.

A decoder that few rows tell is uncertain along itself as well: the coordinates of neighbours are
then wrong alike, by more than the noise of one row moves it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from reml_sae.diagnostics.check import Check, Status
from reml_sae.diagnostics.places import place_grid
from reml_sae.engine import Theta
from reml_sae.models import SAEManifoldModel
from reml_sae.typing import Array

LOOSE = 0.5
"""Standard error of coordinates, in radians or standard deviations, that is warned of."""
MANY_MISTAKEN = 0.1
"""Share of rows that may be of another atom that is warned of."""
ALONE = 0.9
"""Mean share of a row's first atom from which rows of a mixture are taken to be on one each."""


def check_coordinates(
    model: SAEManifoldModel, variances: Array, k: int, rows: NDArray[np.intp]
) -> Check:
    """Root mean square standard error of the coordinates of some rows, gauge apart.

    Parameters
    ----------
    model : SAEManifoldModel
    variances : (N, q) array
        `row_variances` of the point.
    k : int
        The atom.
    rows : (n,) of those on it
    """
    atom = model.atoms[k]
    # along a normal of unit vectors the curvature is one
    along = variances[rows][:, model.coordinate_columns(k)].sum(axis=1)
    squares = (along - (atom.latent_dim - atom.intrinsic_dim)) / atom.intrinsic_dim
    error = float(np.sqrt(max(squares.mean(), 0.0)))
    return Check(f"atom {k} coordinates", "warn" if error > LOOSE else "pass", error,
                 "standard error of the coordinates of its rows, with that of the decoder, in "
                 "radians or standard deviations")


def rows_have_one_atom(model: SAEManifoldModel, assignments: Array) -> bool:
    """Whether each row is on one of several atoms, all of them with coordinates."""
    assignment = model.assignment
    alone = (float(assignments.max(axis=1).mean()) > ALONE if assignment.is_mixture
             else assignment.most_active == 1)
    return alone and len(model.atoms) > 1 and all(atom.latent_dim for atom in model.atoms)


def check_labels(
    model: SAEManifoldModel, theta: Theta, rho: Array, assignments: Array,
    rows: NDArray[np.intp],
) -> Check:
    """Expected share of some rows that are of another atom than the one they are on most.

    Coordinates are summed out on grids, amplitudes are those that an atom's rows have on average.
    """
    on = assignments.argmax(axis=1)
    counts = np.bincount(on, minlength=len(model.atoms))
    variance = model.family.dispersion(rho[model.outer.psi])
    X = model.rows(rows).working - (theta.beta[-1] if model.layout.has_intercept else 0.0)
    log_odds = np.full((len(rows), len(model.atoms)), -np.inf)
    for k in np.flatnonzero(counts).tolist():
        atom, decoder = model.atoms[k], theta.beta[model.layout.basis_slices[k]]
        grid = place_grid(atom)
        centre = model.assignment.whole_constants(decoder[0])
        curve = centre + assignments[on == k, k].mean() * (atom.basis(grid) @ decoder - centre)
        prior = -atom.prior_jet(grid, 0)[0]
        apart = (curve**2).sum(axis=1) - 2.0 * X @ curve.T
        log_odds[:, k] = (logsumexp(prior - 0.5 * apart / variance, axis=1) - logsumexp(prior)
                          + np.log(counts[k]))
    own = log_odds[np.arange(len(rows)), on[rows]] - logsumexp(log_odds, axis=1)
    share = float(1.0 - np.exp(own).mean())
    status: Status = "warn" if share > MANY_MISTAKEN else "pass"
    return Check("rows between atoms", status, share,
                 "expected share of rows that are of another atom than the one they are on")
