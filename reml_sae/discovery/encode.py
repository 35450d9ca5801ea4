"""Codes of rows under fixed decoders: the search over each row's local minima.

The fit and `transform` share this code. On the simplex every row tries the best point of the best
few atoms, found on a grid, and a mixture of the two atoms that it points along most; elsewhere it
tries what matching pursuit finds. It refines each candidate with the exact row Newton steps of the
inner solve, and keeps the one with the best row evidence, the Laplace approximation of
-log p(z_i | B):

    v_i = f_i + (1/2) log|D_i| - (q_i / 2) log 2 pi + log C_i

which is comparable between candidates that carry different coordinates, while f_i is not.

Where a penalty couples the rows they are encoded without it first, and then solved together with
it; the present codes are kept unless the result has a lower objective as a whole.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from reml_sae.discovery.codes import Candidate, hard_shares
from reml_sae.discovery.policy import EncodePolicy
from reml_sae.discovery.pursuit import atom_grid, pursue
from reml_sae.engine import Theta, solve_inner
from reml_sae.errors import ConvergenceWarning
from reml_sae.models import FixedDecoders, SAEManifoldModel
from reml_sae.models.sae.rows import row_evidence
from reml_sae.models.sae.start import column_weights
from reml_sae.typing import Array, Index, Mask

IMPROVEMENT = 1e-6
"""Relative decrease of the evidence that is more than rounding."""
SAME_CODE = 1e-7
"""Assignments, and radians or prior standard deviations, within which two codes are the same."""
ARRIVED = 1e-4
"""The same, within which a candidate that is being refined has come to the best code so far."""
SAME_ROW = 1e-12
"""Distance, relative to its length, within which a row is a training row."""
TOGETHER_TOL = 1e-8
UNSOUND = 1e6
"""Added to the evidence of a row whose active set is not, within a factor, the one that its state
calls for: its last resort."""


def active_set(
    model: SAEManifoldModel, theta: Theta, rho: Array, policy: EncodePolicy
) -> Mask:
    """Which coordinates each row carries, (N, K).

    All that it can resolve, those that a penalty couples between rows, and on the simplex its first
    atom's. A hard support stays as it is.
    """
    if model.assignment.chooses_support:
        return model.active
    a, information = _information(model, theta, rho, policy)
    active = information > policy.information
    active |= model.assignment.leading(a) & (information > policy.least_information)
    return active | model.always_carried


def _information(
    model: SAEManifoldModel, theta: Theta, rho: Array, policy: EncodePolicy
) -> tuple[Array, Array]:
    """Assignments (N, K) and the expected information (N, K) on every atom's coordinate."""
    a = model.assignment.amplitudes(model.logits(theta), model.is_open).a
    speeds = squared_speeds(model, theta.beta, column_weights(model, theta, rho), policy)
    return a, a**2 * speeds


def squared_speeds(
    model: SAEManifoldModel, beta: Array, weights: Array, policy: EncodePolicy
) -> Array:
    """Mean squared length of the smallest tangent of each atom's curve, (K,).

    Lengths are in the metric diag(weights), (p,).
    """
    speeds = np.empty(len(model.atoms))
    for k, atom in enumerate(model.atoms):
        slope = atom.jet(atom_grid(atom, policy), 1)[1] @ beta[model.layout.basis_slices[k]]
        metric = np.einsum("gdp,gep->de", slope * weights, slope) / len(slope)
        speeds[k] = np.linalg.eigvalsh(metric)[0] if len(metric) else np.finfo(float).max
    return speeds


@dataclass(frozen=True)
class Remembered:
    """Training rows whose codes a search from nothing does not find; they keep them.

    Attributes
    ----------
    Z : (m, p) array
        Standardised rows, all in the first metric of the noise.
    xi : (m, q) array
        Their codes.
    active : (m, K) bool
    """

    Z: Array
    xi: Array
    active: Mask

    def start(self, Z: Array) -> tuple[Array, Mask, Mask]:
        """Codes of the nearest remembered row of each row, and whether it is that row."""
        apart, nearest = (found[:, 0] for found in NearestNeighbors(n_neighbors=1).fit(
            self.Z).kneighbors(Z))
        same = apart <= SAME_ROW * np.linalg.norm(Z, axis=1)
        return self.xi[nearest], self.active[nearest], same


def remember(
    model: SAEManifoldModel, theta: Theta, rho: Array, policy: EncodePolicy, *, stopped: bool
) -> Remembered:
    """Find the rows of a fit that `encode` must remember, so that it gives every row its code.

    All of them where the fit was ``stopped``: to look which can be found takes a search, for which
    there is no time.
    """
    lost = np.arange(len(model.Z)) if stopped else _lost(model, theta, rho, policy)
    if model.couples_rows:
        lost = lost[:0]
    Z = model.rows(lost).in_metric(0).Z if len(lost) else model.Z[:0]
    return Remembered(Z, theta.xi[lost], model.active[lost])


def _lost(model: SAEManifoldModel, theta: Theta, rho: Array, policy: EncodePolicy) -> Index:
    """Rows to which a search from nothing gives another code than they have."""
    found, active, _ = encode(model, theta, rho, policy, search_from_state=False)
    return np.flatnonzero(~_alike(model, theta, found, active, SAME_CODE))


def _alike(
    model: SAEManifoldModel, theta: Theta, found: Theta, active: Mask, within: float
) -> NDArray[np.bool_]:
    """Which rows (N,) have in another state, with other active sets, the codes of the model's."""
    carries = [atom.latent_dim > 0 for atom in model.atoms]
    same = (active == model.active)[:, carries].all(axis=1)
    apart = np.abs(model.assignment.amplitudes(model.logits(theta), model.is_open).a
                   - model.assignment.amplitudes(model.logits(found), model.is_open).a)
    same &= apart.max(axis=1) <= within
    for k, atom in enumerate(model.atoms):
        rows, where = np.flatnonzero(same & model.active[:, k]), model.coordinate_columns(k)
        same[rows] = atom.distance(theta.xi[rows, where], found.xi[rows, where]) <= within
    return np.asarray(same)


def encode(
    model: SAEManifoldModel, theta: Theta, rho: Array, policy: EncodePolicy, *,
    search_from_state: bool, remembered: Remembered | None = None,
) -> tuple[Theta, Mask, NDArray[np.bool_]]:
    """Best row parameters under fixed decoders.

    Parameters
    ----------
    model : SAEManifoldModel
        Its data are the rows to encode.
    theta : Theta
        Holds the decoders and, where ``search_from_state``, the present codes.
    rho : (n_rho,) array
    policy : EncodePolicy
    search_from_state : bool
        Whether the present codes are a candidate; a row is then moved only where another
        candidate is better by more than rounding.
    remembered : Remembered, optional
        Codes that are tried first.

    Returns
    -------
    theta : Theta
    active : (N, K) bool
    moved : (N,) bool
    """
    if model.couples_rows:
        return _encode_together(model, theta, rho, policy, search_from_state)
    n = len(model.active)
    model = model.with_held_counts()
    best_value = np.full(n, np.inf)
    best_xi = theta.xi.copy()
    best_active = model.active.copy()
    moved = np.zeros(n, bool)
    if search_from_state:
        best_value = row_evidence(model, theta, rho)
    find = _simplex_candidates if model.assignment.is_mixture else pursue
    starts = [(np.concatenate([model.assignment.start(found.support, found.amplitudes),
                               found.coordinates], axis=1), found.support)
              for found in find(model, theta, rho, policy)]
    if remembered is not None and len(remembered.Z):
        xi, support, kept = remembered.start(model.in_metric(0).Z)
        starts.insert(0, (xi, support))
        # a fit may end where another code of a row has come to be better
        best_value[kept], best_xi[kept], best_active[kept] = -np.inf, xi[kept], support[kept]
    for rough, reached in _screened(model, theta, rho, starts, policy):
        xi, support = rough.theta.xi, rough.active
        arrived = np.isfinite(best_value) & _alike(
            rough, rough.theta, Theta(best_xi, theta.beta), best_active, ARRIVED)
        hopeful = np.flatnonzero(~arrived & (reached < best_value + policy.hopeless))
        if not hopeful.size:
            continue
        trial, trial_model, sound = _settle(rough.rows(hopeful), rho, policy)
        value = row_evidence(trial_model, trial, rho) + np.where(sound, 0.0, UNSOUND)
        # a value may be infinite, and the one that it is to improve as well
        better = value + IMPROVEMENT * (1.0 + np.abs(value)) < best_value[hopeful]
        rows = hopeful[better]
        best_value[rows], best_xi[rows] = value[better], trial.xi[better]
        best_active[rows] = trial_model.active[better]
        moved[rows] = True
    return Theta(best_xi, theta.beta), best_active, moved


def _screened(
    model: SAEManifoldModel, theta: Theta, rho: Array, starts: list[tuple[Array, Mask]],
    policy: EncodePolicy,
) -> Iterator[tuple[SAEManifoldModel, Array]]:
    """The model at each start of its rows after a few sweeps, and what of F is theirs, (n,).

    As many starts as fit into a chunk are refined at once: few rows cost nearly as much as many. A
    start of a row is left where it is once gains like its last one would leave it hopeless.
    """
    n, width = len(model.Z), max(model.shape[1], model.carried.shape[1] ** 2, 1)
    together = max(1, model.row_map.elements // max(n * width, 1))
    least = np.full(n, np.inf)
    for first in range(0, len(starts), together):
        some = starts[first:first + together]
        row = np.tile(np.arange(n), len(some))
        xi, support = map(np.concatenate, zip(*some, strict=True))
        many = model.rows(row).with_state(Theta(xi, theta.beta), rho, support)
        xi, value = many.theta.xi.copy(), many.row_objective(many.theta, rho)
        moving = np.arange(len(row))
        for left in reversed(range(policy.screen_sweeps)):
            part = many.rows(moving)
            found = part.refine_rows(Theta(xi[moving], theta.beta), rho, 1)
            fell = value[moving]
            xi[moving], value[moving] = found.xi, part.row_objective(found, rho)
            fell -= value[moving]
            np.minimum.at(least, row, value)
            moving = moving[(fell > 0.0) & (
                value[moving] - left * fell < least[row[moving]] + policy.hopeless)]
            if not moving.size:
                break
        for number, (_, support) in enumerate(some):
            own = slice(number * n, (number + 1) * n)
            yield model.with_state(Theta(xi[own], theta.beta), rho, support), value[own]


def _simplex_candidates(
    model: SAEManifoldModel, theta: Theta, rho: Array, policy: EncodePolicy
) -> list[Candidate]:
    """The best few atoms of each row, and a mixture of two."""
    n, n_atoms = model.active.shape
    labels, nearest = _grid_candidates(model, theta, policy)
    chosen = [(labels[:, [j]], policy.hard_share, nearest) for j in range(labels.shape[1])]
    if n_atoms > 1:
        pairs, aligned = _mixed_candidates(model, theta, policy)
        chosen += [(labels[:, [0]], policy.soft_share, nearest),
                   (pairs, policy.soft_share, aligned)]
    out = []
    for atoms, share, coordinates in chosen:
        support = np.zeros((n, n_atoms), bool)
        np.put_along_axis(support, atoms, True, axis=1)
        out.append(Candidate(support, hard_shares(atoms[:, 0], n_atoms, share), coordinates))
    return out


def _encode_together(
    model: SAEManifoldModel, theta: Theta, rho: Array, policy: EncodePolicy,
    search_from_state: bool,
) -> tuple[Theta, Mask, NDArray[np.bool_]]:
    alone, own = model.uncoupled(rho)
    start, active, _ = encode(alone, theta, own, policy, search_from_state=False)
    together = model.with_state(start, rho, active)
    solution = solve_inner(FixedDecoders(together), rho, tol=TOGETHER_TOL)
    if search_from_state:
        present = model.joint_objective(theta, rho)
        if solution.point.objective > present - IMPROVEMENT * (1.0 + abs(present)):
            return theta, model.active.copy(), np.zeros(len(model.Z), bool)
    elif not solution.converged:
        warnings.warn(
            f"the joint encoding of rows that a penalty couples stopped early: "
            f"{solution.status.value}", ConvergenceWarning, stacklevel=2)
    return solution.theta, together.active.copy(), np.ones(len(model.Z), bool)


def _settle(
    model: SAEManifoldModel, rho: Array, policy: EncodePolicy
) -> tuple[Theta, SAEManifoldModel, Mask]:
    """Refine rows to a minimum, letting the active set follow the assignments once.

    The last return value says which rows ended with an active set that their state supports; the
    evidence of the others is not a number to compare.
    """
    theta = model.refine_rows(model.theta, rho, policy.sweeps)
    if model.assignment.chooses_support:
        return theta, model, np.ones(len(theta.xi), bool)
    settled = active_set(model, theta, rho, policy)
    trial_model = model.with_state(theta, rho, settled)
    others = np.flatnonzero((settled != model.active).any(axis=1))
    if others.size:
        xi, again = theta.xi.copy(), trial_model.rows(others)
        xi[others] = again.refine_rows(again.theta, rho, policy.sweeps).xi
        theta = Theta(xi, theta.beta)
    a, information = _information(trial_model, theta, rho, policy)
    sound = np.where(settled, information > policy.information / policy.slack,
                     information < policy.information * policy.slack)
    sound |= model.assignment.leading(a)
    return theta, trial_model, np.asarray(sound.all(axis=1))


def _grid_candidates(
    model: SAEManifoldModel, theta: Theta, policy: EncodePolicy
) -> tuple[NDArray[np.intp], Array]:
    """Labels (N, C) of the nearest atoms, and coordinates (N, D) of the nearest grid points."""
    n = len(model.Z)
    distance = np.empty((n, len(model.atoms)))
    nearest = np.empty((n, model.layout.n_coordinates))
    for k, atom in enumerate(model.atoms):
        grid = atom_grid(atom, policy)
        points = atom.basis(grid) @ theta.beta[model.layout.basis_slices[k]]
        squares = np.einsum("gp,gp->g", points, points) - 2.0 * model.working @ points.T
        index = squares.argmin(1)
        distance[:, k] = squares[np.arange(n), index]
        nearest[:, model.layout.coordinate_slices[k]] = grid[index]
    order = np.argsort(distance, axis=1, kind="stable")[:, :policy.n_candidates]
    return order, nearest


def _mixed_candidates(
    model: SAEManifoldModel, theta: Theta, policy: EncodePolicy
) -> tuple[NDArray[np.intp], Array]:
    """The two atoms (N, 2) that a row points along most, and coordinates (N, D) by direction.

    A row that mixes atoms lies inside all of them, so the nearest point of a curve says little;
    the direction of the row, seen from the atom's centre, says where on the curve it is.
    """
    n = len(model.Z)
    along = np.empty((n, len(model.atoms)))
    aligned = np.empty((n, model.layout.n_coordinates))
    for k, atom in enumerate(model.atoms):
        grid = atom_grid(atom, policy)
        b = theta.beta[model.layout.basis_slices[k]]
        spokes = (atom.basis(grid) - atom.prior_mean_basis()) @ b
        length = np.sqrt(np.einsum("gp,gp->g", spokes, spokes))
        reach = model.working @ (spokes / np.maximum(length, 1e-300)[:, None]).T
        index = reach.argmax(1)
        along[:, k] = reach[np.arange(n), index]
        aligned[:, model.layout.coordinate_slices[k]] = grid[index]
    return np.argsort(-along, axis=1, kind="stable")[:, :2], aligned
