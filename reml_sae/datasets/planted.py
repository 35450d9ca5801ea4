"""Planted SAE-manifolds: data whose truth is known.

Row i is sum over its atoms k of a_ik (c_k + radius x_k(t_ik) F_k) plus Gaussian noise, with x_k the
points of a shape (`reml_sae.datasets._shapes` has the table of names and coordinates), F_k an
orthonormal frame and c_k a centre. `gaussian_control` has no structure to be found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reml_sae.datasets._shapes import SHAPES
from reml_sae.errors import InputError
from reml_sae.typing import Array


@dataclass(frozen=True)
class Planted:
    """Data with their truth.

    Attributes
    ----------
    Z : (N, p) array
    signal : (N, p) array
        Z without its noise.
    labels : (N,) int array
        The strongest atom of each row, the first of equal ones; the one atom where rows have one.
    coordinates : list of K arrays (N, d_k)
        Of every row on every atom, those that the row does not use included.
    frames : list of K arrays (width, p)
        Orthonormal frame of each atom.
    noise_sd : float
    topologies : tuple of K str
    support : (N, K) bool
        Which atoms each row uses.
    amplitudes : (N, K) array
        Zero off the support.
    """

    Z: Array
    signal: Array
    labels: NDArray[np.intp]
    coordinates: list[Array]
    frames: list[Array]
    noise_sd: float
    topologies: tuple[str, ...]
    support: NDArray[np.bool_]
    amplitudes: Array

    def __repr__(self) -> str:
        return (f"<Planted {', '.join(self.topologies)}: {len(self.Z)} rows, {self.Z.shape[1]} "
                f"columns, noise sd {self.noise_sd:.4g}>")

    @property
    def explained_variance(self) -> float:
        """Share of the variance of Z that the planted signal explains."""
        total = ((self.Z - self.Z.mean(axis=0)) ** 2).sum()
        return 1.0 - float(((self.Z - self.signal) ** 2).sum() / total)

    @property
    def weights(self) -> Array:
        """Share of each atom in its row, (N, K): amplitudes over their sum."""
        return self.amplitudes / self.amplitudes.sum(axis=1, keepdims=True)

    def rows(self, index: slice | NDArray[np.generic]) -> Planted:
        """The same plant with some of its rows: a training or a held-out part."""
        return replace(
            self, Z=self.Z[index], signal=self.signal[index], labels=self.labels[index],
            coordinates=[t[index] for t in self.coordinates], support=self.support[index],
            amplitudes=self.amplitudes[index])


def planted_manifolds(
    n_rows: int,
    n_outputs: int,
    topologies: Sequence[str],
    *,
    n_active: int = 1,
    n_active_range: tuple[int, int] | None = None,
    noise_sd: float = 0.05,
    radius: float = 1.0,
    amplitude_sd: float = 0.0,
    imbalance: float = 1.0,
    orthogonal: bool = False,
    offset: float = 0.0,
    random_state: int | None = 0,
) -> Planted:
    """Rows that each superpose some of K shapes, plus Gaussian noise.

    Parameters
    ----------
    n_rows, n_outputs : int
        N and p.
    topologies : sequence of K str
        Each "circle", "ellipse" (axes 1 and 0.6), "interval" (an arc of 270 degrees), "linear",
        "plane", "torus" (in R^4), "donut" (in R^3, tube 0.4), "cylinder", "sphere", "mobius",
        "projective_plane" (in R^5) or "curved_sheet" (a paraboloid).
    n_active : int
        Atoms in each row.
    n_active_range : (int, int) or None
        Fewest and most atoms in a row, drawn uniformly; replaces ``n_active``.
    noise_sd : float >= 0
    radius : float > 0
        Of circles and spheres; scale of every shape.
    amplitude_sd : float >= 0
        Amplitudes are exp(amplitude_sd N(0, 1)).
    imbalance : float >= 1
        How many times oftener the first atom is used than the last; geometric between.
    orthogonal : bool
        Mutually orthogonal frames, which needs enough columns; random frames otherwise.
    offset : float
        Length of the random centre of each atom.
    random_state : int or None

    Raises
    ------
    InputError
        Where a topology is unknown, the frames do not fit, or rows cannot have so many atoms.
    """
    low, high = (n_active, n_active) if n_active_range is None else n_active_range
    widths = _check(topologies, n_outputs, orthogonal, low, high, imbalance)
    rng = np.random.default_rng(random_state)
    frames = _frames(rng, widths, n_outputs, orthogonal)
    share = np.geomspace(imbalance, 1.0, len(widths))
    share /= share.sum()
    if low == high == 1:
        support = rng.permutation(_deal(n_rows, share))[:, None] == np.arange(len(widths))
    else:
        support = _subsets(rng, rng.integers(low, high, size=n_rows, endpoint=True), share)
    points, coordinates = [], []
    for name, frame in zip(topologies, frames, strict=True):
        centre = rng.normal(size=n_outputs)
        centre *= offset / np.linalg.norm(centre)
        coordinates.append(SHAPES[name].draw(rng, n_rows))
        points.append((centre, radius * SHAPES[name].embed(coordinates[-1]), frame))
    amplitudes = support.astype(float)
    if amplitude_sd > 0.0:
        amplitudes *= np.exp(amplitude_sd * rng.normal(size=support.shape))
    signal = np.zeros((n_rows, n_outputs))
    for k, (centre, local, frame) in enumerate(points):
        mine = support[:, k]
        signal[mine] += amplitudes[mine, k, None] * (centre + local[mine] @ frame)
    Z = signal + noise_sd * rng.normal(size=signal.shape)
    return Planted(Z, signal, amplitudes.argmax(axis=1), coordinates, frames, noise_sd,
                   tuple(topologies), support, amplitudes)


def planted_mixture(
    n_rows: int, n_outputs: int, topologies: Sequence[str], *, orthogonal: bool = True,
    **options: object,
) -> Planted:
    """One atom a row on mutually orthogonal frames; the options are of `planted_manifolds`."""
    return planted_manifolds(
        n_rows, n_outputs, topologies, orthogonal=orthogonal, **options)  # type: ignore[arg-type]


def planted_circles(n_rows: int, n_outputs: int, n_atoms: int = 1, **options: object) -> Planted:
    """K circles; the options are those of `planted_mixture`."""
    return planted_mixture(n_rows, n_outputs, ["circle"] * n_atoms, **options)  # type: ignore[arg-type]


def planted_mixed_rows(
    n_rows: int, n_outputs: int, *, noise_sd: float = 0.05, random_state: int | None = 0
) -> Planted:
    """Rows that each mix two orthogonal circles of radius 2 with a logit-normal weight.

    The amplitudes are the weights and sum to 1.
    """
    rng = np.random.default_rng(random_state)
    frames = np.linalg.qr(rng.normal(size=(n_outputs, 4)))[0].T
    t = rng.uniform(-np.pi, np.pi, size=(n_rows, 2))
    a = 1.0 / (1.0 + np.exp(-1.5 * rng.normal(size=n_rows)))
    points = [SHAPES["circle"].embed(t[:, [k]]) @ frames[2 * k : 2 * k + 2] for k in (0, 1)]
    signal = 2.0 * (a[:, None] * points[0] + (1.0 - a)[:, None] * points[1])
    Z = signal + noise_sd * rng.normal(size=signal.shape)
    return Planted(Z, signal, (a < 0.5).astype(np.intp), [t[:, [0]], t[:, [1]]],
                   np.split(frames, 2), noise_sd, ("circle", "circle"),
                   np.ones((n_rows, 2), bool), np.column_stack([a, 1.0 - a]))


def gaussian_control(
    n_rows: int, n_outputs: int, *, rank: int = 2, noise_sd: float = 0.05,
    random_state: int | None = 0,
) -> Array:
    """Gaussian rows (N, p) without any shape: what topology discovery must not find curved.

    The covariance is L'L + noise_sd^2 I with random L (rank, p); the part of L has mean square
    length about 1, as a circle of radius 1 has.
    """
    if not 1 <= rank <= n_outputs:
        raise InputError(f"rank must lie in 1..n_outputs = {n_outputs}, got {rank!r}")
    rng = np.random.default_rng(random_state)
    loadings = rng.normal(size=(rank, n_outputs)) / np.sqrt(rank * n_outputs)
    return (rng.normal(size=(n_rows, rank)) @ loadings
            + noise_sd * rng.normal(size=(n_rows, n_outputs)))


def _check(topologies: Sequence[str], n_outputs: int, orthogonal: bool, low: int, high: int,
           imbalance: float) -> list[int]:
    """Widths of the shapes, where everything fits."""
    if not topologies:
        raise InputError("topologies is empty; name at least one")
    unknown = [name for name in topologies if name not in SHAPES]
    if unknown:
        raise InputError(f"unknown topology {unknown[0]!r}; use one of {', '.join(SHAPES)}")
    widths = [SHAPES[name].width for name in topologies]
    total = sum(widths)
    if orthogonal and total > n_outputs:
        raise InputError(f"{total} orthogonal directions need n_outputs >= {total}, got "
                         f"{n_outputs}; pass orthogonal=False")
    if max(widths) > n_outputs:
        raise InputError(f"{topologies[int(np.argmax(widths))]!r} needs n_outputs >= "
                         f"{max(widths)}, got {n_outputs}")
    if not 1 <= low <= high <= len(widths):
        raise InputError(f"rows can have 1..{len(widths)} atoms, lowest first; got {low} to {high}")
    if not imbalance >= 1.0:
        raise InputError(f"imbalance must be >= 1, got {imbalance!r}")
    share = np.geomspace(imbalance, 1.0, len(widths))
    if high > 1 and high * share[0] > share.sum() * (1.0 + 1e-9):
        raise InputError(f"imbalance = {imbalance!r} asks for the first atom in more than every "
                         f"row of {high} atoms; lower it or the number of active atoms")
    return widths


def _frames(rng: np.random.Generator, widths: list[int], p: int, orthogonal: bool) -> list[Array]:
    if orthogonal:
        basis = np.linalg.qr(rng.normal(size=(p, sum(widths))))[0].T
        return np.split(basis, np.cumsum(widths)[:-1])
    return [np.linalg.qr(rng.normal(size=(p, w)))[0].T for w in widths]


def _deal(n: int, share: Array) -> NDArray[np.intp]:
    """Atom of each of n rows in turn, in proportion to the shares (Sainte-Lague's quotients)."""
    seats = np.minimum(np.ceil(n * share).astype(int) + 1, n)
    atom = np.repeat(np.arange(len(share)), seats)
    turn = np.concatenate([np.arange(s) for s in seats])
    return atom[np.lexsort((atom, (turn + 0.5) / share[atom]))[:n]]


def _subsets(rng: np.random.Generator, sizes: NDArray[np.intp], share: Array) -> NDArray[np.bool_]:
    """Random subsets (N, K) of given sizes, each atom in as many as its share.

    Systematic sampling in an order of its own for each row: the atoms lie end to end as segments
    of length size * share <= 1, and those that a comb of unit spacing meets are taken.
    """
    order = rng.random((len(sizes), len(share))).argsort(axis=1)
    ends = np.cumsum(share[order], axis=1)
    ends *= (sizes / ends[:, -1])[:, None]
    teeth = np.floor(ends - rng.random((len(sizes), 1)))
    taken = np.diff(teeth, axis=1, prepend=-1.0) > 0.5
    support = np.zeros_like(taken)
    np.put_along_axis(support, order, taken, axis=1)
    return support
