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
FREE = 1e-8
"""Least share of a row's own noise that its residual has, where nothing else tells the curve."""
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
    Decoders follow the rows that they are given, so every row is judged by decoders that have not
    seen it, with what the other rows leave uncertain of them.
    """
    on = assignments.argmax(axis=1)
    counts = np.bincount(on, minlength=len(model.atoms))
    X = model.rows(rows).working - (theta.beta[-1] if model.layout.has_intercept else 0.0)
    priors = model.joint_at(theta, rho).decoder_prior.curvature_grams
    log_odds = np.full((len(rows), len(model.atoms)), -np.inf)
    for k in np.flatnonzero(counts).tolist():
        own = np.flatnonzero(on == k)
        atom = AtomRegression(model, theta, rho, k, own, assignments[own, k], priors[k])
        others = np.maximum(counts[k] - (on[rows] == k), 0.5)  # half a row where it is alone
        log_odds[:, k] = atom.log_evidence(rows, X) + np.log(others)
    named = log_odds[np.arange(len(rows)), on[rows]] - logsumexp(log_odds, axis=1)
    share = float(1.0 - np.exp(named).mean())
    status: Status = "warn" if share > MANY_MISTAKEN else "pass"
    return Check("rows between atoms", status, share,
                 "expected share of rows that are of another atom than the one they are on")


class AtomRegression:
    """An atom as a ridge regression on the codes of its rows, which predicts every row anew.

    Parameters
    ----------
    model, theta, rho
    k : int
        The atom.
    own : (n,) of the rows on it
    amplitude : (n,) array
        Of these rows.
    prior : (M_k, M_k) array
        Curvature of the penalties of its decoder.
    """

    def __init__(self, model: SAEManifoldModel, theta: Theta, rho: Array, k: int,
                 own: NDArray[np.intp], amplitude: Array, prior: Array) -> None:
        atom, self._decoder = model.atoms[k], theta.beta[model.layout.basis_slices[k]]
        self._own, grid = own, place_grid(atom)
        self._variance = model.family.dispersion(rho[model.outer.psi])
        centre = model.assignment.centres(np.ones((1, 1), bool))

        def features(t: Array, a: Array) -> Array:
            out = a * atom.basis(t)
            if centre is not None:
                out[:, 0] = centre[0, 0]
            return out

        at_rows = features(theta.xi[own][:, model.coordinate_columns(k)], amplitude[:, None])
        at_nodes = features(grid, amplitude.mean())
        # directions that neither rows nor penalties tell are left out
        self._covariance = np.linalg.pinv(at_rows.T @ at_rows + self._variance * prior,
                                          hermitian=True)
        self._at_rows, self._at_nodes = at_rows, at_nodes
        self._log_prior = -atom.prior_jet(grid, 0)[0]

    def log_evidence(self, rows: NDArray[np.intp], X: Array) -> Array:
        """Log density (n,) of rows, coordinates summed out, its own rows each left out of the atom.

        Of rows by number, (n,), with their values (n, p) less the intercept.
        Leaving row i out moves the curve at t by -c(t, t_i) r_i / (1 - c(t_i, t_i)) and adds
        c(t, t_i)^2 / (1 - c(t_i, t_i)) to its variance c(t, t), both in units of the noise.
        """
        nodes, p = self._at_nodes @ self._decoder, X.shape[1]
        apart = (X**2).sum(axis=1)[:, None] - 2.0 * X @ nodes.T + (nodes**2).sum(axis=1)
        pulled = self._at_nodes @ self._covariance
        spread = np.tile(1.0 + (pulled * self._at_nodes).sum(axis=1), (len(rows), 1))
        _, at, which = np.intersect1d(rows, self._own, return_indices=True)
        at_rows = self._at_rows[which]
        between, residual = at_rows @ pulled.T, X[at] - at_rows @ self._decoder
        leverage = (at_rows @ self._covariance * at_rows).sum(axis=1)
        moved = between / np.maximum(1.0 - leverage, FREE)[:, None]
        along = (X[at] * residual).sum(axis=1)[:, None] - residual @ nodes.T
        apart[at] += 2.0 * moved * along + moved**2 * (residual**2).sum(axis=1)[:, None]
        spread[at] += moved * between
        density = -0.5 * (apart / (self._variance * spread) + p * np.log(spread))
        return np.asarray(logsumexp(self._log_prior + density, axis=1)
                          - logsumexp(self._log_prior))
