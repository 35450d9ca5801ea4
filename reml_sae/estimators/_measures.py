"""What codes are worth: sparsity, explained variance, bits, and a linear dictionary beside them.

Bits of a row are what its code costs to write: log2 of the number of supports of its size (and of
the sizes that there are), and its numbers at the resolution of their posterior sd, which take the
Kullback-Leibler divergence of the row's Laplace posterior from its prior: log2(2 pi / (sd
sqrt(2 pi e))) of an angle. Of a linear dictionary they are log2 of its supports, and
(1/2) log2(1 + s^2 / sigma^2), which is the same for a normal score of mean square s^2 at the noise
variance sigma^2 that the dictionary leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from reml_sae.errors import InputError
from reml_sae.estimators._codes import Codes
from reml_sae.estimators._fitted import FittedSAE
from reml_sae.relaxations.dictionary import block_dictionary
from reml_sae.relaxations.policy import BlockPolicy
from reml_sae.typing import Array, Index, Mask

MOST_LINEAR = 32
"""Atoms a row of the largest linear code that is tried."""


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
        About the mean of these rows, all of which count alike.
    mse : float
        Mean squared error of an entry, in the squared units of Z.
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


@dataclass(frozen=True)
class LinearComparison:
    """A linear dictionary with so many atoms a row, beside the fit, on the same rows.

    Attributes
    ----------
    n_atoms : int
        Of the dictionary: as many vectors as the decoders have.
    bits, n_numbers, explained_variance : float
        Of the fit, as in `Metrics`.
    linear_bits, linear_explained : (S + 1,) arrays
        Of the linear codes with 0, 1, .. S atoms a row.
    at_equal_bits, at_equal_numbers : float
        Explained variance of the linear codes at the fit's bits and at its numbers a row, between
        two of them on the straight line; NaN where no code is as long.
    """

    n_atoms: int
    bits: float
    n_numbers: float
    explained_variance: float
    linear_bits: Array
    linear_explained: Array

    @property
    def at_equal_bits(self) -> float:
        """Explained variance of the linear codes at the fit's bits."""
        order = np.maximum.accumulate(self.linear_bits)
        return float(np.interp(self.bits, order, self.linear_explained, right=np.nan))

    @property
    def at_equal_numbers(self) -> float:
        """Explained variance of the linear codes at the fit's numbers a row."""
        sizes = np.arange(len(self.linear_explained))
        return float(np.interp(self.n_numbers, sizes, self.linear_explained, right=np.nan))

    def __str__(self) -> str:
        return (f"{'':<28}{'fit':>8}{f'linear, {self.n_atoms} atoms':>20}\n"
                f"{f'at {self.bits:.1f} bits a row':<28}{self.explained_variance:>8.4f}"
                f"{self.at_equal_bits:>20.4f}\n"
                f"{f'at {self.n_numbers:.3g} numbers a row':<28}{self.explained_variance:>8.4f}"
                f"{self.at_equal_numbers:>20.4f}\n"
                "explained variance about the mean")


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


def top_rows(codes: Codes, k: int, n: int) -> TopRows:
    """The ``n`` rows with the largest amplitudes of atom k, among those that carry it."""
    rows = np.flatnonzero(codes.gates[:, k] & (codes.assignments[:, k] != 0.0))
    order = np.argsort(-codes.assignments[rows, k], kind="stable")[:n]
    index = rows[order]
    return TopRows(index, codes.assignments[index, k], codes.coordinates[k][index])


def used_atoms(fitted: FittedSAE, codes: Codes) -> Mask:
    """Atoms (N, K) that a row carries a coordinate of, or counts as one of."""
    placed = np.array([atom.topology.latent_dim > 0 for atom in fitted.atoms])
    return np.asarray(fitted.assignment.users(codes.assignments, codes.gates)
                      | (codes.gates & placed & (codes.assignments != 0.0)))


def measure(fitted: FittedSAE, data: Array) -> Metrics:
    """`Metrics` of rows (N, p) in their units.

    Raises
    ------
    InputError
        Where the rows are constant.
    """
    codes, rates = fitted.encode_with_rates(fitted.units.standardised(data))
    used = used_atoms(fitted, codes)
    size = used.sum(axis=1)
    total = float(((data - data.mean(axis=0)) ** 2).sum())
    if total == 0.0:
        raise InputError("Z is constant, so there is no variance to explain; give more rows")
    lost = float(((data - fitted.decode_codes(codes)) ** 2).sum())
    dims = np.array([atom.topology.intrinsic_dim if atom.topology.latent_dim else 0
                     for atom in fitted.atoms])
    dead = ~fitted.assignment.users(codes.assignments, codes.gates).any(axis=0)
    return Metrics(
        n_rows=len(data), n_active=float(size.mean()),
        n_numbers=float((used @ dims + size - fitted.assignment.is_mixture).mean()),
        bits_per_row=float((rates / np.log(2.0) + _support_bits(fitted, size)).mean()),
        explained_variance=1.0 - lost / total, mse=lost / data.size,
        dead_atoms=tuple(int(k) for k in np.flatnonzero(dead)))


def compare_linear(fitted: FittedSAE, data: Array, seed: int | None) -> LinearComparison:
    """`LinearComparison` on rows (N, p) in their units.

    Raises
    ------
    InputError
        Where the family is not the Gaussian, or the rows are too few.
    """
    if not fitted.family.has_dispersion:
        raise InputError(f"compare_linear is for the Gaussian family; {fitted.family.name} has no "
                         "squared error at which bits could be equal")
    own = measure(fitted, data)
    centred = data - data.mean(axis=0)
    k = min(sum(atom.topology.basis_size for atom in fitted.atoms), len(data) - 1)
    bits, explained = [0.0], [0.0]
    for size in range(1, min(MOST_LINEAR, k, data.shape[1] - 1) + 1):
        start = block_dictionary(centred, [1] * k, size, 1, np.random.default_rng(seed),
                                 BlockPolicy(), exact=True)[0]
        noise = max(1.0 - start.explained, 1e-12) * float(np.mean(centred**2))
        scores = np.column_stack(start.scores)
        square = (scores**2).sum(axis=0) / np.maximum(start.support.sum(axis=0), 1)
        cost = start.support @ (0.5 * np.log2(1.0 + square / noise))
        bits.append(float(_log2_choose(k, np.array(size)) + cost.mean()))
        explained.append(start.explained)
        if bits[-1] >= own.bits_per_row and size >= own.n_numbers:
            break
    return LinearComparison(k, own.bits_per_row, own.n_numbers, own.explained_variance,
                            np.array(bits), np.array(explained))


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
