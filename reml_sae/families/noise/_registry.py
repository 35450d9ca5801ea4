"""Kinds of noise by name, and the one that fits best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reml_sae.errors import InputError
from reml_sae.families.noise._base import LEAST_SHARE, TINY, Noise, charged
from reml_sae.families.noise.diagonal import Diagonal
from reml_sae.families.noise.factor import Factor
from reml_sae.families.noise.isotropic import Isotropic
from reml_sae.registry import Registry
from reml_sae.typing import Array

MARGIN = 3.0
"""Nats by which another noise must beat the isotropic one, and each kind those before it: a spread
that V chooses is positive half of the time where there is none."""
ROWS_PER_COLUMN = 2
"""Count of rows from which factors are taken where nothing is said of the noise: with fewer their
variances are far from those of the sample, and they hold what curves would explain."""
NOISES: Registry[type[Noise]] = Registry(
    "noise", {cls.kind: cls for cls in (Isotropic, Diagonal, Factor)})
"""From the simplest to the one that needs most."""
KINDS = (*NOISES.items, "auto")


@dataclass(frozen=True)
class Factors:
    """The kind of noise that has so many factors, whatever V says of their number."""

    rank: int


NoiseKind = str | Factors


def has_rows_for_factors(n_rows: int, n_columns: int) -> bool:
    """Whether there are ``ROWS_PER_COLUMN`` rows for every column."""
    return n_rows >= ROWS_PER_COLUMN * n_columns


def best_noise(kind: NoiseKind, second: Array, n_rows: int) -> Noise:
    """The noise of a kind that fits a second moment best; of all kinds where it is "auto".

    That has factors only where there are rows enough (`has_rows_for_factors`).

    Parameters
    ----------
    kind : str or Factors
    second : (p, p) array
        Second moment of the noise, what is uncertain about the mean included.
    n_rows : int

    Raises
    ------
    InputError
        Where the kind is unknown.
    """
    if not isinstance(kind, Factors) and kind not in KINDS:
        raise InputError(f"noise={kind!r} is unknown; allowed: {', '.join(KINDS)}")
    if not np.trace(second) > TINY / LEAST_SHARE:
        return Isotropic(len(second))
    if isinstance(kind, Factors):
        return Factor.of_rank(second, kind.rank)
    best: Noise | None = None
    lowest = np.inf
    enough = has_rows_for_factors(n_rows, len(second))
    for name, cls in NOISES.items.items():
        if kind == name or (kind == "auto" and (enough or cls is not Factor)):
            noise = cls.best(second, n_rows)
            value = charged(noise, second, n_rows)
            if best is None or value < lowest - MARGIN:
                best, lowest = noise, value
    assert best is not None
    return best
