"""Codes of rows under fixed decoders: the search over each row's local minima.

The fit and `transform` share this code. Every row tries the best point of the best few atoms, found
on a grid, and a mixture of the two atoms that it points along most. It refines each candidate with
the exact row Newton steps of the inner solve, and keeps the one with the best row evidence, the
Laplace approximation of -log p(z_i | B):

    v_i = f_i + (1/2) log|D_i| - (q_i / 2) log 2 pi + log C_i

which is comparable between candidates that carry different coordinates, while f_i is not.

Where a penalty couples the rows they are encoded without it first, and then solved together with
it; the present codes are kept unless the result has a lower objective as a whole.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import ConvergenceWarning
from reml_sae.inner import solve_inner
from reml_sae.models import FixedDecoders, SAEManifoldModel, Theta, column_weights

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

INFORMATION = 25.0
"""A second atom's coordinate is carried where its expected information is above this (nats/rad^2):
a posterior standard deviation below 0.2, where a Gaussian approximation is good."""
LEAST_INFORMATION = 1e-6
"""Below it a row's own atom is a point, which has no coordinate."""
N_CANDIDATES = 3
GRID = 64
ENCODE_SWEEPS = 60
HARD_SHARE, SOFT_SHARE = 0.95, 0.7
"""Shares of the first atom from which a row is refined; they can lead to different minima."""
IMPROVEMENT = 1e-6
TOGETHER_TOL = 1e-8
UNSOUND, SLACK = 1e6, 4.0
"""Added to the evidence of a row whose active set is not, within a factor, the one that its state
calls for: its last resort."""


def active_set(model: SAEManifoldModel, theta: Theta, rho: Array) -> Mask:
    """Which coordinates each row carries, (N, K).

    Its first atom's, all that it can resolve, and those that a penalty couples between rows.
    """
    a, information = _information(model, theta, rho)
    active = information > INFORMATION
    first = np.arange(len(a)), a.argmax(1)
    active[first] = information[first] > LEAST_INFORMATION
    return active | model.always_carried


def _information(model: SAEManifoldModel, theta: Theta, rho: Array) -> tuple[Array, Array]:
    """Assignments (N, K) and the expected information (N, K) on every atom's coordinate."""
    logits = model.chart.logits(theta.xi[:, : model.chart.dim])
    a = np.exp(model.chart.log_assignments(logits))
    return a, a**2 * squared_speeds(model, theta.beta, column_weights(model, theta, rho))


def squared_speeds(model: SAEManifoldModel, beta: Array, weights: Array) -> Array:
    """Mean squared length of the smallest tangent of each atom's curve, (K,).

    Lengths are in the metric diag(weights), (p,).
    """
    speeds = np.empty(len(model.atoms))
    for k, atom in enumerate(model.atoms):
        slope = atom.jet(atom.grid(GRID), 1)[1] @ beta[model.layout.basis_slices[k]]
        metric = np.einsum("gdp,gep->de", slope * weights, slope) / len(slope)
        speeds[k] = np.linalg.eigvalsh(metric)[0]
    return speeds


def hard_logits(
    model: SAEManifoldModel, labels: NDArray[np.intp], share: float = HARD_SHARE
) -> Array:
    """Chart coordinates (N, K - 1) of rows that belong to one atom with this share."""
    k = model.chart.n_atoms
    if k == 1:
        return np.zeros((len(labels), 0))
    a = np.full((len(labels), k), (1.0 - share) / (k - 1))
    a[np.arange(len(labels)), labels] = share
    return model.chart.coordinates(model.chart.temperature * np.log(a))


def row_evidence(model: SAEManifoldModel, theta: Theta, rho: Array) -> Array:
    """Laplace approximation of -log p(z_i | B), (N,), up to constants shared by all rows.

    Infinite where a row's curvature is not positive definite, so that it is not at a mode.
    """
    value = model.row_objective(theta, rho)
    sign, logdet = np.linalg.slogdet(model.at(theta, rho).row_hessian("majorizer"))
    value = value + np.where(sign > 0, 0.5 * logdet, np.inf)
    carried = model.active_coordinates.sum(1)
    value -= 0.5 * np.log(2.0 * np.pi) * carried
    priors = np.array([atom.log_prior_volume() for atom in model.atoms])
    return value + model.active @ priors


def encode(
    model: SAEManifoldModel, theta: Theta, rho: Array, *, search_from_state: bool
) -> tuple[Theta, Mask, NDArray[np.bool_]]:
    """Best row parameters under fixed decoders.

    Parameters
    ----------
    model : SAEManifoldModel
        Its data are the rows to encode.
    theta : Theta
        Holds the decoders and, where ``search_from_state``, the present codes.
    rho : (n_rho,) array
    search_from_state : bool
        Whether the present codes are a candidate; a row is then moved only where another
        candidate is better by more than rounding.

    Returns
    -------
    theta : Theta
    active : (N, K) bool
    moved : (N,) bool
    """
    if model.couples_rows:
        return _encode_together(model, theta, rho, search_from_state)
    n, n_atoms = model.active.shape
    best_value = np.full(n, np.inf)
    best_xi = theta.xi.copy()
    best_active = model.active.copy()
    moved = np.zeros(n, bool)
    if search_from_state:
        best_value = row_evidence(model, theta, rho)
    labels, nearest = _grid_candidates(model, theta)
    candidates = [(labels[:, [j]], HARD_SHARE, nearest) for j in range(labels.shape[1])]
    if n_atoms > 1:
        pairs, aligned = _mixed_candidates(model, theta)
        candidates += [(labels[:, [0]], SOFT_SHARE, nearest), (pairs, SOFT_SHARE, aligned)]
    for chosen, share, coordinates in candidates:
        active = np.zeros((n, n_atoms), bool)
        np.put_along_axis(active, chosen, True, axis=1)
        xi = np.concatenate([hard_logits(model, chosen[:, 0], share), coordinates], axis=1)
        trial, trial_model, sound = _settle(model, Theta(xi, theta.beta), rho, active)
        value = row_evidence(trial_model, trial, rho) + np.where(sound, 0.0, UNSOUND)
        better = value < best_value - IMPROVEMENT * (1.0 + np.abs(value))
        best_value = np.where(better, value, best_value)
        best_xi[better] = trial.xi[better]
        best_active[better] = trial_model.active[better]
        moved |= better
    return Theta(best_xi, theta.beta), best_active, moved


def _encode_together(
    model: SAEManifoldModel, theta: Theta, rho: Array, search_from_state: bool
) -> tuple[Theta, Mask, NDArray[np.bool_]]:
    alone, own = model.uncoupled(rho)
    start, active, _ = encode(alone, theta, own, search_from_state=False)
    together = model.with_state(start, rho, active)
    solution = solve_inner(FixedDecoders(together), rho, tol=TOGETHER_TOL)
    if search_from_state:
        present = model.objective(theta, rho)
        if solution.point.objective > present - IMPROVEMENT * (1.0 + abs(present)):
            return theta, model.active, np.zeros(len(model.Z), bool)
    elif not solution.converged:
        warnings.warn(
            f"the joint encoding of rows that a penalty couples stopped early: "
            f"{solution.status.value}", ConvergenceWarning, stacklevel=2)
    return solution.theta, together.active, np.ones(len(model.Z), bool)


def _settle(
    model: SAEManifoldModel, theta: Theta, rho: Array, active: Mask
) -> tuple[Theta, SAEManifoldModel, Mask]:
    """Refine rows to a minimum, letting the active set follow the assignments once.

    The last return value says which rows ended with an active set that their state supports; the
    evidence of the others is not a number to compare.
    """
    trial_model = model.with_state(theta, rho, active)
    theta = trial_model.refine_rows(theta, rho, ENCODE_SWEEPS)
    settled = active_set(trial_model, theta, rho)
    if (settled != active).any():
        trial_model = model.with_state(theta, rho, settled)
        theta = trial_model.refine_rows(theta, rho, ENCODE_SWEEPS)
    a, information = _information(trial_model, theta, rho)
    sound = np.where(settled, information > INFORMATION / SLACK, information < INFORMATION * SLACK)
    sound[np.arange(len(a)), a.argmax(1)] = True
    return theta, trial_model, np.asarray(sound.all(axis=1))


def _grid_candidates(
    model: SAEManifoldModel, theta: Theta
) -> tuple[NDArray[np.intp], Array]:
    """Labels (N, C) of the nearest atoms, and coordinates (N, D) of the nearest grid points."""
    n = len(model.Z)
    distance = np.empty((n, len(model.atoms)))
    nearest = np.empty((n, model.layout.n_coordinates))
    for k, atom in enumerate(model.atoms):
        grid = atom.grid(GRID)
        points = atom.basis(grid) @ theta.beta[model.layout.basis_slices[k]]
        squares = np.einsum("gp,gp->g", points, points) - 2.0 * model.working @ points.T
        index = squares.argmin(1)
        distance[:, k] = squares[np.arange(n), index]
        nearest[:, model.layout.coordinate_slices[k]] = grid[index]
    order = np.argsort(distance, axis=1, kind="stable")[:, :N_CANDIDATES]
    return order, nearest


def _mixed_candidates(
    model: SAEManifoldModel, theta: Theta
) -> tuple[NDArray[np.intp], Array]:
    """The two atoms (N, 2) that a row points along most, and coordinates (N, D) by direction.

    A row that mixes atoms lies inside all of them, so the nearest point of a curve says little;
    the direction of the row, seen from the atom's centre, says where on the curve it is.
    """
    n = len(model.Z)
    along = np.empty((n, len(model.atoms)))
    aligned = np.empty((n, model.layout.n_coordinates))
    for k, atom in enumerate(model.atoms):
        grid = atom.grid(GRID)
        b = theta.beta[model.layout.basis_slices[k]]
        spokes = (atom.basis(grid) - atom.prior_mean_basis()) @ b
        length = np.sqrt(np.einsum("gp,gp->g", spokes, spokes))
        reach = model.working @ (spokes / np.maximum(length, 1e-300)[:, None]).T
        index = reach.argmax(1)
        along[:, k] = reach[np.arange(n), index]
        aligned[:, model.layout.coordinate_slices[k]] = grid[index]
    return np.argsort(-along, axis=1, kind="stable")[:, :2], aligned
