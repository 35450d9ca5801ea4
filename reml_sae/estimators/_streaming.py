"""Rows under a fit, chunk by chunk: codes, predictions and the score of as many as there are.

Rows in memory are one chunk; of a file, or where an executor is given, as many rows are read at a
time as keep the widest array of a chunk below the executor's bound. Chunks do not depend on who
executes them, nor do the bits of what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Generic, TypeVar

import numpy as np

from reml_sae.assignments import Assignment
from reml_sae.engine import REMLTrace
from reml_sae.errors import InputError
from reml_sae.estimators._codes import Codes
from reml_sae.estimators._fitted import FittedSAE
from reml_sae.estimators._harvest import fitted_codes
from reml_sae.estimators._results import reconstruct
from reml_sae.estimators._units import check_magnitude
from reml_sae.io import (
    RowChunk,
    RowSource,
    available_bytes,
    is_in_memory,
    open_rows,
    read_chosen,
)
from reml_sae.linalg import single_threaded
from reml_sae.manifolds import Manifold
from reml_sae.rows import row_map, row_slices, spread_index
from reml_sae.typing import Array

Result = TypeVar("Result")

FIT_FACTOR = 20.0
"""Memory that a fit takes at least, in units of its rows as float64: 22 to 47 were measured,
with one atom, of rows of 64 and of 768 numbers."""
BORDER_FACTOR = 3.0
"""Arrays of the Schur complement of all decoders that a fit holds at once at least, where rows use
several atoms: 6 to 13 were measured, and 3.2 to 4.6 within one evaluation of V."""


@dataclass(frozen=True)
class RowTask(Generic[Result]):
    """What is computed of a chunk of rows, with no more of the fit than that needs.

    Attributes
    ----------
    fitted : FittedSAE
    of_rows : function of the fit and of data (n, p)
    """

    fitted: FittedSAE
    of_rows: Callable[[FittedSAE, Array], Result]

    @single_threaded
    def __call__(self, chunk: RowChunk) -> Result:
        """The result of its rows."""
        data = chunk.read()
        check_magnitude(data, self.fitted.units.scale)
        return self.of_rows(self.fitted, data)


def open_rows_of(fitted: FittedSAE, Z: Any) -> RowSource:
    """Rows as wide as those of a fit.

    Raises
    ------
    InputError
        Where the rows cannot be used, or have another width.
    """
    source, expected = open_rows(Z), len(fitted.units.mean)
    if source.shape[1] != expected:
        raise InputError(
            f"{source.name} has {source.shape[1]} features, but SAEManifold is expecting "
            f"{expected} features as input, as it was fitted with")
    return source


def stream(
    fitted: FittedSAE, Z: Any, executor: Any, of_rows: Callable[[FittedSAE, Array], Result]
) -> Iterable[Result]:
    """Results of all chunks of rows, in their order.

    Parameters
    ----------
    fitted : FittedSAE
    Z : whatever `open_rows` opens
    executor : whatever `row_map` takes
    of_rows : function of the fit and of data (n, p)

    Raises
    ------
    InputError
        Where the rows cannot be used, have another width, or are more than one chunk and coupled
        by a penalty.
    """
    source = open_rows_of(fitted, Z)
    rows = fitted.row_map if executor is None else row_map(executor)
    whole = slice(0, source.shape[0])
    at_once = executor is None and is_in_memory(source) and fitted.takes_rows_at_once
    slices = [whole] if at_once else row_slices(
        source.shape[0], fitted.row_width, rows.elements)
    chunks = (source.chunk(part.start, part.stop) for part in slices)
    if len(slices) == 1:
        return map(RowTask(fitted, of_rows), chunks)
    coupled = sorted({term.penalty.KIND_TAG for term in fitted.penalties if term.couples_rows
                      or (term.on_rows and term.penalty.n_rows_expected() is not None)})
    if coupled:
        raise InputError(
            f"{', '.join(coupled)} ties rows to each other or to their numbers, so {source.name} "
            f"cannot be taken in {len(slices)} chunks; give its rows as one array, without an "
            "executor")
    return rows.map(RowTask(_lean(fitted), of_rows), chunks)


def spread_rows(source: RowSource, most: int) -> Array:
    """Rows (n, p) of a source, all of them or ``most``, evenly over it."""
    chosen = spread_index(source.shape[0], most)
    return np.concatenate([rows for _, rows in read_chosen(source, chosen)])


def codes_of(fitted: FittedSAE, data: Array) -> Codes:
    """Codes of data (n, p)."""
    return fitted.encode(fitted.units.standardised(data))


def joined_codes(parts: Iterable[Codes]) -> Codes:
    """The codes of all chunks as one."""
    parts = list(parts)
    return parts[0] if len(parts) == 1 else parts[0].joined(parts)


def prediction_of(fitted: FittedSAE, data: Array) -> Array:
    """Reconstruction of data (n, p)."""
    return fitted.decode_codes(codes_of(fitted, data))


@dataclass(frozen=True)
class Spread:
    """How far rows are from each other, and from their reconstruction.

    Attributes
    ----------
    weight : float
        Sum of the rows' weights.
    mean : (p,) array
    total, residual : float
        Weighted squares about the mean and about the reconstruction; of families but the Gaussian,
        deviances of the offset and of the fit.
    """

    weight: float
    mean: Array
    total: float
    residual: float

    def __add__(self, other: Spread) -> Spread:
        """Of both groups of rows."""
        weight = self.weight + other.weight
        apart = other.mean - self.mean
        between = self.weight * other.weight / weight * float(apart @ apart)
        return Spread(weight, self.mean + other.weight / weight * apart,
                      self.total + other.total + between, self.residual + other.residual)


def spread_of(fitted: FittedSAE, data: Array) -> Spread:
    """Spread of data (n, p)."""
    model, theta = fitted.encoded(fitted.units.standardised(data))
    codes = fitted_codes(model, theta, fitted.rho)
    return spread_of_codes(fitted, data, codes, fitted.rho[model.outer.psi])


def spread_of_codes(fitted: FittedSAE, data: Array, codes: Codes, psi: Array) -> Spread:
    """Spread of data (n, p) with their codes; ``psi`` are the family's own parameters."""
    if fitted.family.has_dispersion:
        weights = codes.weights
        mean = weights @ data / weights.sum()
        total, residual = (float(weights @ ((data - centre) ** 2).sum(axis=1))
                           for centre in (mean, fitted.decode_codes(codes)))
        return Spread(float(weights.sum()), mean, total, residual)
    eta = reconstruct(codes.assignments, codes.coordinates, codes.gates, fitted.atoms,
                      fitted.intercept, fitted.assignment)
    total, residual = (float(fitted.family.deviance(data, at, psi).sum())
                       for at in (np.broadcast_to(fitted.units.offset, eta.shape), eta))
    # deviances are about an offset that all rows share: there is nothing between groups
    return Spread(float(len(data)), np.zeros(data.shape[1]), total, residual)


def explained(parts: Iterable[Spread]) -> float:
    """Share of the variance, or of the deviance, that the reconstruction explains.

    Raises
    ------
    InputError
        Where the rows have no variance.
    """
    whole = reduce(Spread.__add__, parts)
    if whole.total == 0.0:
        raise InputError("Z is constant, so there is no variance to explain; score more rows")
    return 1.0 - whole.residual / whole.total


def fits_in_memory(source: RowSource) -> bool:
    """Whether a search can fit rows in the memory that is free, as far as is known."""
    free = available_bytes()
    return free is None or FIT_FACTOR * 8 * source.shape[0] * source.shape[1] <= free


def check_memory(source: RowSource, atoms: Sequence[Manifold], assignment: Assignment) -> None:
    """Refuse to fit rows, or atoms, that do not fit in memory, before any row is read.

    Raises
    ------
    InputError
        Naming the bytes, and how many rows, or atoms, would fit.
    """
    (n, p), free = source.shape, available_bytes()
    if free is None:
        return
    if FIT_FACTOR * 8 * n * p > free:
        most = int(free / (FIT_FACTOR * 8 * p))
        raise InputError(
            f"{source.name} has {n} rows of {p} numbers, {8 * n * p:,} bytes as float64. A fit "
            f"takes at least {FIT_FACTOR:g} times as many, and {free:,} are free: fit at most "
            f"{most} rows drawn at random, then encode all of them from the file")
    if not assignment.is_mixture and assignment.most_active == 1:
        return  # a block for each atom
    functions = np.cumsum([atom.basis_size for atom in atoms]).astype(float)
    needed = 8 * BORDER_FACTOR * (functions * np.minimum(functions, p)) ** 2
    if needed[-1] > free:
        raise InputError(
            f"n_atoms={len(atoms)} atoms have {functions[-1]:.0f} functions, and where rows may "
            f"use several atoms a fit takes at least {needed[-1]:,.0f} bytes for how they depend "
            f"on each other; {free:,} are free: fit at most {(needed <= free).sum()} of these "
            "atoms, or take assignment='topk' with n_active=1")


def _lean(fitted: FittedSAE) -> FittedSAE:
    """A fit without what it keeps of its training rows and its history: what workers are sent."""
    return replace(
        fitted, zeta=fitted.zeta[:0], trace=REMLTrace([]), codes=fitted.codes[:0],
        atoms=[replace(atom, covariance=atom.covariance[:0]) for atom in fitted.atoms])
