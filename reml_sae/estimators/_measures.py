"""What codes are worth: sparsity, explained variance, bits, and a linear dictionary beside them.

Bits of a row are what its code costs to write: log2 of the number of supports of its size (and of
the sizes that there are), and its numbers at the resolution of their posterior sd, which take the
Kullback-Leibler divergence of the row's Laplace posterior from its prior: log2(2 pi / (sd
sqrt(2 pi e))) of an angle. Of a linear dictionary they are log2 of its supports, and
(1/2) log2(1 + s^2 / sigma^2), which is the same for a normal score of mean square s^2 at the noise
variance sigma^2 that the dictionary leaves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from reml_sae.estimators._codes import Codes
from reml_sae.estimators._fitted import FittedSAE
from reml_sae.estimators._harvest import fitted_codes
from reml_sae.estimators._streaming import Spread, explained, spread_of_codes
from reml_sae.models.sae.rows import row_rates
from reml_sae.relaxations.dictionary import block_dictionary
from reml_sae.relaxations.policy import BlockPolicy
from reml_sae.typing import Array, Index, Mask

MOST_LINEAR = 32
"""Atoms a row of the largest linear code that is tried."""
COMPARED_ROWS = 20_000
"""Rows from which a linear dictionary is learned at most: it needs them in memory at once."""


@dataclass(frozen=True)
class Metrics:
    """How well, and how shortly, codes describe rows.

    Attributes
    ----------
    n_rows : int
    n_active : float
        Mean number of atoms that a row uses (L0): those whose coordinate it carries, and its first
        one under softmax.
    n_numbers : float
        Mean count of numbers of a code: the coordinates of the atoms in use, their intrinsic
        dimension each, and the free amplitudes.
    bits_per_row : float
        Mean length of a code; `reml_sae.estimators._measures` states the coding.
    explained_variance : float
        What `score` is: about the mean of these rows, rows at their weights; of families but the
        Gaussian the share of the deviance.
    mse : float
        Mean squared error of an entry, rows at their weights, in the squared units of Z.
    dead_atoms : tuple of int
        Atoms that none of these rows uses; under softmax, that are the first one of none.
    """

    n_rows: int
    n_active: float
    n_numbers: float
    bits_per_row: float
    explained_variance: float
    mse: float
    dead_atoms: tuple[int, ...]

    def __str__(self) -> str:
        dead = ", ".join(map(str, self.dead_atoms)) or "none"
        return (f"rows {self.n_rows}, atoms a row {self.n_active:.3g}, "
                f"numbers a row {self.n_numbers:.3g}, bits a row {self.bits_per_row:.1f}\n"
                f"explained variance {self.explained_variance:.4f}, mse {self.mse:.4g}\n"
                f"dead atoms: {dead}")

    __repr__ = __str__


@dataclass(frozen=True)
class LinearComparison:
    """A linear dictionary with so many atoms a row, beside the fit, on the same rows.

    Attributes
    ----------
    n_atoms : int
        Of the dictionary: as many vectors as the decoders have.
    n_rows : int
        Rows on which both are compared.
    bits, n_numbers, explained_variance : float
        Of the fit, as in `Metrics`.
    linear_bits, linear_explained : (S + 1,) arrays
        Of the linear codes with 0, 1, .. S atoms a row.
    at_equal_bits, at_equal_numbers : float
        Explained variance of the linear codes at the fit's bits and at its numbers a row. Between
        codes of S and of S + 1 atoms a row it is that of the mixture of both which is as long: the
        straight line between them, which `print` names. NaN where no code is as long.
    """

    n_atoms: int
    n_rows: int
    bits: float
    n_numbers: float
    explained_variance: float
    linear_bits: Array
    linear_explained: Array

    @property
    def at_equal_bits(self) -> float:
        """Explained variance of the linear codes at the fit's bits."""
        return float(np.interp(self.bits, self._lengths, self.linear_explained, right=np.nan))

    @property
    def at_equal_numbers(self) -> float:
        """Explained variance of the linear codes at the fit's numbers a row."""
        return float(np.interp(self.n_numbers, self._sizes, self.linear_explained, right=np.nan))

    @property
    def _lengths(self) -> Array:
        return np.asarray(np.maximum.accumulate(self.linear_bits))

    @property
    def _sizes(self) -> Array:
        return np.arange(len(self.linear_explained), dtype=float)

    def _line(self, what: str, at: float, sizes: Array, value: float) -> str:
        """A row of the table; where it lies between two codes, their numbers of atoms a row."""
        place = float(np.interp(at, sizes, self._sizes, right=np.nan))
        if np.isnan(place):
            atoms = f"more than {len(sizes) - 1}"
        elif place == int(place):
            atoms = f"{place:.0f}"
        else:
            atoms = f"{int(place)}..{int(place) + 1}"
        return f"{what:<28}{self.explained_variance:>8.4f}{value:>20.4f}{atoms:>14}"

    def __str__(self) -> str:
        return "\n".join([
            f"{'':<28}{'fit':>8}{f'linear, {self.n_atoms} atoms':>20}{'atoms a row':>14}",
            self._line(f"at {self.bits:.1f} bits a row", self.bits, self._lengths,
                       self.at_equal_bits),
            self._line(f"at {self.n_numbers:.3g} numbers a row", self.n_numbers, self._sizes,
                       self.at_equal_numbers),
            f"explained variance about the mean of {self.n_rows} rows; S..S+1: on the straight "
            "line between linear codes of S and of S + 1 atoms a row"])

    __repr__ = __str__


@dataclass(frozen=True, eq=False)
class TopRows:
    """Rows that use an atom most, the strongest first.

    Attributes
    ----------
    index : (n,) int array
        Numbers of the training rows.
    amplitudes : (n,) array
    coordinates : (n, d) array
    """

    index: Index
    amplitudes: Array
    coordinates: Array

    def __len__(self) -> int:
        return len(self.index)

    def __str__(self) -> str:
        lines = [f"{'row':>8}{'amplitude':>12}  coordinates"]
        for row, amplitude, t in zip(self.index, self.amplitudes, self.coordinates, strict=True):
            lines.append(f"{row:>8}{amplitude:>12.4g}  {' '.join(f'{x:.4g}' for x in t)}")
        return "\n".join(lines)

    __repr__ = __str__


def top_rows(codes: Codes, k: int, n: int) -> TopRows:
    """The ``n`` rows with the largest amplitudes of atom k, among those that carry it."""
    rows, amplitudes, coordinates = codes.of_atom(k)
    order = np.argsort(-amplitudes, kind="stable")[:n]
    return TopRows(rows[order], amplitudes[order], coordinates[order])


def used_atoms(fitted: FittedSAE, codes: Codes) -> Mask:
    """Atoms (N, K) that a row carries a coordinate of, or counts as one of."""
    placed = np.array([atom.topology.latent_dim > 0 for atom in fitted.atoms])
    return np.asarray(fitted.assignment.users(codes.assignments, codes.gates)
                      | (codes.gates & placed & (codes.assignments != 0.0)))


@dataclass(frozen=True)
class Tally:
    """What codes of some rows add up to, from which `Metrics` of them are.

    Attributes
    ----------
    n_rows : int
    n_active, n_numbers, bits, squares : float
        Sums over the rows; the squares are of the error, rows at their weights.
    users : (K,) int array
        Rows that count as one of each atom's.
    spread : Spread
    """

    n_rows: int
    n_active: float
    n_numbers: float
    bits: float
    squares: float
    users: Index
    spread: Spread

    def __add__(self, other: Tally) -> Tally:
        """Of both groups of rows."""
        return Tally(**{item.name: getattr(self, item.name) + getattr(other, item.name)
                        for item in fields(self)})

    def metrics(self) -> Metrics:
        """What they are a row.

        Raises
        ------
        InputError
            Where the rows have no variance.
        """
        n = self.n_rows
        return Metrics(
            n_rows=n, n_active=self.n_active / n, n_numbers=self.n_numbers / n,
            bits_per_row=self.bits / n, explained_variance=explained([self.spread]),
            mse=self.squares / (self.spread.weight * len(self.spread.mean)),
            dead_atoms=tuple(int(k) for k in np.flatnonzero(self.users == 0)))


def tally_of(fitted: FittedSAE, data: Array) -> tuple[Tally, Array]:
    """`Tally` of data (n, p), and the weights of its rows."""
    model, theta = fitted.encoded(fitted.units.standardised(data))
    codes = fitted_codes(model, theta, fitted.rho)
    used = used_atoms(fitted, codes)
    size = used.sum(axis=1)
    dims = np.array([atom.topology.intrinsic_dim if atom.topology.latent_dim else 0
                     for atom in fitted.atoms])
    bits = row_rates(model, theta, fitted.rho) / np.log(2.0) + _support_bits(fitted, size)
    errors = ((data - fitted.decode_codes(codes)) ** 2).sum(axis=1)
    tally = Tally(
        n_rows=len(data), n_active=float(size.sum()),
        n_numbers=float((used @ dims + size - fitted.assignment.is_mixture).sum()),
        bits=float(bits.sum()), squares=float(codes.weights @ errors),
        users=fitted.assignment.users(codes.assignments, codes.gates).sum(axis=0),
        spread=spread_of_codes(fitted, data, codes, fitted.rho[model.outer.psi]))
    return tally, codes.weights


def measure(parts: Iterable[tuple[Tally, Array]]) -> Metrics:
    """`Metrics` of all chunks of rows."""
    return reduce(Tally.__add__, (tally for tally, _ in parts)).metrics()


def compare_linear(
    parts: Iterable[tuple[Tally, Array]], n_atoms: int, data: Array, seed: int | None
) -> LinearComparison:
    """`LinearComparison` on rows.

    Parameters
    ----------
    parts : as `tally_of` returns them, of all chunks of the rows
    n_atoms : int
        Vectors of the dictionary at most.
    data : (n, p) array
    seed : int or None
    """
    parts = list(parts)
    own = measure(parts)
    # a row of weight w has noise of variance sigma^2 / w, in both models
    weights = np.concatenate([part for _, part in parts])
    centred = np.sqrt(weights)[:, None] * (data - weights @ data / weights.sum())
    k = min(n_atoms, len(data) - 1)
    bits, shares = [0.0], [0.0]
    for size in range(1, min(MOST_LINEAR, k, data.shape[1] - 1) + 1):
        start = block_dictionary(centred, [1] * k, size, 1, np.random.default_rng(seed),
                                 BlockPolicy(), exact=True)[0]
        noise = max(1.0 - start.explained, 1e-12) * float(np.mean(centred**2))
        scores = np.column_stack(start.scores)
        square = (scores**2).sum(axis=0) / np.maximum(start.support.sum(axis=0), 1)
        cost = start.support @ (0.5 * np.log2(1.0 + square / noise))
        bits.append(float(_log2_choose(k, np.array(size)) + cost.mean()))
        shares.append(start.explained)
        if bits[-1] >= own.bits_per_row and size >= own.n_numbers:
            break
    return LinearComparison(k, len(data), own.bits_per_row, own.n_numbers, own.explained_variance,
                            np.array(bits), np.array(shares))


def _support_bits(fitted: FittedSAE, size: NDArray[np.intp]) -> Array:
    """Bits (N,) of which atoms a row uses, where that is no number that has a density."""
    gate = fitted.assignment
    if not gate.chooses_support:
        return np.zeros(len(size))
    return float(np.log2(gate.most_active - gate.least_active + 1)) + _log2_choose(
        len(fitted.atoms), size)


def _log2_choose(n: int, m: NDArray[np.intp]) -> Array:
    """Log2 of n over m."""
    nats = gammaln(n + 1.0) - gammaln(m + 1.0) - gammaln(n - m + 1.0)
    return np.asarray(nats / np.log(2.0), float)
