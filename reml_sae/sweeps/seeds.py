"""Where sweeps begin: a flat for every atom, through rows that are near each other.

Atoms come one after the other, as the centres of k-means++ do (Arthur and Vassilvitskii 2007): rows
that no atom explains yet propose the flat of the rows nearest to themselves, and the proposal that
leaves least unexplained is taken. Rows are near by angle, for atoms about a common centre, or by
distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reml_sae.manifolds import Manifold
from reml_sae.relaxations.grid_mixture import make_grid, smooth_functions
from reml_sae.sweeps.backend import Backend, DeviceArray
from reml_sae.sweeps.policy import SweepPolicy
from reml_sae.typing import Array, Index

Near = Literal["angle", "distance"]
GRID = 200


@dataclass(frozen=True, eq=False)
class Flat:
    """An affine flat.

    Attributes
    ----------
    centre : (p,) array
    axes : (d, p) orthogonal; of the length of the rows' standard deviations
    """

    centre: Array
    axes: Array

    def decoder(self, manifold: Manifold) -> Array:
        """Decoder (M, p) whose smooth functions are the axes."""
        smooth = smooth_functions(make_grid(manifold, GRID))
        B = np.zeros((manifold.basis_size, len(self.centre)))
        d = min(len(smooth), len(self.axes))
        B += smooth[:d].T @ self.axes[:d]
        B[0] += self.centre
        return B


def seed_flats(
    X: DeviceArray, dims: Sequence[int], energy: Array, near: Near, rng: np.random.Generator,
    policy: SweepPolicy, backend: Backend, n_near: int,
) -> list[Flat]:
    """A flat of every dimension, one after the other.

    Parameters
    ----------
    X : (m, p) rows on the device
    dims : sequence of int
    energy : (m,) array
        What is unexplained of every row before.
    near : "angle" or "distance"
    rng : numpy.random.Generator
    policy : SweepPolicy
    backend : Backend
    n_near : int
        Rows through which a flat is laid.
    """
    xp, flats, energy = backend.xp, [], energy.copy()
    square = backend.numpy(xp.sum(X * X, axis=1)).astype(float)
    for dim in dims:
        total = energy.sum()
        share = energy / total if total > 0.0 else np.full(len(energy), 1.0 / len(energy))
        tries = rng.choice(len(energy), policy.seed_tries, p=share)
        pull = np.abs(backend.numpy(X @ X[tries].T).astype(float)).T
        if near == "angle":
            close = pull / np.sqrt(np.maximum(square, 1e-30))
        else:
            close = 2.0 * pull - square
        members = np.argpartition(-close, n_near - 1, axis=1)[:, :n_near]
        best: tuple[float, Flat, Array] | None = None
        for own in members:
            flat = _flat(np.asarray(backend.numpy(X[own]), float), dim, near)
            left = np.minimum(energy, _residual(X, square, flat, backend))
            if best is None or left.sum() < best[0]:
                best = float(left.sum()), flat, left
        assert best is not None
        flats.append(best[1])
        energy = best[2]
    return flats


def _flat(rows: Array, dim: int, near: Near) -> Flat:
    centre = rows.mean(axis=0) if near == "distance" else np.zeros(rows.shape[1])
    values, vectors = np.linalg.eigh((rows - centre) @ (rows - centre).T)
    top = max(float(values[-1]), 1e-30)
    kept = vectors[:, ::-1][:, :dim].T @ (rows - centre)
    # equally long: near rows lie on a part of the curve
    lengths = np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-15 * top)
    return Flat(centre, kept / lengths * np.sqrt(top / (len(rows) * max(dim, 1))))


def _residual(X: DeviceArray, square: Array, flat: Flat, backend: Backend) -> Array:
    """Squared distances (m,) from a flat."""
    units = flat.axes / np.maximum(np.linalg.norm(flat.axes, axis=1, keepdims=True), 1e-30)
    both = backend.numpy(X @ backend.array(np.vstack([units, flat.centre]).T)).astype(float)
    shift = units @ flat.centre
    out = square - 2.0 * both[:, -1] + flat.centre @ flat.centre
    out -= ((both[:, :-1] - shift) ** 2).sum(axis=1)
    return np.asarray(np.maximum(out, 0.0))


def nearest_flats(X: DeviceArray, flats: Sequence[Flat], backend: Backend) -> tuple[Index, Array]:
    """The nearest flat (m,) of every row, and the squared distance."""
    square = backend.numpy(backend.xp.sum(X * X, axis=1)).astype(float)
    label, least = np.zeros(len(square), np.intp), np.full(len(square), np.inf)
    for k, flat in enumerate(flats):
        own = _residual(X, square, flat, backend)
        closer = own < least
        label[closer], least[closer] = k, own[closer]
    return label, least
