"""Planted SAE-manifolds: data whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError

Array = NDArray[np.float64]

SHAPES = {"circle": 2, "linear": 1, "plane": 2}


@dataclass(frozen=True)
class Planted:
    """Data with their truth.

    Attributes
    ----------
    Z : (N, p) array
    signal : (N, p) array
        Z without its noise.
    labels : (N,) int array
        The one atom of each row.
    coordinates : list of K arrays (N, d_k)
        Angle of a circle, position on a line or plane; of every row on every atom.
    frames : list of K arrays (width, p)
        Orthonormal frame of each atom.
    noise_sd : float
    weights : (N, K) array or None
        True assignments, where rows mix atoms.
    """

    Z: Array
    signal: Array
    labels: NDArray[np.intp]
    coordinates: list[Array]
    frames: list[Array]
    noise_sd: float
    weights: Array | None = None

    @property
    def explained_variance(self) -> float:
        """Share of the variance of Z that the planted signal explains."""
        total = ((self.Z - self.Z.mean(axis=0)) ** 2).sum()
        return 1.0 - float(((self.Z - self.signal) ** 2).sum() / total)


def planted_mixture(
    n_rows: int,
    n_outputs: int,
    topologies: Sequence[str],
    *,
    noise_sd: float = 0.05,
    radius: float = 1.0,
    orthogonal: bool = True,
    offset: float = 0.0,
    random_state: int | None = 0,
) -> Planted:
    """Rows that each lie on one of K circles, lines or planes, plus Gaussian noise.

    Parameters
    ----------
    n_rows, n_outputs : int
        N and p.
    topologies : sequence of {"circle", "linear", "plane"}
    noise_sd : float >= 0
    radius : float > 0
        Of circles; standard deviation on lines and planes.
    orthogonal : bool
        Mutually orthogonal frames, which needs enough columns; random frames otherwise.
    offset : float
        Length of the random centre of each atom.
    random_state : int or None

    Raises
    ------
    InputError
        Where a topology is unknown or the frames do not fit.
    """
    unknown = [name for name in topologies if name not in SHAPES]
    if unknown:
        raise InputError(f"unknown topology {unknown[0]!r}; use one of {', '.join(SHAPES)}")
    widths = [SHAPES[name] for name in topologies]
    if orthogonal and sum(widths) > n_outputs:
        raise InputError(
            f"{sum(widths)} orthogonal directions need n_outputs >= {sum(widths)}, got "
            f"{n_outputs}; pass orthogonal=False"
        )
    rng = np.random.default_rng(random_state)
    if orthogonal:
        basis = np.linalg.qr(rng.normal(size=(n_outputs, sum(widths))))[0].T
        frames = np.split(basis, np.cumsum(widths)[:-1])
    else:
        frames = [np.linalg.qr(rng.normal(size=(n_outputs, w)))[0].T for w in widths]
    labels = rng.permutation(np.arange(n_rows) % len(widths))
    signal = np.zeros((n_rows, n_outputs))
    coordinates = []
    for k, (name, frame) in enumerate(zip(topologies, frames, strict=True)):
        centre = rng.normal(size=n_outputs)
        centre *= offset / np.linalg.norm(centre)
        if name == "circle":
            t = rng.uniform(-np.pi, np.pi, size=(n_rows, 1))
            local = np.concatenate([np.cos(t), np.sin(t)], axis=1)
        else:
            local = t = rng.normal(size=(n_rows, len(frame)))
        mine = labels == k
        signal[mine] = centre + radius * local[mine] @ frame
        coordinates.append(t)
    Z = signal + noise_sd * rng.normal(size=signal.shape)
    return Planted(Z, signal, labels, coordinates, frames, noise_sd)


def planted_circles(n_rows: int, n_outputs: int, n_atoms: int = 1, **options: object) -> Planted:
    """K circles; the options are those of `planted_mixture`."""
    return planted_mixture(n_rows, n_outputs, ["circle"] * n_atoms, **options)  # type: ignore[arg-type]


def planted_mixed_rows(
    n_rows: int, n_outputs: int, *, noise_sd: float = 0.05, random_state: int | None = 0
) -> Planted:
    """Rows that each mix two orthogonal circles of radius 2 with a logit-normal weight.

    ``labels`` name the atom of the larger weight.
    """
    rng = np.random.default_rng(random_state)
    frames = np.linalg.qr(rng.normal(size=(n_outputs, 4)))[0].T
    t = rng.uniform(-np.pi, np.pi, size=(n_rows, 2))
    a = 1.0 / (1.0 + np.exp(-1.5 * rng.normal(size=n_rows)))
    points = [np.column_stack([np.cos(t[:, k]), np.sin(t[:, k])]) @ frames[2 * k : 2 * k + 2]
              for k in (0, 1)]
    signal = 2.0 * (a[:, None] * points[0] + (1.0 - a)[:, None] * points[1])
    Z = signal + noise_sd * rng.normal(size=signal.shape)
    return Planted(Z, signal, (a < 0.5).astype(np.intp), [t[:, [0]], t[:, [1]]],
                   np.split(frames, 2), noise_sd, np.column_stack([a, 1.0 - a]))
