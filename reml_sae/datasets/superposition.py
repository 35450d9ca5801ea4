"""The manifold superposition toy of block-sparse featurizers (arXiv 2606.25234).

Half of the factors are segments, the others take the seven curved kinds in turn:

===========  =====  =====================================================================
kind         width  points of parameters that are uniform in their ranges
===========  =====  =====================================================================
segment      1      t in [-1, 1]
circle       2      angle
disk         2      radius sqrt(u), angle: uniform on the disk
sphere       3      unit vector
torus        3      two angles; R = 1, r = 0.4
mobius       3      a = 1 + t cos(phi / 2), (a cos phi, a sin phi, t sin(phi / 2)), |t| <= 1/2
swiss_roll   3      (th cos th, th sin th, height), th in [1.5 pi, 4.5 pi], height in [-1, 1]
helix        3      (cos th, sin th, th / 4), th in [0, 4 pi]
===========  =====  =====================================================================

Each factor is centred, divided by the root mean square length of its points and embedded by a
random orthonormal map; a row is the sum of a few distinct ones. Factors may be of unequal
frequency, have amplitudes, and rows noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError
from reml_sae.typing import Array

CURVED = ("circle", "disk", "sphere", "torus", "mobius", "swiss_roll", "helix")
SCALING_DRAWS = 50_000


@dataclass(frozen=True)
class Superposition:
    """Rows that superpose factors, with their truth.

    Attributes
    ----------
    Z : (N, p) array
    kinds : tuple of K str
    support : (N, K) bool
        Which factors each row sums.
    contributions : list of K arrays (n_k, p)
        What factor k adds to the rows where it is present, in their order, amplitude and all.
    """

    Z: Array
    kinds: tuple[str, ...]
    support: NDArray[np.bool_]
    contributions: list[Array]


def superposed_manifolds(
    n_rows: int, n_outputs: int, n_factors: int, n_active: int, *, decay: float = 0.0,
    amplitude_sd: float = 0.0, noise_sd: float = 0.0, random_state: int | None = 0,
) -> Superposition:
    """Rows that each sum some distinct factors.

    Parameters
    ----------
    n_rows, n_outputs : int
        N and p.
    n_factors : int
        K; the first half of them, rounded up, are segments.
    n_active : int
        Factors in a row.
    decay : float
        Those of a row are drawn one after the other with weights 1 / r^decay, r = 1 .. K in an
        order by chance.
    amplitude_sd : float
        Standard deviation of the log amplitude of a factor in a row.
    noise_sd : float
        Root mean square length of a row's noise; that of a factor is one.
    random_state : int or None

    Raises
    ------
    InputError
        Where there are fewer factors than a row sums, or columns than a factor needs, or one of the
        last three numbers is negative or not finite.
    """
    for name, value in (("decay", decay), ("amplitude_sd", amplitude_sd), ("noise_sd", noise_sd)):
        if not 0.0 <= value < np.inf:
            raise InputError(f"{name} must be finite and not negative, got {value!r}")
    if not 1 <= n_active <= n_factors:
        raise InputError(f"n_active must lie in 1..n_factors = {n_factors}, got {n_active!r}")
    segments = (n_factors + 1) // 2
    kinds = ("segment",) * segments + tuple(
        CURVED[k % len(CURVED)] for k in range(n_factors - segments))
    rng = np.random.default_rng(random_state)
    support = np.zeros((n_rows, n_factors), bool)
    # the least of exponential waiting times
    waiting = -np.log1p(-rng.random((n_rows, n_factors)))
    if decay:
        waiting *= rng.permutation(np.arange(1.0, n_factors + 1.0) ** decay)
    chosen = waiting.argsort(axis=1)[:, :n_active]
    np.put_along_axis(support, chosen, True, axis=1)
    Z, contributions = np.zeros((n_rows, n_outputs)), []
    for kind, mine in zip(kinds, support.T, strict=True):
        reference = _DRAW[kind](rng, SCALING_DRAWS)
        centre = reference.mean(axis=0)
        size = np.sqrt(((reference - centre) ** 2).sum(axis=1).mean())
        width = reference.shape[1]
        if width > n_outputs:
            raise InputError(f"{kind!r} needs n_outputs >= {width}, got {n_outputs}")
        frame = np.linalg.qr(rng.normal(size=(n_outputs, width)))[0].T
        own = (_DRAW[kind](rng, int(mine.sum())) - centre) / size @ frame
        if amplitude_sd:
            own *= np.exp(amplitude_sd * rng.normal(size=(len(own), 1)))
        contributions.append(own)
        Z[mine] += own
    if noise_sd:
        Z += noise_sd / np.sqrt(n_outputs) * rng.normal(size=Z.shape)
    return Superposition(Z, kinds, support, contributions)


def _segment(rng: np.random.Generator, n: int) -> Array:
    return rng.uniform(-1.0, 1.0, size=(n, 1))


def _ring(t: Array) -> Array:
    return np.column_stack([np.cos(t), np.sin(t)])


def _circle(rng: np.random.Generator, n: int) -> Array:
    return _ring(rng.uniform(0.0, 2.0 * np.pi, size=n))


def _disk(rng: np.random.Generator, n: int) -> Array:
    return np.sqrt(rng.uniform(size=(n, 1))) * _circle(rng, n)


def _sphere(rng: np.random.Generator, n: int) -> Array:
    t = rng.normal(size=(n, 3))
    return np.asarray(t / np.linalg.norm(t, axis=1, keepdims=True), float)


def _torus(rng: np.random.Generator, n: int) -> Array:
    tube = 0.4 * _circle(rng, n)
    return np.column_stack([(1.0 + tube[:, :1]) * _circle(rng, n), tube[:, 1]])


def _mobius(rng: np.random.Generator, n: int) -> Array:
    phi, t = rng.uniform(0.0, 2.0 * np.pi, size=n), rng.uniform(-0.5, 0.5, size=n)
    out = 1.0 + t * np.cos(phi / 2.0)
    return np.column_stack([out[:, None] * _ring(phi), t * np.sin(phi / 2.0)])


def _swiss_roll(rng: np.random.Generator, n: int) -> Array:
    turn = rng.uniform(1.5 * np.pi, 4.5 * np.pi, size=n)
    return np.column_stack([turn[:, None] * _ring(turn), rng.uniform(-1.0, 1.0, size=n)])


def _helix(rng: np.random.Generator, n: int) -> Array:
    turn = rng.uniform(0.0, 4.0 * np.pi, size=n)
    return np.column_stack([_ring(turn), 0.25 * turn])


_DRAW: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "segment": _segment, "circle": _circle, "disk": _disk, "sphere": _sphere, "torus": _torus,
    "mobius": _mobius, "swiss_roll": _swiss_roll, "helix": _helix,
}
