"""The latent-grid mixture of all atoms at once, which rows use one at a time, fitted by EM.

    z_i | k, t ~ N(Phi_k(t) B_k, N)

The noise N is white, or has any covariance. Where that is longer than an atom, the rows' main axes
are the noise's, and codes that are read off them bend a curve after it: here the noise follows the
curves at every step, so a direction in which all rows vary alike goes to it, whichever holds it at
first. A sweep is a few products of matrices, and the evidence at its end ranks where codes lead, so
there is time for many (`joint_search`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy.linalg import block_diag

from reml_sae.manifolds import Manifold
from reml_sae.relaxations.axes import TINY
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
from reml_sae.relaxations.policy import JointPolicy
from reml_sae.typing import Array, Index

STRENGTH = 1.0
"""Of the roughness at first; it then follows by Fellner-Schall."""
LEAST = 1e-9
"""Share of the mean variance that is rounding."""
TURNS = 6
"""In which the variance of the prior is found."""
CHUNK = 4096
"""Count of rows whose responsibilities are in memory at a time."""
LEAST_WEIGHT = 1e-6
"""Share of the rows that an atom is taken to have at least."""


@dataclass(frozen=True)
class AtomCodes:
    """The atom (N,) of each row, and coordinates (N, D) on all of them."""

    labels: Index
    coordinates: Array

    def of(self, rows: Index) -> AtomCodes:
        """Those of some rows."""
        return AtomCodes(self.labels[rows], self.coordinates[rows])


@dataclass(frozen=True)
class Place:
    """Where EM is.

    Attributes
    ----------
    decoder : (M, q) array
        Of all atoms, one below the other.
    noise : (q, q) array
        Second moment of what the curves leave.
    strengths : (K,) array
        Of each atom's roughness.
    weights : (K,) array
        Shares of the rows.
    value : float
        Negative log evidence of the rows before this step, in nats.
    """

    decoder: Array
    noise: Array
    strengths: Array
    weights: Array
    value: float


@dataclass(frozen=True)
class JointGrid:
    """The atoms as one grid.

    Attributes
    ----------
    atoms : sequence of K Manifold
    grids : sequence of K Grid
    grid : Grid
        Of block diagonal basis.
    owner : (G,) the atom of each point
    columns, functions : sequences of K slices
        Of coordinates, and of basis functions.
    smooth : sequence of K arrays (G_k, d)
        The smooth functions of each on its grid, of mean square one.
    """

    atoms: Sequence[Manifold]
    grids: Sequence[Grid]
    grid: Grid
    owner: Index
    columns: Sequence[slice]
    functions: Sequence[slice]
    smooth: Sequence[Array]

    @classmethod
    def of(cls, atoms: Sequence[Manifold], policy: JointPolicy) -> JointGrid:
        """Of atoms, all of them with coordinates."""
        grids = [make_grid(atom, policy.curve_points if atom.latent_dim == 1
                           else policy.surface_points) for atom in atoms]
        return cls._joined(atoms, grids, [g.basis @ smooth_functions(g).T for g in grids])

    @classmethod
    def _joined(
        cls, atoms: Sequence[Manifold], grids: Sequence[Grid], smooth: Sequence[Array]
    ) -> JointGrid:
        sizes = [len(g.points) for g in grids]
        functions = _slices([atom.basis_size for atom in atoms])
        grid = Grid(block_diag(*(g.points for g in grids)), block_diag(*(g.basis for g in grids)),
                    np.concatenate([g.log_weight for g in grids]),
                    block_diag(*(g.roughness for g in grids)),
                    np.concatenate([g.rough_values for g in grids]),
                    tuple(zip(_slices(sizes), functions, strict=True)))
        owner = np.repeat(np.arange(len(grids)), sizes)
        return cls(atoms, grids, grid, owner, _slices([atom.latent_dim for atom in atoms]),
                   functions, smooth)

    def only(self, which: Sequence[int]) -> JointGrid:
        """Of some of the atoms."""
        return self._joined([self.atoms[k] for k in which], [self.grids[k] for k in which],
                            [self.smooth[k] for k in which])

    def points_of(self, k: int, best: Index) -> Array:
        """Coordinates (n, d) of points of an atom, counted from its first."""
        return self.grid.points[self.owner == k][best][:, self.columns[k]]

    def basis(self, codes: AtomCodes) -> Array:
        """Basis (n, M) of rows, zero but for that of their own atom."""
        return np.concatenate([
            (codes.labels == k)[:, None] * atom.basis(codes.coordinates[:, where])
            for k, (atom, where) in enumerate(zip(self.atoms, self.columns, strict=True))], axis=1)

    def at(self, weights: Array, strengths: Array) -> Grid:
        """The grid of atoms with these shares of the rows and strengths."""
        share = np.log(np.maximum(weights, LEAST_WEIGHT))[self.owner]
        strong = np.repeat(strengths, [atom.basis_size for atom in self.atoms])
        return replace(self.grid, log_weight=self.grid.log_weight + share,
                       roughness=self.grid.roughness * strong,
                       rough_values=self.grid.rough_values * strong)

    def next_strengths(self, B: Array, inverse: Array, strengths: Array) -> Array:
        """Of all atoms, after a step of Fellner and Schall at the inverse curvature (M, M)."""
        return np.array([
            next_strength(B[own], inverse[own, own], grid, strength)
            for own, grid, strength in zip(self.functions, self.grids, strengths, strict=True)])


def _slices(sizes: Sequence[int]) -> list[slice]:
    return [slice(a, b) for a, b in pairwise(np.cumsum([0, *sizes]))]


@dataclass(frozen=True)
class JointMixture:
    """Atoms, the rows that they are to explain, and what the noise may be.

    Attributes
    ----------
    X : (n, q) array
        Rows on axes that hold most of them.
    joint : JointGrid
    white : bool
        Whether the noise has one variance in all directions; else any covariance.
    policy : JointPolicy
    """

    X: Array
    joint: JointGrid
    white: bool
    policy: JointPolicy

    @property
    def alike(self) -> float:
        """Nats within which values are one, as EM ends before it has come to its limit."""
        return self.policy.alike + self.policy.unsettled * self.policy.nearly * len(self.X)

    @cached_property
    def noise_alone(self) -> float:
        """Nats of the rows as their mean and noise, without any atom."""
        n, q = self.X.shape
        X = self.X - self.X.mean(axis=0)
        lengths, axes, prior = self.metric(X.T @ X / n)
        squares = float(((X @ (axes / lengths))**2).sum())
        return (n * float(np.log(lengths).sum()) + 0.5 * (squares + n * q * np.log(2.0 * np.pi))
                + prior + 0.5 * q * float(np.log1p(n)))

    def only(self, rows: Index, which: Sequence[int]) -> JointMixture:
        """Of some rows, as if no other atoms were."""
        return replace(self, X=self.X[rows], joint=self.joint.only(which))

    def begin(self, seed: AtomCodes) -> Place:
        """Decoders of least squares at codes of the rows."""
        X, n, basis = self.X, len(self.X), self.joint.basis(seed)
        gram = basis.T @ basis + TINY * n * np.eye(basis.shape[1])
        decoder = np.asarray(np.linalg.solve(gram, basis.T @ X), np.float64)
        left, K = X - basis @ decoder, len(self.joint.atoms)
        return Place(decoder, left.T @ left / n, np.full(K, STRENGTH),
                     np.bincount(seed.labels, minlength=K) / n, np.inf)

    def step(self, place: Place) -> Place:
        """One sweep of EM."""
        n, q = self.X.shape
        lengths, axes, prior = self.metric(place.noise)
        white = self.X @ (axes / lengths)
        unit = float(np.sqrt((white**2).mean()))
        white /= unit
        grid = self.joint.at(place.weights, place.strengths)
        state = State(place.decoder @ (axes / lengths) / unit, unit**-2, 1.0)
        mixing, total, value = log_mixture(white, grid, state)
        value += n * (float(np.log(lengths).sum()) + q * float(np.log(unit))) + prior
        moments = Moments.of(white, grid, mixing, total)
        value += decoder_evidence(moments.gram, grid, state)
        B, _, inverse = fit_decoder(moments, grid, state.variance, 1.0)
        second = (white.T @ white - moments.right.T @ B - B.T @ moments.right
                  + B.T @ moments.gram @ B)
        second = second / n + float((inverse * moments.gram).sum()) / n * np.eye(q)
        back = (axes * lengths * unit).T
        weights = np.bincount(self.joint.owner, moments.counts, len(self.joint.atoms)) / n
        return Place(B @ back, back.T @ second @ back,
                     self.joint.next_strengths(B, inverse, place.strengths), weights, value)

    def carried(self, seed: AtomCodes, goal: float = np.inf) -> Place:
        """Where EM leads from codes of the rows; it is given up where it will not come to a goal.

        That is where a sweep gains less than a small share of what is missing.
        """
        place = self.begin(seed)
        for _ in range(self.policy.sweeps):
            before, place = place.value, self.step(place)
            gain = before - place.value
            least = max(self.policy.nearly * len(self.X),
                        self.policy.hopeful * (place.value - goal))
            if gain < least and before < np.inf:
                break
        return place

    @cached_property
    def _mean_square(self) -> float:
        return float((self.X**2).mean())

    def metric(self, second: Array) -> tuple[Array, Array, float]:
        """Standard deviations (q,) of noise of this moment, its axes (q, q), nats of its prior."""
        if self.white:
            q = len(second)
            variance = max(float(np.trace(second)) / q, LEAST * self._mean_square, TINY)
            return np.full(q, np.sqrt(variance)), np.eye(q), 0.0
        return _any_covariance(second, len(self.X))

    def whitening(self, place: Place) -> Array:
        """The map (q, q) of rows to the metric of the noise."""
        lengths, axes, _ = self.metric(place.noise)
        return axes / lengths

    def mixing(self, Y: Array, place: Place) -> tuple[Array, Array]:
        """Responsibilities (N, G) up to the totals (N,) of rows (N, q)."""
        white = self.whitening(place)
        return log_mixture(Y @ white, self.joint.at(place.weights, place.strengths),
                           State(place.decoder @ white, 1.0, 1.0))[:2]

    def curves(self, place: Place) -> Array:
        """Expected reconstruction (n, q) of the rows."""
        mixing, total = self.mixing(self.X, place)
        return np.asarray(mixing @ self.joint.grid.basis @ place.decoder / total[:, None])

    def codes(self, Y: Array, place: Place) -> AtomCodes:
        """Codes of rows (N, q): the likeliest point of all atoms, and of each of them."""
        parts = [self._codes(Y[first:first + CHUNK], place) for first in range(0, len(Y), CHUNK)]
        return AtomCodes(np.concatenate([part.labels for part in parts]),
                         np.concatenate([part.coordinates for part in parts]))

    def _codes(self, Y: Array, place: Place) -> AtomCodes:
        mixing, owner = self.mixing(Y, place)[0], self.joint.owner
        coordinates = np.concatenate([
            self.joint.points_of(k, mixing[:, owner == k].argmax(axis=1))
            for k in range(len(self.joint.atoms))], axis=1)
        return AtomCodes(owner[mixing.argmax(axis=1)], coordinates)


def _any_covariance(second: Array, n: int) -> tuple[Array, Array, float]:
    """Standard deviations (q,) of the noise, their axes (q, q), and the nats of its prior.

    That is a Wishart prior of N^-1 with q degrees of freedom, at white noise of the variance tau
    that makes N likeliest: tau = q / tr N^-1, and N = (n S + q tau) / (n + q) of the second moment
    S. Without it one direction without noise would be worth any curve.
    """
    q = len(second)
    values, axes = np.linalg.eigh(second)
    values = np.maximum(values, LEAST * max(float(values.mean()), TINY))
    known = values.tolist()  # a handful of numbers, for which arrays are slow
    white = q / sum(1.0 / value for value in known)
    for _ in range(TURNS):
        white = q / sum((n + q) / (n * value + q * white) for value in known)
    values = (n * values + q * white) / (n + q)
    return np.sqrt(values), axes, 0.5 * q * float(np.log(values / white).sum())
