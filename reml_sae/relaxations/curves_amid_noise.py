"""Curves amid noise of any covariance: EM of a latent-grid mixture of atoms that rows use singly.

    z_i | k, t ~ N(Phi_k(t) B_k, N)

Where noise is longer than an atom, the rows' main axes are the noise's: codes that are read off
them, or carried on in white noise, bend a curve after it. Here the noise follows the curves at
every step, so a direction in which all rows vary alike goes to it, whichever holds it at first. A
sweep is a product of matrices, so there is time for many seeds; the evidence at their ends ranks
them, whatever metric they came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.linalg import block_diag

from reml_sae.linalg import single_threaded
from reml_sae.manifolds import Manifold
from reml_sae.relaxations.axes import TINY, leading_axes, sample_index
from reml_sae.relaxations.grid_mixture import (
    Grid,
    Moments,
    State,
    decoder_evidence,
    fit_decoder,
    log_mixture,
    make_grid,
    next_strength,
    smooth_functions,
)
from reml_sae.relaxations.policy import CurvesPolicy
from reml_sae.typing import Array, Index

STRENGTH = 1.0
"""Of the roughness at first; it then follows by Fellner-Schall."""
LEAST = 1e-9
"""Share of the mean variance that is rounding."""
TURNS = 6
"""In which the variance of the prior is found."""
LEAST_WEIGHT = 1e-6
"""Share of the rows that an atom is taken to have at least."""


@dataclass(frozen=True)
class AtomCodes:
    """The atom (N,) of each row, and coordinates (N, D) on all of them."""

    labels: Index
    coordinates: Array


@dataclass(frozen=True)
class CurvesAmidNoise:
    """Where seeds lead.

    Attributes
    ----------
    codes : sequence of AtomCodes
        On grids, the best by evidence first and no two alike.
    noises : sequence of (p, p) arrays
        Second moments of the noise there.
    agreed : bool
        Whether several seeds have come to the best end.
    """

    codes: Sequence[AtomCodes]
    noises: Sequence[Array]
    agreed: bool


@dataclass(frozen=True)
class _Place:
    """Where EM is.

    Attributes
    ----------
    decoder : (M, q) array
        Of all atoms, one below the other.
    noise : (q, q) array
        Second moment of what the curves leave.
    strength : float
    weights : (K,) shares of the rows
    value : float
        Negative log evidence of the rows before this step, in nats.
    """

    decoder: Array
    noise: Array
    strength: float
    weights: Array
    value: float


@dataclass(frozen=True)
class _End:
    """Where EM ends, and the expected reconstruction (n, q) of the rows there."""

    place: _Place
    curves: Array


@dataclass(frozen=True)
class _Atoms:
    """The atoms as one grid.

    Attributes
    ----------
    grid : Grid
        Of block diagonal basis.
    owner : (G,) the atom of each point
    columns : sequence of K slices of coordinates
    smooth : sequence of K arrays (G_k, d)
        The smooth functions of each on its grid, of mean square one.
    """

    atoms: Sequence[Manifold]
    grid: Grid
    owner: Index
    columns: Sequence[slice]
    smooth: Sequence[Array]

    @classmethod
    def of(cls, atoms: Sequence[Manifold], policy: CurvesPolicy) -> _Atoms:
        grids = [make_grid(atom, policy.curve_points if atom.latent_dim == 1
                           else policy.surface_points) for atom in atoms]
        ends = np.cumsum([0, *(atom.latent_dim for atom in atoms)])
        grid = Grid(block_diag(*(g.points for g in grids)), block_diag(*(g.basis for g in grids)),
                    np.concatenate([g.log_weight for g in grids]),
                    block_diag(*(g.roughness for g in grids)),
                    np.concatenate([g.rough_values for g in grids]))
        owner = np.repeat(np.arange(len(grids)), [len(g.points) for g in grids])
        return cls(atoms, grid, owner, [slice(a, b) for a, b in pairwise(ends)],
                   [g.basis @ smooth_functions(g).T for g in grids])

    def basis(self, codes: AtomCodes) -> Array:
        """Basis (n, M) of rows, zero but for that of their own atom."""
        return np.concatenate([
            (codes.labels == k)[:, None] * atom.basis(codes.coordinates[:, where])
            for k, (atom, where) in enumerate(zip(self.atoms, self.columns, strict=True))], axis=1)

    def random_codes(self, white: Array, rng: np.random.Generator) -> AtomCodes:
        """Codes of white rows (n, q), the leading axes first, by random scores for every atom.

        All axes, or few of the leading ones: an atom is below much noise or among the first. A row
        is at the point nearest to its scores, on the atom on which these are longest.
        """
        points, lengths, everywhere = [], [], rng.random() < 0.5
        for k, smooth in enumerate(self.smooth):
            d, q = smooth.shape[1], white.shape[1]
            d = min(d, q)
            axes = q if everywhere else int(np.exp(rng.uniform(np.log(d), np.log(q + 1))))
            frame = np.linalg.qr(rng.standard_normal((axes, d)))[0]
            scores = white[:, :axes] @ frame
            curve = smooth[:, :d]
            nearest = (0.5 * (curve**2).sum(axis=1) - scores @ curve.T).argmin(axis=1)
            points.append(self.grid.points[self.owner == k][nearest][:, self.columns[k]])
            lengths.append((scores**2).mean(axis=1))
        return AtomCodes(np.argmax(lengths, axis=0), np.concatenate(points, axis=1))

    def weighted(self, weights: Array) -> Grid:
        """The grid of atoms with these shares of the rows."""
        return replace(self.grid, log_weight=self.grid.log_weight + np.log(
            np.maximum(weights, LEAST_WEIGHT))[self.owner])


@single_threaded
def curves_amid_noise(
    Z: Array, atoms: Sequence[Manifold], seeds: Sequence[AtomCodes], rng: np.random.Generator,
    policy: CurvesPolicy,
) -> CurvesAmidNoise:
    """Carry seeds on.

    Parameters
    ----------
    Z : (N, p) array
        Centred rows.
    atoms : sequence of K Manifold
        All of them with coordinates.
    seeds : sequence of AtomCodes
        All of which are tried; then random ones in turn, until several have come to the best end.
    rng : Generator
    policy : CurvesPolicy

    Returns
    -------
    CurvesAmidNoise
        Without codes where rows are too few to tell the noise, or all equal.
    """
    q = min(Z.shape[1], policy.most_axes, len(Z) // policy.rows_per_axis)
    size = float(np.sqrt((Z**2).mean())) if Z.size else 0.0
    if q < 2 or not size > TINY:
        return CurvesAmidNoise([], [], False)
    axes = leading_axes(Z, q, rng)
    Y, rest = Z @ axes.T / size, (Z - Z @ axes.T @ axes) / size
    outside = rest.T @ rest / len(Z)
    rows = sample_index(len(Y), policy.most_rows, rng)
    X, joint = Y[rows], _Atoms.of(atoms, policy)
    ends = [_carried(X, joint, AtomCodes(seed.labels[rows], seed.coordinates[rows]), policy)
            for seed in seeds]
    white = _white(X)
    while not (agreed := _agree(ends, policy)) and len(ends) < len(seeds) + policy.most_random:
        ends.append(_carried(X, joint, joint.random_codes(white, rng), policy))
    best = [end.place for end in _kept(X, ends, policy)]
    return CurvesAmidNoise([_codes(Y, joint, place) for place in best],
                           [axes.T @ place.noise @ axes + outside for place in best], agreed)


def _agree(ends: Sequence[_End], policy: CurvesPolicy) -> bool:
    """Whether several have come to the best."""
    least = min((end.place.value for end in ends), default=np.inf)
    return sum(end.place.value < least + policy.alike for end in ends) >= policy.agree


def _carried(X: Array, joint: _Atoms, seed: AtomCodes, policy: CurvesPolicy) -> _End:
    """EM from the codes of rows X (n, q)."""
    place = _begin(X, joint, seed)
    for _ in range(policy.sweeps):
        before, place = place.value, _step(X, joint, place)
        if before - place.value < policy.nearly * len(X) and before < np.inf:
            break
    mixing, total = _mixing(X, joint, place)
    return _End(place, mixing @ joint.grid.basis @ place.decoder / total[:, None])


def _begin(X: Array, joint: _Atoms, seed: AtomCodes) -> _Place:
    """Decoders of least squares at the codes of rows X (n, q)."""
    n, basis = len(X), joint.basis(seed)
    gram = basis.T @ basis + TINY * n * np.eye(basis.shape[1])
    decoder = np.asarray(np.linalg.solve(gram, basis.T @ X), np.float64)
    left = X - basis @ decoder
    weights = np.bincount(seed.labels, minlength=len(joint.atoms)) / n
    return _Place(decoder, left.T @ left / n, STRENGTH, weights, np.inf)


def _mixing(X: Array, joint: _Atoms, place: _Place) -> tuple[Array, Array]:
    """Responsibilities (n, G) up to the totals (n,) of their rows."""
    lengths, axes, _ = _metric(place.noise, len(X))
    return log_mixture(X @ (axes / lengths), joint.weighted(place.weights),
                       State(place.decoder @ (axes / lengths), 1.0, place.strength))[:2]


def _white(X: Array) -> Array:
    """Rows (n, q) on their main axes, the longest first, each of unit variance or none."""
    values, axes = np.linalg.eigh(X.T @ X / len(X))
    values, axes = values[::-1], axes[:, ::-1]
    return X @ axes / np.sqrt(np.maximum(values, TINY * values[0]))


def _metric(second: Array, n: int) -> tuple[Array, Array, float]:
    """Standard deviations (q,) of the noise, their axes (q, q), and the nats of its prior.

    That is a Wishart prior of N^-1 with q degrees of freedom, at white noise of the variance tau
    that makes N likeliest: tau = q / tr N^-1, and N = (n S + q tau) / (n + q) of the second moment
    S. Without it one direction without noise would be worth any curve.
    """
    q = len(second)
    values, axes = np.linalg.eigh(second)
    values = np.maximum(values, LEAST * max(float(values.mean()), TINY))
    white = 1.0 / float((1.0 / values).mean())
    for _ in range(TURNS):
        white = 1.0 / float(((n + q) / (n * values + q * white)).mean())
    values = (n * values + q * white) / (n + q)
    return np.sqrt(values), axes, 0.5 * q * float(np.log(values / white).sum())


def _step(X: Array, joint: _Atoms, place: _Place) -> _Place:
    """One sweep of EM."""
    n, q = X.shape
    lengths, axes, prior = _metric(place.noise, n)
    white = X @ (axes / lengths)
    unit = float(np.sqrt((white**2).mean()))
    white /= unit
    grid = joint.weighted(place.weights)
    state = State(place.decoder @ (axes / lengths) / unit, unit**-2, place.strength)
    mixing, total, value = log_mixture(white, grid, state)
    value += n * (float(np.log(lengths).sum()) + q * float(np.log(unit))) + prior
    moments = Moments.of(white, grid, mixing, total)
    value += decoder_evidence(moments.gram, grid, state)
    B, _, inverse = fit_decoder(moments, grid, state.variance, state.strength)
    second = white.T @ white - moments.right.T @ B - B.T @ moments.right + B.T @ moments.gram @ B
    second = second / n + float((inverse * moments.gram).sum()) / n * np.eye(q)
    back = (axes * lengths * unit).T
    mass = mixing.T @ (1.0 / total)
    weights = np.bincount(joint.owner, mass, len(joint.atoms)) / n
    return _Place(B @ back, back.T @ second @ back,
                  next_strength(B, inverse, grid, state.strength), weights, value)


def _kept(X: Array, ends: Sequence[_End], policy: CurvesPolicy) -> list[_End]:
    """The ends that come close to the best, in their order, without those that are a better one."""
    kept: list[_End] = []
    ranked = sorted(ends, key=lambda end: end.place.value)
    for end in ranked:
        if end.place.value > ranked[0].place.value + policy.close_per_row * len(X):
            break
        lengths, axes, _ = _metric(end.place.noise, len(X))
        if all((((end.curves - other.curves) @ (axes / lengths)) ** 2).sum() > policy.same * X.size
               for other in kept):
            kept.append(end)
    return kept[:policy.most_kept]


def _codes(Y: Array, joint: _Atoms, place: _Place) -> AtomCodes:
    """Codes of rows Y (N, q): the likeliest point of all atoms, and of each of them."""
    mixing, points = _mixing(Y, joint, place)[0], joint.grid.points
    coordinates = np.concatenate([
        points[joint.owner == k][mixing[:, joint.owner == k].argmax(axis=1)][:, where]
        for k, where in enumerate(joint.columns)], axis=1)
    return AtomCodes(joint.owner[mixing.argmax(axis=1)], coordinates)
