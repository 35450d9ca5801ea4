"""The latent-grid mixture of one atom, fitted by EM with deterministic annealing.

The model of a row is x_i = Phi(t_i) B + noise of variance s2. On a grid of points g, even in the
coordinates, with weights w_g from the coordinate prior it is a mixture, the generative topographic
map (Bishop, Svensen and Williams 1998):

    R_ig ~ w_g exp(-|x_i - Phi_g B|^2 / 2 s2)                     responsibilities, E step
    B    = (Phi' N Phi / s2 + P)^-1 Phi' R' X / s2,  N = diag(sum_i R_ig)          M step
    P    = lambda S + I                                           roughness S and a weak ridge

s2 falls from large to small (deterministic annealing, Rose 1998) and lambda follows by
Fellner-Schall. The ridge is weak where rows have mean square 1, which callers see to; it keeps
every step regular for rank-deficient rows and for fewer rows than basis functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.special import logsumexp

from reml_sae.manifolds import Manifold
from reml_sae.relaxations.axes import TINY
from reml_sae.typing import Array

COOLING, SWEEPS, SETTLED = 0.85, 80, 1e-4
STRENGTHS = (1e-6, 1e8)
FLOOR = 1e-6
"""Least s2, relative to the mean square of a row."""
LEAST_LOG = -80.0
"""Log responsibility, relative to the largest of the row, below which all are alike: denormal
numbers of single precision are slow."""


@dataclass(frozen=True)
class Grid:
    """Grid of an atom.

    Attributes
    ----------
    points : (G, d) array
    basis : (G, M) array
    log_weight : (G,) array
        Log prior weights, which sum to 1.
    roughness : (M, M) array
        S, zero where nothing is rough.
    rough_values : (M,) array
        Eigenvalues of S.
    blocks : tuple of pairs of slices
        Of points, and of the functions that are not zero there.
    """

    points: Array
    basis: Array
    log_weight: Array
    roughness: Array
    rough_values: Array
    blocks: tuple[tuple[slice, slice], ...] = ((slice(None), slice(None)),)

    def gram(self, counts: Array) -> Array:
        """Phi' N Phi (M, M) of so many rows (G,) at the points."""
        out = np.zeros((self.basis.shape[1],) * 2)
        for at, own in self.blocks:
            basis = self.basis[at, own]
            out[own, own] = (basis * counts[at, None]).T @ basis
        return out


@dataclass(frozen=True)
class Moments:
    """What rows X (n, r) with responsibilities R (n, G) tell the decoder.

    Attributes
    ----------
    gram : (M, M) array
        Phi' N Phi.
    right : (M, r) array
        Phi' R' X.
    square : float
        Sum of squares of X.
    counts : (G,) array
        N, of rows at the points.
    """

    gram: Array
    right: Array
    square: float
    counts: Array

    @classmethod
    def of(cls, X: Array, grid: Grid, mixing: Array, total: Array) -> Moments:
        """Of responsibilities up to the totals (n,) of their rows."""
        counts = (1.0 / total) @ mixing
        expected = np.empty((len(X), grid.basis.shape[1]))
        for at, own in grid.blocks:
            expected[:, own] = mixing[:, at] @ grid.basis[at, own]
        expected /= total[:, None]
        return cls(grid.gram(counts), expected.T @ X, float(np.vdot(X, X)), counts)


@dataclass(frozen=True)
class State:
    """Decoder B (M, r), noise variance s2 and roughness strength lambda."""

    decoder: Array
    variance: float
    strength: float


def make_grid(atom: Manifold, n: int) -> Grid:
    """Grid of about n points."""
    points = atom.grid(n)
    weight = -atom.prior_jet(points, 0)[0]
    S = atom.roughness()
    if S is None:
        S = np.zeros((atom.basis_size, atom.basis_size))
    return Grid(points, atom.basis(points), weight - logsumexp(weight), S,
                np.maximum(eigh(S, eigvals_only=True), 0.0))


def smooth_functions(grid: Grid) -> Array:
    """Coefficients (k, M) of the unpenalised functions, orthonormal and of mean zero."""
    values, vectors = eigh(grid.roughness)
    V = vectors[:, values <= 1e-9 * max(values[-1], TINY)]
    root = np.exp(0.5 * grid.log_weight)
    V[0] -= root**2 @ grid.basis @ V  # the first basis function is the constant
    triangle = np.linalg.qr(root[:, None] * (grid.basis @ V))[1]
    V = V[:, np.abs(np.diag(triangle)) > 1e-6]
    triangle = np.linalg.qr(root[:, None] * (grid.basis @ V))[1]
    return np.linalg.solve(triangle.T, V.T)


def responsibilities(X: Array, grid: Grid, state: State) -> tuple[Array, float]:
    """E step: responsibilities (n, G) for rows X (n, r), and the negative log likelihood (nats)."""
    mixing, total, value = log_mixture(X, grid, state)
    mixing /= total[:, None]
    return mixing, value


def expected_moments(X: Array, grid: Grid, state: State) -> Moments:
    """E step that keeps only what the M step needs: a third of the passes over (n, G)."""
    mixing, total, _ = log_mixture(X, grid, state)
    return Moments.of(X, grid, mixing, total)


def log_mixture(X: Array, grid: Grid, state: State) -> tuple[Array, Array, float]:
    """Responsibilities (n, G) up to the totals (n,) of their rows; negative log likelihood.

    The exponentials are of single precision, in which they take a quarter of the time; what is
    made of them is exact for the responsibilities that they are.
    """
    B = state.decoder / np.sqrt(state.variance)
    along = X @ (B.T / np.sqrt(state.variance))
    R, one = np.empty((len(X), len(grid.basis))), np.ones(len(X))
    for at, own in grid.blocks:
        basis = grid.basis[at, own]
        gram = B[own] @ B[own].T
        weight = grid.log_weight[at] - 0.5 * np.einsum("gm,gm->g", basis @ gram, basis)
        R[:, at] = np.column_stack([along[:, own], one]) @ np.vstack([basis.T, weight])
    top = R.max(axis=1, keepdims=True)
    R -= top
    np.maximum(R, LEAST_LOG, out=R)
    R[...] = np.exp(R.astype(np.float32))
    total = R @ np.ones(R.shape[1])
    value = (0.5 * np.vdot(X, X) / state.variance - np.log(total).sum() - top.sum()
             + 0.5 * X.size * np.log(2.0 * np.pi * state.variance))
    return R, total, float(value)


def fit_decoder(
    moments: Moments, grid: Grid, variance: float, strength: float
) -> tuple[Array, float, Array]:
    """M step: decoder (M, r), expected residual sum of squares, inverse curvature (M, M)."""
    gram, right = moments.gram, moments.right
    curvature = gram / variance + strength * grid.roughness
    curvature.flat[:: len(gram) + 1] += 1.0
    inverse = np.asarray(np.linalg.inv(curvature), np.float64)
    B = inverse @ right / variance
    squares = moments.square - 2.0 * (right * B).sum() + (B * (gram @ B)).sum()
    return B, max(float(squares), 0.0), inverse


def next_strength(B: Array, inverse: Array, grid: Grid, strength: float) -> float:
    """Lambda after a step of Fellner and Schall at a decoder B (M, r) and its inverse curvature."""
    values = grid.rough_values
    if not values.max() > 0.0:
        return strength
    size = float((B * (grid.roughness @ B)).sum())
    free = (values / (1.0 + strength * values)).sum() - (inverse * grid.roughness).sum()
    factor = np.clip(B.shape[1] * free / max(size, TINY), 0.2, 5.0)
    return float(np.clip(strength * factor, *STRENGTHS))


def anneal(X: Array, grid: Grid, state: State, settled: float = SETTLED) -> State:
    """EM; s2 falls by a factor a sweep until it meets its own estimate, which it then follows.

    It ends where log s2 changes by less than ``settled``.
    """
    B, variance, strength = state.decoder, state.variance, state.strength
    for _ in range(SWEEPS):
        moments = expected_moments(X, grid, State(B, variance, strength))
        B, squares, inverse = fit_decoder(moments, grid, variance, strength)
        strength = next_strength(B, inverse, grid, strength)
        own = max(squares / X.size, FLOOR)
        last, variance = variance, max(COOLING * variance, own)
        if variance == own and abs(np.log(own / last)) < settled:
            break
    return State(B, variance, strength)


def decoder_evidence(gram: Array, grid: Grid, state: State) -> float:
    """Negative log prior of the decoder and its Laplace integral (nats).

    Parameters
    ----------
    gram : (M, M) array
        Phi' N Phi of the rows.
    grid : Grid
    state : State
    """
    B, r = state.decoder, state.decoder.shape[1]
    H = gram / state.variance + state.strength * grid.roughness + np.eye(len(B))
    prior = (B**2).sum() + state.strength * (B * (grid.roughness @ B)).sum()
    return float(0.5 * prior + 0.5 * r * np.linalg.slogdet(H)[1]
                 - 0.5 * r * np.log1p(state.strength * grid.rough_values).sum())
