"""What the curves of a fit by sweeps are worth over flats in their places.

A flat of d dimensions is a cloud z ~ N(c, W^T W + phi I), W (d, p), of the rows of an atom, with
the noise phi of the fit; it has no amplitudes. Its axes are the principal ones within the span of
the atom's decoder, where sums over rows say all of it. Curve and flat are both priced as the
objective of the sweeps prices a decoder (`update`), with nearly the best size s of W. Of a flat
whose axes have the variances l_j > phi, and that leaves w of a row, coordinates have the mean
square one, and with s = p d / sum_j (l_j - phi), or its bound, it costs

    n [ p log(2 pi phi) + sum_j (log(l_j / phi) + 1) + w / phi ] / 2
        + [ |c|^2 + s sum_j (l_j - phi) + p log(1 + n / phi) + p d log(1 + n / (s phi)) ] / 2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from reml_sae.manifolds import Euclidean, Manifold
from reml_sae.penalties.quadratic import LEAST_SIZE
from reml_sae.sweeps.rows import RowCodes, SweepSums
from reml_sae.sweeps.state import SweepKind, SweepState, kinds_of_atoms
from reml_sae.sweeps.update import decoder_costs
from reml_sae.typing import Array, Index

LEAST_ROWS = 8
"""Rows that have a shape."""
MOST_FLAT = 4
"""Count of dimensions of a flat at most, as in the search."""


@dataclass(frozen=True, eq=False)
class SpanMoments:
    """Moments of rows (r numbers in the span of their atom's decoder, and what lies beside it).

    Attributes
    ----------
    counts : (k,) rows of every atom
    sums : (k, r) array
    squares : (k, r, r) array
    beside : (k,) squared lengths beside the spans
    """

    counts: Index
    sums: Array
    squares: Array
    beside: Array

    def __add__(self, other: SpanMoments) -> SpanMoments:
        """Of both groups of rows."""
        return SpanMoments(self.counts + other.counts, self.sums + other.sums,
                           self.squares + other.squares, self.beside + other.beside)

    @cached_property
    def _principal(self) -> tuple[Array, Array, Array]:
        """Centres (k, r), variances (k, r) along principal axes, the largest first, and axes."""
        n = np.maximum(self.counts, 1).astype(float)
        centre = self.sums / n[:, None]
        covariance = self.squares / n[:, None, None] - centre[:, :, None] * centre[:, None]
        values, vectors = np.linalg.eigh(covariance)
        return centre, np.maximum(values[:, ::-1], 0.0), vectors[:, :, ::-1]

    def flats(self, phi: float, p: int, most: int) -> tuple[Array, Index]:
        """Nats (k,) of the best flat of one to so many dimensions for every atom, and these."""
        n, (centre, variances, _) = np.maximum(self.counts, 1).astype(float), self._principal
        whole, nats = variances.sum(axis=1) + self.beside / n, []
        for d in range(1, min(most, variances.shape[1]) + 1):
            own = np.maximum(variances[:, :d], phi)
            rest = whole - variances[:, :d].sum(axis=1)
            fit = (p * np.log(2.0 * np.pi * phi) + np.log(own / phi).sum(axis=1) + rest / phi
                   + (variances[:, :d] / own).sum(axis=1))
            length = (own - phi).sum(axis=1)
            size = best_size(p * d, length)
            price = ((centre**2).sum(axis=1) + size * length + p * np.log1p(n / phi)
                     + p * d * np.log1p(n / (size * phi)))
            nats.append(0.5 * (n * fit + price))
        return np.min(nats, axis=0), 1 + np.argmin(nats, axis=0)

    def decoder(self, k: int, d: int, phi: float, frame: Array) -> Array:
        """Decoder (d + 1, p) of the flat in the place of the k-th, in its span (p, r)."""
        centre, variances, axes = self._principal
        lengths = np.sqrt(np.maximum(variances[k, :d] - phi, 0.0))
        return np.concatenate([centre[k][None], lengths[:, None] * axes[k, :, :d].T]) @ frame.T


def over_flat(
    state: SweepState, sums: SweepSums, codes: RowCodes, moments: list[SpanMoments]
) -> Array:
    """Nats a row (K,) by which flats are above the curves; nan of atoms whose rows have no shape.

    Parameters
    ----------
    state, sums, codes
        Of one sweep.
    moments : list of SpanMoments
        Of the rows of every kind at these codes.
    """
    values = np.bincount(codes.labels, codes.values, state.n_atoms)
    out = np.full(state.n_atoms, np.nan)
    for number, (kind, own) in enumerate(zip(state.kinds, moments, strict=True)):
        p = state.decoders[number].shape[2]
        flats, _ = own.flats(state.dispersion, p, _most(kind))
        curves = values[kind.atoms] + decoder_costs(state, sums, number)
        known = own.counts >= LEAST_ROWS
        out[kind.atoms[known]] = (flats - curves)[known] / own.counts[known]
    return out


def best_size(count: int, square: Array) -> Array:
    """Nearly the best strength of the size of so many coefficients with sums of squares (k,)."""
    strongest = LEAST_SIZE**-2
    return np.asarray(count / np.maximum(square, count / strongest))


def _most(kind: SweepKind) -> int:
    """Dimensions of a flat that has no more parameters than an atom of a kind."""
    return min(kind.manifold.basis_size - 1, MOST_FLAT)


def with_flats(
    state: SweepState, rises: Array, moments: list[SpanMoments], frames: Sequence[Array]
) -> tuple[list[Manifold], SweepState] | None:
    """Atoms and state with the best flat in the place of every curve that is not above it.

    Parameters
    ----------
    state : SweepState
    rises : (K,) array
        `over_flat`.
    moments : list of SpanMoments
    frames : sequence of (k, p, r) arrays
        Orthonormal bases of the spans of the decoders of every kind.

    Returns
    -------
    None where there is no such curve.
    """
    atoms: list[Manifold | None] = [None] * state.n_atoms
    decoders: list[Array] = [np.zeros(0)] * state.n_atoms
    strengths: list[Array] = [np.zeros(0)] * state.n_atoms
    changed = False
    for number, (kind, own) in enumerate(zip(state.kinds, moments, strict=True)):
        p = state.decoders[number].shape[2]
        _, dims = own.flats(state.dispersion, p, _most(kind))
        for place, k in enumerate(kind.atoms):
            if rises[k] <= 0.0 and not kind.is_flat:
                d, changed = int(dims[place]), True
                atoms[k] = Euclidean(d, 1)
                decoders[k] = own.decoder(place, d, state.dispersion, frames[number][place])
                strengths[k] = best_size(p * d, np.array([(decoders[k][1:] ** 2).sum()]))
            else:
                atoms[k], decoders[k] = kind.manifold, state.decoders[number][place]
                strengths[k] = state.strengths[number][place]
    if not changed:
        return None
    known = [atom for atom in atoms if atom is not None]
    kinds = kinds_of_atoms(known)
    return known, replace(
        state, kinds=kinds,
        decoders=tuple(np.stack([decoders[k] for k in kind.atoms]) for kind in kinds),
        strengths=tuple(np.stack([strengths[k] for k in kind.atoms]) for kind in kinds))
