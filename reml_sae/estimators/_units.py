"""From the units of the data to those of the engine, and back."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np

from reml_sae.errors import DataWarning, InputError
from reml_sae.families import Family
from reml_sae.families.noise import Isotropic, RowNoise
from reml_sae.io import MatrixDigest, RowSource, matrix_digest, read_chunks
from reml_sae.models import SAEManifoldModel
from reml_sae.typing import Array

LARGEST, SMALLEST = 1e140, 1e-140
"""Entries and scales of data whose squares, and sums of them, float64 can hold."""
COARSE = 1e-13
"""Variation, relative to the mean, that keeps too few digits beside it."""
OFFSET_STEPS = 20


@dataclass(frozen=True)
class Units:
    """How the training rows became those that the engine saw.

    Attributes
    ----------
    mean : (p,) array
        Of the columns, rows of unequal scale at their weights.
    offset : (p,) array
        What the predictor adds to the atoms: the column means, on the scale of the link.
    scale : float
        Root mean square of the centred data in the metric of ``noise``, or of the one from which
        atoms got noises of their own, rows of unequal scale at their weights; 1 where they are not
        centred.
    centred : bool
        Whether the engine sees the data less ``offset`` and divided by ``scale``; else it sees
        them as they are, and adds the offset to its predictor.
    digest : str or None
        SHA-256 of the data.
    noise : RowNoise
        In whose metric the engine sees centred data: at first all of them in its first one.
    spread : float or None
        ``scale`` as it was in no metric; None where it was that.
    """

    mean: Array
    offset: Array
    scale: float
    centred: bool
    digest: str | None
    noise: RowNoise
    spread: float | None = None

    @classmethod
    def of(cls, data: Array, family: Family) -> Units:
        """Units of data (N, p): their own where the family has a dispersion, else none.

        Of rows that are of one scale; `with_row_scales` is for others.

        Raises
        ------
        InputError
            Where the squares of the data overflow or underflow.
        """
        mean, scale = _centre_and_scale(data)
        digest, noise = matrix_digest(data), Isotropic(len(mean))
        if family.has_dispersion:
            return cls(mean, mean, scale, True, digest, noise)
        return cls(mean, _column_offset(family, data), 1.0, False, digest, noise)

    def with_row_scales(self, data: Array, family: Family) -> Units:
        """The units in which the family's rows of unequal scale are one at their weights."""
        if not family.has_row_scales:
            return self
        centre, size = family.centre_and_scale((data - self.mean) / self.scale)
        mean = self.mean + self.scale * centre
        return replace(self, mean=mean, offset=mean, scale=self.scale * size)

    @classmethod
    def of_source(cls, source: RowSource) -> Units:
        """Units of the rows of a source under isotropic Gaussian noise, by one pass over them.

        Raises
        ------
        InputError
            Where the rows cannot be read, do not vary, or have squares that overflow or underflow.
        """
        digest, mean = MatrixDigest(source.shape), np.zeros(source.shape[1])
        n, squares, size = 0, 0.0, 0.0
        for data in read_chunks(source):
            check_magnitude(data)
            digest.update(data)
            own, size = data.mean(axis=0), max(size, float(np.abs(data).max()))
            apart, share = own - mean, len(data) / (n + len(data))
            squares += float(((data - own) ** 2).sum()) + n * share * float(apart @ apart)
            mean, n = mean + share * apart, n + len(data)
        scale = float(np.sqrt(squares / (n * len(mean))))
        if not scale > max(COARSE * size, SMALLEST):
            raise InputError(f"{source.name} varies by {scale:.3g} about its column means, entries "
                             f"are up to {size:.3g}: there is no variance that float64 could tell "
                             "from rounding")
        return cls(mean, mean, scale, True, digest.hexdigest(), Isotropic(len(mean)))

    def of_model(self, model: SAEManifoldModel) -> Units:
        """Those of a fitted model, which has chosen its noise."""
        return replace(self, scale=model.unit, noise=model.noise, spread=model.spread)

    def standardised(self, data: Array) -> Array:
        """Data (N, p) as the engine sees them."""
        if not self.centred:
            return data
        first = np.zeros(len(data), np.intp)
        return self.noise.whiten_rows(data - self.offset, first) / self.scale

    @property
    def model_offset(self) -> Array:
        """What the engine's predictor adds to its atoms, (p,)."""
        return np.zeros_like(self.offset) if self.centred else self.offset


def check_magnitude(data: Array, unit: float = 1.0) -> None:
    """Refuse data whose squares, in these units, float64 cannot sum."""
    peak = float(np.abs(data).max(initial=0.0))
    if peak > LARGEST * unit:
        raise InputError(
            f"Z has entries of up to {peak:.3g}, above {LARGEST * unit:g}: their squares in the "
            f"unit of the fit, {unit:.3g}, would overflow; bring Z to other units, or drop those "
            "rows"
        )


def _centre_and_scale(data: Array) -> tuple[Array, float]:
    """Column means (p,), and the root mean square about them.

    Squares are taken of the data relative to their largest entry. The unit of constant data is
    their size, or 1 where that is less.

    Raises
    ------
    InputError
        Where the squares of the data themselves overflow or underflow.
    """
    check_magnitude(data)
    mean = data.mean(axis=0)
    centred = data - mean
    # a power of two, so that dividing by it is exact
    spread = float(np.ldexp(1.0, np.frexp(np.abs(centred).max())[1]))
    unit = spread * float(np.sqrt(np.mean((centred / spread) ** 2))) if centred.any() else 0.0
    size = float(np.abs(mean).max(initial=0.0))
    if not np.ptp(data, axis=0).any():
        warnings.warn(
            "Z is constant: there is no variance for the atoms to explain, and the fit is its mean",
            DataWarning, stacklevel=6,
        )
        return mean, max(size, 1.0)
    if unit < COARSE * size:
        raise InputError(
            f"Z varies by about {unit:.3g} about column means of up to {size:.3g}, beside which "
            "float64 keeps too few digits of it; take the means off before Z is rounded")
    if unit < SMALLEST:
        raise InputError(
            f"Z varies by about {unit:.3g} about its column means, below {SMALLEST:g}: squares in "
            "its units would underflow; bring Z to other units"
        )
    return mean, unit


def _column_offset(family: Family, data: Array) -> Array:
    """Linear predictors (p,) at the column means: what a fit without atoms would predict."""
    start = family.initial_eta(data)
    eta = start.mean(axis=0, keepdims=True)
    psi = family.initial_psi(data)
    for _ in range(OFFSET_STEPS):
        here = np.broadcast_to(eta, data.shape)
        weight = family.weight(data, here, psi, 0).sum(axis=0)
        eta = eta - family.loss_eta(data, here, psi, 1).sum(axis=0) / np.maximum(weight, 1e-300)
        eta = np.clip(eta, start.min(), start.max())
    return eta[0]
