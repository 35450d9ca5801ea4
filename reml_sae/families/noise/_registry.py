"""Kinds of noise by name, and the one that fits best."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from reml_sae.errors import InputError
from reml_sae.families.noise._base import LEAST_SHARE, MARGIN, TINY, Noise, charged
from reml_sae.families.noise.diagonal import Diagonal
from reml_sae.families.noise.factor import Factor
from reml_sae.families.noise.isotropic import Isotropic
from reml_sae.registry import Registry
from reml_sae.typing import Array

ROWS_PER_COLUMN, ROWS_PER_FACTOR = 2, 10
"""Counts of rows: with fewer for every column, what factors hold may be what curves would explain,
and with fewer for every factor the spectrum of the rows has no end that told them from a floor."""
NOISES: Registry[type[Noise]] = Registry(
    "noise", {cls.kind: cls for cls in (Isotropic, Diagonal, Factor)})
"""From the simplest to the one that needs most."""
KINDS = (*NOISES.items, "auto")


@dataclass(frozen=True)
class Factors:
    """The kind of noise that has so many factors, whatever V says of their number."""

    rank: int


@dataclass(frozen=True)
class OneOf:
    """The kind among these that has the lowest V.

    Attributes
    ----------
    kinds : tuple of str
    still : tuple of int
        Columns that do not vary, which have no noise of their own.
    """

    kinds: tuple[str, ...]
    still: tuple[int, ...] = ()

    def alone(self, second: Array) -> Array:
        """A second moment (p, p) of the noise without what decoders leave open of still columns."""
        second, still = second.copy(), list(self.still)
        second[still] = second[:, still] = 0.0
        return second


NoiseKind = str | Factors | OneOf


def tells_factors(second: Array, n_rows: int) -> bool:
    """Whether factors of the noise can be told in rows with a second moment (p, p).

    There are `ROWS_PER_COLUMN` rows to a column or, by their own spectrum, `ROWS_PER_FACTOR` to a
    factor, or it ends in white noise.
    """
    if n_rows >= ROWS_PER_COLUMN * len(second):
        return True
    noise = Factor.best(second, n_rows)
    return n_rows >= ROWS_PER_FACTOR * noise.rank or noise.ends_in_white_noise(n_rows)


def open_kinds(kind: NoiseKind, second: Array, n_rows: int) -> NoiseKind:
    """What a search looks for in rows with a second moment (p, p).

    Factors are not taken unasked where they cannot be told (`tells_factors`).
    """
    if not isinstance(kind, str) or kind == "isotropic":
        return kind
    kinds: tuple[str, ...] = (kind,)
    if kind == "auto":
        told = tells_factors(second, n_rows)
        kinds = tuple(name for name, cls in NOISES.items.items() if told or cls is not Factor)
    variances = np.diag(second)
    still = np.flatnonzero(variances <= LEAST_SHARE * variances.mean())
    return OneOf(kinds, tuple(still.tolist()))


def held_kind(noise: Noise, among: NoiseKind) -> NoiseKind:
    """The kind of a noise that was one of some, with its number of factors."""
    if isinstance(noise, Factor):
        return Factors(noise.rank)
    return replace(among, kinds=(noise.kind,)) if isinstance(among, OneOf) else noise.kind


def best_noise(kind: NoiseKind, second: Array, n_rows: int) -> Noise:
    """The noise of a kind that fits a second moment best; of several kinds, each by a margin.

    Parameters
    ----------
    kind : str, Factors or OneOf
        "auto" is one of all kinds.
    second : (p, p) array
        Second moment of the noise, what is uncertain about the mean included.
    n_rows : int

    Raises
    ------
    InputError
        Where the kind is unknown.
    """
    if isinstance(kind, str) and kind not in KINDS:
        raise InputError(f"noise={kind!r} is unknown; allowed: {', '.join(KINDS)}")
    if not np.trace(second) > TINY / LEAST_SHARE:
        return Isotropic(len(second))
    if isinstance(kind, Factors):
        return Factor.of_rank(second, kind.rank)
    best: Noise | None = None
    lowest = np.inf
    if isinstance(kind, str):
        kind = OneOf(tuple(NOISES.items) if kind == "auto" else (kind,))
    second = kind.alone(second)
    for name in kind.kinds:
        noise = NOISES.get(name).best(second, n_rows)
        value = charged(noise, second, n_rows)
        if best is None or value < lowest - MARGIN:
            best, lowest = noise, value
    assert best is not None
    return best
