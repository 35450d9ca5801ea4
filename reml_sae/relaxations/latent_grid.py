"""Coordinates of rows on one atom of any topology, from which a REML fit can start.

A latent-grid mixture (`_grid_mixture`) is annealed from many first decoders: maps of the smooth
(unpenalised) functions to principal directions, the leading ones or turned at random. Laplacian
eigenmaps stand in for the data as well: they unroll what winds, and the responsibilities found on
them give the first decoder of the data. The short runs have few rows and a coarse grid; the best
are run on with more of both, and end in continuous coordinates by Gauss-Newton.

Contract. `latent_grid_starts` returns at least one and at most ``n_starts`` starts, the lowest
objective first, no two with the same reconstruction; all that is random comes from ``rng``. Its
results are finite for rank-deficient, repeated and noiseless rows and for fewer rows than basis
functions. Rows that are all equal, a single row among them, give one start that is a point, with
nothing explained and an objective of 0. No rows, no columns, values that are not finite and
n_starts < 1 raise InputError. The atom's grid must be even in its coordinates: the prior weighs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

from reml_sae.errors import InputError
from reml_sae.linalg import single_threaded
from reml_sae.manifolds import Manifold
from reml_sae.relaxations.axes import TINY, sample_rows
from reml_sae.relaxations.graphs import eigenmap
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
    smooth_functions,
)
from reml_sae.relaxations.policy import GridPolicy
from reml_sae.typing import Array

Run = tuple[float, State, Array]
"""Objective, state and reconstruction (n, r)."""

CHUNK = 2000
"""Rows that are placed at once."""
HEATS = (1.0, 0.3)
"""First s2, relative to the variance of the last principal direction that the map begins with."""
TRANSFERS = ((0.01, 1.0), (1.0, 100.0))
"""s2 and lambda of the first decoder after an eigenmap at either heat: sharp keeps what winds
often, smooth forgets the errors of the graph."""
FIRST_STRENGTH = 100.0
POLISH, NEWTON_STEPS = 3, 10
LONGEST_STEP = 1.0
"""Radians, or standard deviations of the prior: keeps rows beyond an end from running away."""
DAMPING, LEAST_DAMPING = 1e-3, 1e-9


@dataclass(frozen=True)
class GridStart:
    """One start.

    Attributes
    ----------
    coordinates : (n, d) array
        Coordinates of the rows.
    coefficients : (M, r) array
        Decoder, in the units of the rows.
    explained : float
        Fraction of the rows' variance that the decoder explains at the coordinates.
    objective : float
        Negative log evidence of the rows (of a sample where there are many), in nats, with
        coordinates and decoder integrated out by Laplace's method; comparable between starts of
        the same rows and atom.
    """

    coordinates: Array
    coefficients: Array
    explained: float
    objective: float


@single_threaded
def latent_grid_starts(
    X: Array, atom: Manifold, n_starts: int, rng: np.random.Generator, policy: GridPolicy
) -> list[GridStart]:
    """Find starts for rows that one atom explains.

    Parameters
    ----------
    X : (n, r) array
        Rows, as a rule their leading principal scores.
    atom : Manifold
    n_starts : int
        How many starts to return at most.
    rng : numpy.random.Generator
        Source of all randomness.
    policy : GridPolicy

    Returns
    -------
    list of GridStart
        Distinct, the best first.

    Raises
    ------
    InputError
        Where X is not a finite matrix with rows and columns, or n_starts < 1.
    """
    X = _checked(X)
    if n_starts < 1:
        raise InputError(f"n_starts must be >= 1, got {n_starts!r}")
    centre = X.mean(axis=0)
    unit = float(np.sqrt(((X - centre) ** 2).sum(axis=1).mean()))
    if not unit > TINY * np.abs(X).max():
        point = np.repeat(atom.grid(policy.coarse_grid)[:1], len(X), axis=0)
        return [GridStart(point, np.outer(np.eye(atom.basis_size)[0], centre), 0.0, 0.0)]
    Y = (X - centre) / unit
    fine = sample_rows(Y, policy.fine_rows, rng)
    starts = []
    coarse = _distinct(_short_runs(
        sample_rows(fine, policy.coarse_rows, rng), atom, n_starts, rng, policy), policy.same)
    grid = make_grid(atom, policy.fine_grid)
    runs = [_polish(fine, atom, grid, state)
            for _, state, _ in coarse[:n_starts + policy.more_polished]]
    for objective, state, _ in _distinct(runs, policy.same)[:n_starts]:
        t, squares = _locate(Y, atom, state.decoder, grid, state.variance)
        decoder = unit * state.decoder
        decoder[0] += centre
        starts.append(GridStart(t, decoder, float(1.0 - squares.mean()),
                                objective + fine.size * float(np.log(unit))))
    return starts


@single_threaded
def simplest_coordinates(
    X: Array, atom: Manifold, rng: np.random.Generator, policy: GridPolicy
) -> Array:
    """Coordinates (n, d) of rows on the atom without its rough functions.

    Those that are left map to few principal directions, so a few runs without eigenmaps find them.

    Parameters
    ----------
    X : (n, r) array
    atom : Manifold
    rng : numpy.random.Generator
    policy : GridPolicy

    Raises
    ------
    InputError
        Where X is not a finite matrix with rows and columns.
    """
    X = _checked(X)
    centre = X.mean(axis=0)
    unit = float(np.sqrt(((X - centre) ** 2).sum(axis=1).mean()))
    grid = make_grid(atom, policy.coarse_grid)
    if not unit > TINY * np.abs(X).max():
        return np.repeat(grid.points[:1], len(X), axis=0)
    Y = (X - centre) / unit
    few = sample_rows(Y, policy.coarse_rows, rng)
    smooth = smooth_functions(grid)
    free = np.vstack([np.eye(1, atom.basis_size), smooth])
    m = len(free)
    simple = replace(grid, basis=grid.basis @ free.T, roughness=np.zeros((m, m)),
                     rough_values=np.zeros(m))
    states = [anneal(few, simple, begin)
              for begin, _ in _first_states(few, np.eye(m - 1, m, 1), policy.more_frames, rng)]
    best = min(states, key=lambda state: responsibilities(few, simple, state)[1])
    decoder, fine = free.T @ best.decoder, make_grid(atom, policy.fine_grid)
    return _locate(Y, atom, decoder, fine, best.variance)[0]


@single_threaded
def nearest_coordinates(
    X: Array, atom: Manifold, coefficients: Array, policy: GridPolicy, variance: float = 0.0
) -> tuple[Array, Array]:
    """Coordinates of rows under a decoder: the best grid point, then damped Gauss-Newton steps.

    Parameters
    ----------
    X : (n, r) array
    atom : Manifold
    coefficients : (M, r) array
    policy : GridPolicy
    variance : float
        Noise variance of an entry, at which the coordinate prior counts; 0 for the nearest point.

    Returns
    -------
    coordinates : (n, d) array
    squares : (n,) array
        Residual sum of squares of each row.

    Raises
    ------
    InputError
        Where X is not a finite matrix with rows and columns, or the coefficients do not fit it.
    """
    X = _checked(X)
    if coefficients.shape != (atom.basis_size, X.shape[1]):
        raise InputError(f"coefficients must have shape {(atom.basis_size, X.shape[1])} for this "
                         f"atom and X, got {coefficients.shape}")
    return _locate(X, atom, coefficients, make_grid(atom, policy.fine_grid), variance)


def _checked(X: Array) -> Array:
    X = np.asarray(X, float)
    if X.ndim != 2 or 0 in X.shape:
        raise InputError(f"X must be a matrix with at least one row and column, got {X.shape}")
    if not np.isfinite(X).all():
        raise InputError("X has values that are not finite; remove or replace those rows")
    return X


def _short_runs(
    X: Array, atom: Manifold, n_starts: int, rng: np.random.Generator, policy: GridPolicy
) -> list[Run]:
    """Annealed runs on rows X (n, r), on a coarse grid."""
    grid = make_grid(atom, policy.coarse_grid)
    smooth = smooth_functions(grid)
    maps = [X]
    if len(X) > 2 * len(smooth) + 6:
        maps += [eigenmap(X, share, len(smooth) + 2) for share in policy.neighbour_shares]
    runs = []
    for number, Y in enumerate(maps):
        for begin, (variance, strength) in _first_states(
                Y, smooth, policy.more_frames + n_starts, rng):
            state = anneal(Y, grid, begin, policy.nearly)
            if number > 0:
                R = responsibilities(Y, grid, state)[0]
                moments = Moments.of(X, grid, R, np.ones(len(R)))
                decoder, squares, _ = fit_decoder(moments, grid, variance, strength)
                state = anneal(X, grid, State(decoder, squares / X.size + FLOOR, strength),
                               policy.nearly)
            R, objective = responsibilities(X, grid, state)
            runs.append((objective + decoder_evidence(grid.gram(R.sum(axis=0)), grid, state), state,
                         R @ (grid.basis @ state.decoder)))
    return runs


def _first_states(
    Y: Array, smooth: Array, n_frames: int, rng: np.random.Generator
) -> Iterator[tuple[State, tuple[float, float]]]:
    """Maps of the k smooth functions to about k principal directions of Y, with a transfer."""
    k = len(smooth)
    values, axes = eigh(Y.T @ Y / len(Y))
    m = min(k + 2, Y.shape[1])
    lengths = np.sqrt(np.maximum(values[::-1][:m], FLOOR))
    axes = axes[:, ::-1][:, :m]
    for heat, transfer in zip(HEATS, TRANSFERS, strict=True):
        for number in range(n_frames):
            turn = np.eye(max(k, m))
            if number > 0:
                turn = np.linalg.qr(rng.standard_normal(turn.shape))[0]
            yield State(smooth.T @ (turn[:k, :m] * lengths) @ axes.T,
                        heat * float(lengths[min(k, m) - 1] ** 2), FIRST_STRENGTH), transfer


def _polish(X: Array, atom: Manifold, grid: Grid, state: State) -> Run:
    """Run on from a state, then alternate continuous coordinates with the decoder and s2."""
    state = anneal(X, grid, state)
    t = grid.points[responsibilities(X, grid, state)[0].argmax(axis=1)]
    B, variance, strength = state.decoder, state.variance, state.strength
    identity, floor = np.eye(len(B)), FLOOR * np.eye(t.shape[1])
    for _ in range(POLISH):
        t = _gauss_newton(X, atom, B, t, variance)
        basis, slope = atom.jet(t, 1)
        gram = basis.T @ basis
        H = gram + variance * (strength * grid.roughness + identity)
        B = cho_solve(cho_factor(H), basis.T @ X)
        squares = ((X - basis @ B) ** 2).sum(axis=1)
        prior, _, curvature = atom.prior_jet(t, 2)
        J = slope @ B
        data = J @ J.transpose(0, 2, 1) / variance
        row = data + curvature + floor
        used = (np.trace(np.linalg.solve(row, data), axis1=1, axis2=2).sum()
                + X.shape[1] * np.trace(np.linalg.solve(H, gram)))
        variance = max(float(squares.sum() / max(X.size - used, 0.1 * X.size)), FLOOR)
    volume = (prior + 0.5 * np.linalg.slogdet(row)[1] + atom.log_prior_volume()
              - 0.5 * t.shape[1] * np.log(2.0 * np.pi))
    # the mean of a row's likelihood under the prior is at most its maximum, which Laplace's method
    # exceeds where the atom is nearly a point
    objective = ((0.5 * squares / variance + np.maximum(volume, 0.0)).sum()
                 + 0.5 * X.size * np.log(2.0 * np.pi * variance))
    state = State(B, variance, strength)
    return float(objective) + decoder_evidence(gram, grid, state), state, basis @ B


def _distinct(runs: list[Run], share: float) -> list[Run]:
    """Runs by objective, without those whose reconstruction is that of a better one."""
    best: list[Run] = []
    for run in sorted(runs, key=lambda run: run[0]):
        near = share * run[1].variance * run[2].size
        if all(((run[2] - other[2]) ** 2).sum() > near for other in best):
            best.append(run)
    return best


def _locate(
    X: Array, atom: Manifold, B: Array, grid: Grid, variance: float
) -> tuple[Array, Array]:
    """Coordinates (n, d) and residual sums of squares (n,) of rows under a decoder."""
    mean = grid.basis @ B
    offset = 0.5 * (mean**2).sum(axis=1) + variance * atom.prior_jet(grid.points, 0)[0]
    t = np.empty((len(X), atom.latent_dim))
    squares = np.empty(len(X))
    for begin in range(0, len(X), CHUNK):
        rows = slice(begin, begin + CHUNK)
        first = grid.points[(offset - X[rows] @ mean.T).argmin(axis=1)]
        t[rows] = _gauss_newton(X[rows], atom, B, first, variance)
        squares[rows] = ((X[rows] - atom.basis(t[rows]) @ B) ** 2).sum(axis=1)
    return t, squares


def _gauss_newton(X: Array, atom: Manifold, B: Array, t: Array, variance: float) -> Array:
    """Lower |x - Phi(t) B|^2 / 2 + s2 prior(t) of each row.

    All rows at once, each with a damping of its own: no model is at hand to solve one by one.
    """
    def cost(t: Array) -> Array:
        residual = X - atom.basis(t) @ B
        return np.asarray(0.5 * (residual**2).sum(axis=1) + variance * atom.prior_jet(t, 0)[0])

    identity = np.eye(t.shape[1])
    damping = np.full(len(t), DAMPING)
    value = cost(t)
    for _ in range(NEWTON_STEPS):
        basis, slope = atom.jet(t, 1)
        _, prior_slope, prior_curvature = atom.prior_jet(t, 2)
        J = slope @ B
        H = J @ J.transpose(0, 2, 1) + variance * prior_curvature
        gradient = variance * prior_slope - np.einsum("ndr,nr->nd", J, X - basis @ B)
        size = damping * np.trace(H, axis1=1, axis2=2)
        H += np.maximum(size, np.finfo(float).tiny)[:, None, None] * identity
        step = -np.linalg.solve(H, gradient[:, :, None])[:, :, 0]
        length = np.linalg.norm(step, axis=1, keepdims=True)
        trial = atom.retract(t, step * np.minimum(1.0, LONGEST_STEP / np.maximum(length, TINY)))
        new = cost(trial)
        better = new <= value
        t = np.where(better[:, None], trial, t)
        value = np.where(better, new, value)
        damping = np.maximum(np.where(better, 0.2 * damping, 10.0 * damping), LEAST_DAMPING)
    return t
