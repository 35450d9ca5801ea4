"""Where sweeps begin: a flat for every atom, through rows that are near each other.

Atoms come one after the other, as the centres of k-means++ do (Arthur and Vassilvitskii 2007): rows
that no atom explains yet propose the flat of the rows nearest to themselves, and the proposal that
leaves least unexplained is taken, and laid again through the rows that it explains best. What all
rows have unexplained is noise, and proposes nothing. Rows are near by angle, for atoms about a
common centre, or by distance.
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
from reml_sae.typing import Array

Near = Literal["angle", "distance"]
GRID = 200
GROWN = 4
"""Rows through which a flat is laid again, over those that were near a row."""


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
) -> tuple[list[Flat], DeviceArray]:
    """A flat of every dimension, one after the other.

    Where many atoms are to come, proposals that gain as much without each other's rows are taken
    together.

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

    Returns
    -------
    flats : list of Flat
    left : (m,) array
        What is unexplained of every row with them.
    """
    xp, found, left = backend.xp, list[Flat](), backend.array(energy, backend.wide)
    square = backend.cast(xp.sum(X * X, axis=1), backend.wide)
    while len(found) < len(dims):
        dim = dims[len(found)]
        tries = rng.choice(len(energy), policy.seed_tries, p=_shares(backend.numpy(left)))
        pull = backend.cast(X[backend.array(tries, xp.int64)] @ X.T, backend.wide)
        if near == "angle":
            close = xp.abs(pull) / square.clip(1e-30) ** 0.5
        else:
            close = 2.0 * xp.abs(pull) - square
        flats = _through(X, backend.largest(close, n_near), dim, near, backend)
        rests, best = _residuals(X, square, flats, backend), None
        for _ in range(min(1 + (len(dims) - len(found)) // policy.seed_apart, len(flats))):
            gains = [float(xp.sum((left - rest).clip(0.0))) for rest in rests]
            first = int(np.argmax(gains))
            best = gains[first] if best is None else best
            if dims[len(found)] != dim or gains[first] < policy.seed_alike * best:
                break
            flat, left = _laid_again(X, square, left, flats[first],
                                     xp.minimum(left, rests[first]), n_near, near, policy, backend)
            found.append(flat)
    return found, left


def _laid_again(
    X: DeviceArray, square: DeviceArray, left: DeviceArray, flat: Flat, rest: DeviceArray,
    n_near: int, near: Near, policy: SweepPolicy, backend: Backend,
) -> tuple[Flat, DeviceArray]:
    """A flat through the rows that it explains best, and what is unexplained (m,) with it.

    Near rows lie on a part of the curve, and those that they explain lie farther along it.
    """
    for _ in range(policy.seed_steps):
        members = backend.largest((left - rest)[None], min(GROWN * n_near, len(X)))
        (other,) = _through(X, members, len(flat.axes), near, backend)
        without = backend.xp.minimum(left, _residuals(X, square, [other], backend)[0])
        if float(backend.xp.sum(without)) >= float(backend.xp.sum(rest)):
            break
        flat, rest = other, without
    return flat, rest


def _through(
    X: DeviceArray, members: DeviceArray, dim: int, near: Near, backend: Backend
) -> list[Flat]:
    """Flats through some rows each, (f, n)."""
    return [flat_through(rows, dim, near) for rows in np.asarray(backend.numpy(X[members]), float)]


def _shares(energy: Array) -> Array:
    """How likely rows propose a flat: by what they have above the median, which noise has too."""
    excess = np.maximum(energy - np.median(energy), 0.0)
    total = excess.sum()
    return np.asarray(excess / total if total > 0.0 else np.full(len(energy), 1.0 / len(energy)))


def flat_through(rows: Array, dim: int, near: Near) -> Flat:
    """The flat of so many dimensions through rows (n, p)."""
    centre = rows.mean(axis=0) if near == "distance" else np.zeros(rows.shape[1])
    values, vectors = np.linalg.eigh((rows - centre) @ (rows - centre).T)
    top = max(float(values[-1]), 1e-30)
    kept = vectors[:, ::-1][:, :dim].T @ (rows - centre)
    # equally long: near rows lie on a part of the curve
    lengths = np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-15 * top)
    return Flat(centre, kept / lengths * np.sqrt(top / (len(rows) * max(dim, 1))))


def _residuals(
    X: DeviceArray, square: DeviceArray, flats: Sequence[Flat], backend: Backend
) -> DeviceArray:
    """Squared distances (f, m) from flats of one dimension."""
    axes, centres = (np.stack([getattr(flat, name) for flat in flats])
                     for name in ("axes", "centre"))
    units = axes / np.maximum(np.linalg.norm(axes, axis=2, keepdims=True), 1e-30)
    f, d, p = units.shape
    both = backend.cast(
        backend.array(np.concatenate([units.reshape(-1, p), centres])) @ X.T, backend.wide)
    shift = backend.array(np.einsum("fdp,fp->fd", units, centres), backend.wide)
    inside = both[:f * d].reshape(f, d, len(X)) - shift[:, :, None]
    out = square - 2.0 * both[f * d:] - backend.xp.sum(inside * inside, axis=1)
    lengths = backend.array((centres**2).sum(axis=1), backend.wide)
    return (out + lengths[:, None]).clip(0.0)


def nearest_distance(X: DeviceArray, flats: Sequence[Flat], backend: Backend) -> float:
    """Mean squared distance of rows from the nearest flat."""
    xp = backend.xp
    square = backend.cast(xp.sum(X * X, axis=1), backend.wide)
    least = square
    for number, flat in enumerate(flats):
        own = _residuals(X, square, [flat], backend)[0]
        least = own if number == 0 else xp.minimum(least, own)
    return float(xp.sum(least)) / len(X)
