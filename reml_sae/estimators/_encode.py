"""Codes of rows under fixed decoders: the search over each row's local minima.

The fit and `transform` share this code. Every row tries the best point of the best few atoms, found
on a grid, as a nearly pure and as a mixed assignment, refines each candidate with the exact row
Newton steps of the inner solve, and keeps the one with the best row evidence, the Laplace
approximation of -log p(z_i | B):

    v_i = f_i + (1/2) log|D_i| - (q_i / 2) log 2 pi + log C_i

which is comparable between candidates that carry different coordinates, while f_i is not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reml_sae.models import SAEManifoldModel, Theta

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
UNSOUND = 1e6
"""Added to the evidence of a row that flickers between active sets: its last resort."""


def active_set(model: SAEManifoldModel, theta: Theta, rho: Array) -> Mask:
    """Which coordinates each row carries, (N, K): its first atom's, and all that it can resolve."""
    logits = model.chart.logits(theta.xi[:, : model.chart.dim])
    a = np.exp(model.chart.log_assignments(logits))
    information = a**2 * squared_speeds(model, theta.beta) * np.exp(-rho[-1])
    active = information > INFORMATION
    first = np.arange(len(a)), a.argmax(1)
    active[first] = information[first] > LEAST_INFORMATION
    return active


def squared_speeds(model: SAEManifoldModel, beta: Array) -> Array:
    """Mean squared length of the smallest tangent of each atom's curve, (K,)."""
    speeds = np.empty(len(model.atoms))
    for k, atom in enumerate(model.atoms):
        slope = atom.jet(atom.grid(GRID), 1)[1] @ beta[model.layout.basis_slices[k]]
        metric = np.einsum("gdp,gep->de", slope, slope) / len(slope)
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
    n, n_atoms = model.active.shape
    best_value = np.full(n, np.inf)
    best_xi = theta.xi.copy()
    best_active = model.active.copy()
    moved = np.zeros(n, bool)
    if search_from_state:
        best_value = row_evidence(model, theta, rho)
    labels, nearest = _grid_candidates(model, theta)
    candidates = [(labels[:, j], HARD_SHARE) for j in range(labels.shape[1])]
    if n_atoms > 1:
        candidates.append((labels[:, 0], SOFT_SHARE))
    for label, share in candidates:
        active = np.zeros((n, n_atoms), bool)
        active[np.arange(n), label] = True
        xi = np.concatenate([hard_logits(model, label, share), nearest], axis=1)
        trial, trial_model, sound = _settle(model, Theta(xi, theta.beta), rho, active)
        value = row_evidence(trial_model, trial, rho) + np.where(sound, 0.0, UNSOUND)
        better = value < best_value - IMPROVEMENT * (1.0 + np.abs(value))
        best_value = np.where(better, value, best_value)
        best_xi[better] = trial.xi[better]
        best_active[better] = trial_model.active[better]
        moved |= better
    return Theta(best_xi, theta.beta), best_active, moved


def _settle(
    model: SAEManifoldModel, theta: Theta, rho: Array, active: Mask
) -> tuple[Theta, SAEManifoldModel, Mask]:
    """Refine rows to a minimum, letting the active set follow the assignments once.

    The last return value says which rows ended with the active set that their state calls for;
    the evidence of the others is not a number to compare.
    """
    trial_model = model.with_state(theta, rho, active)
    theta = trial_model.refine_rows(theta, rho, ENCODE_SWEEPS)
    settled = active_set(trial_model, theta, rho)
    if (settled != active).any():
        trial_model = model.with_state(theta, rho, settled)
        theta = trial_model.refine_rows(theta, rho, ENCODE_SWEEPS)
    return theta, trial_model, (active_set(trial_model, theta, rho) == settled).all(1)


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
        squares = np.einsum("gp,gp->g", points, points) - 2.0 * model.Z @ points.T
        index = squares.argmin(1)
        distance[:, k] = squares[np.arange(n), index]
        nearest[:, model.layout.coordinate_slices[k]] = grid[index]
    order = np.argsort(distance, axis=1, kind="stable")[:, :N_CANDIDATES]
    return order, nearest
