"""What every row of an SAE-manifold has, and does, on its own at fixed decoders (DESIGN A4).

All of it is computed in chunks of rows (`reml_sae.rows`), which under hard gates are as wide as the
atoms that they use (`single.kinds`). In a Newton step each row takes the exact row Hessian where it
is positive definite and the majorized one elsewhere, and accepts or rejects its own step. It is no
`solve_inner` a row: the rows are one batch, in which each has a damping of its own and drops out
once it has settled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from reml_sae.engine.protocol import Theta
from reml_sae.linalg import (
    Incidence,
    MeetsAll,
    PackedRows,
    batched_cholesky,
    batched_is_definite,
    batched_solve_psd,
)
from reml_sae.models.sae.row_prior import RowPrior
from reml_sae.models.sae.row_scales import missing_rows
from reml_sae.models.sae.single.kinds import Kind, kinds_of
from reml_sae.models.sae.state import SAEState, decoder_span
from reml_sae.models.sae.structure import SAEStructure
from reml_sae.rows import RowResult, gather_rows, row_slices
from reml_sae.typing import Array, Index, Mask

ROW_RTOL = 1e-13
"""A row whose objective falls by less than this, relatively, has settled."""
ROW_DAMPING = (0.1, 1.0, 10.0)
LONGEST_STEP = 2.0
"""Of a damped row, in logits, radians or prior standard deviations, at a damping of one."""
LONGEST_SLIDE = 2.0
"""Change of a log amplitude up to which a flat's coordinates make up for it."""
NEARLY_SINGULAR = 1e-3


@dataclass(frozen=True)
class RowBatch:
    """Rows with what they meet of the decoders.

    Attributes
    ----------
    structure : SAEStructure
        Of these rows.
    theta : Theta
        Their state; the decoders are (.., M, p) as in `SAEState`.
    rho : (n_rho,) array
        The outer parameters of this structure.
    span : (.., p, r) array
    incidence : Incidence
    opening : (n,) array
        Nats that the prior on gates charges a row, beside what the structure does.
    """

    structure: SAEStructure
    theta: Theta
    rho: Array
    span: Array
    incidence: Incidence
    opening: Array

    def rows(self, index: Index) -> RowBatch:
        """Some of the rows, in their order."""
        if len(index) == len(self.opening):
            return self
        return replace(
            self, structure=self.structure.rows(index), opening=self.opening[index],
            theta=Theta(self.theta.xi[index], self.theta.beta),
            incidence=self.incidence.take(index))

    def at(self, xi: Array) -> RowBatch:
        """The same rows at other parameters."""
        return replace(self, theta=Theta(xi, self.theta.beta))

    def state(self) -> SAEState:
        """Value and derivatives of what they have of F."""
        return SAEState(self.structure, self.theta, self.rho, self.span, self.incidence)

    def objectives(self) -> Array:
        """The part of F that belongs to each row, (n,)."""
        structure = self.structure
        amplitudes, features = structure.scaled_basis(self.theta)
        eta = self.incidence.apply(features, self.theta.beta) + structure.offset
        loss = structure.family.row_loss(structure.Z, eta, self.rho[structure.outer.psi])
        loss += structure.shape[1] * np.log(structure.unit)
        loss += 0.5 * structure.shape[1] * structure.noise.log_sizes(structure.metrics)
        loss += self.opening
        return loss + RowPrior(structure, self.theta, self.rho, amplitudes).values()

    def chunks(self) -> Iterator[RowBatch]:
        """The rows in chunks; all are one where they are coupled."""
        structure = self.structure
        (n, p), q = structure.shape, structure.carried.shape[1] + 1
        width = max(p, q * (q + min(p, structure.layout.basis_size)))
        elements = n * width if structure.couples_rows else structure.row_map.elements
        for where in row_slices(n, width, elements):
            yield self.rows(np.arange(where.start, where.stop))


def _batches(
    structure: SAEStructure, theta: Theta, rho: Array
) -> Iterator[tuple[Kind | None, RowBatch]]:
    """All rows, as they are or kind by kind."""
    kinds = kinds_of(structure)
    if not kinds:
        yield None, RowBatch(structure, theta, rho, decoder_span(structure, theta.beta),
                             MeetsAll(), np.zeros(len(structure.Z)))
        return
    opening = structure.opening_costs(rho)
    for kind in kinds:
        if len(kind.rows):
            own = kind.theta(theta)
            yield kind, RowBatch(kind.structure, own, rho[kind.outer], kind.spans(own.beta),
                                 kind.incidence,
                                 kind.is_open * opening[kind.atoms].sum(1)[kind.incidence.block])


def over_batch(batch: RowBatch, task: Callable[[RowBatch], RowResult]) -> Array:
    """What a task returns of every row of a batch, (n, ..)."""
    return gather_rows(batch.structure.row_map, task, batch.chunks()).each[0]


def over_rows(
    structure: SAEStructure, theta: Theta, rho: Array, task: Callable[[RowBatch], RowResult]
) -> Array:
    """What a task returns of every row, (N,)."""
    out = np.empty(len(structure.Z))
    for kind, batch in _batches(structure, theta, rho):
        out[slice(None) if kind is None else kind.rows] = over_batch(batch, task)
    return out


def row_objective(structure: SAEStructure, theta: Theta, rho: Array) -> Array:
    """The part of F that belongs to each row, (N,).

    Penalties on beta, and those that couple rows, are left out.
    """
    return over_rows(structure, theta, rho, objective_of)


def objective_of(batch: RowBatch) -> RowResult:
    """The task of `row_objective`."""
    return RowResult((batch.objectives(),))


def row_evidence(structure: SAEStructure, theta: Theta, rho: Array) -> Array:
    """Laplace approximation of -log p(z_i | B), (N,), but for constants that all rows share.

    Infinite where a row's curvature is not positive definite, so that it is not at a mode.
    """
    return over_rows(structure, theta, rho, evidence_of)


def evidence_of(batch: RowBatch) -> RowResult:
    """The task of `row_evidence`."""
    structure, point = batch.structure, batch.state()
    sign, logdet = np.linalg.slogdet(point.row_hessian("majorizer"))
    value = batch.objectives() + np.where(sign > 0, 0.5 * logdet, np.inf)
    value -= 0.5 * np.log(2.0 * np.pi) * structure.carried.sum(axis=1)
    value[sign > 0] += point.remainder.values[sign > 0]
    value -= missing_rows(structure, point.psi)[0]
    return RowResult((value + point.row_prior.log_partitions(),))


def row_rates(structure: SAEStructure, theta: Theta, rho: Array) -> Array:
    """Nats (N,) to write a row's own parameters at the resolution of their posterior.

    The Kullback-Leibler divergence of the row's Laplace posterior at fixed decoders from its prior,
    that one to second order. Which gates are open is not counted.
    """
    return np.maximum(over_rows(structure, theta, rho, _rates), 0.0)


def _rates(batch: RowBatch) -> RowResult:
    structure, point = batch.structure, batch.state()
    prior, blocks = point.row_prior, point.row_hessian("majorizer")
    value = prior.values() + prior.log_partitions() + prior.shared_partition()
    value -= structure.is_open @ structure.opening_costs(batch.rho)
    value -= structure.assignment.log_patterns()
    value += 0.5 * np.linalg.slogdet(blocks)[1]
    value -= 0.5 * np.log(2.0 * np.pi * np.e) * structure.carried.sum(axis=1)
    own = point.restrict_blocks(prior.blocks("majorizer"))
    return RowResult((value + 0.5 * np.einsum("naa->n", np.linalg.solve(blocks, own)),))


def refine_rows(structure: SAEStructure, theta: Theta, rho: Array, n_sweeps: int) -> Theta:
    """Newton steps of every row on its own at fixed beta; no row's objective increases.

    Where a penalty couples the rows they cannot move on their own, and all stay.
    """
    if structure.couples_rows or not structure.carried.any():
        return theta
    xi = theta.xi.copy()
    for kind, batch in _batches(structure, theta, rho):
        found = over_batch(batch, partial(refine_batch, n_sweeps))
        if kind is None:
            return Theta(found, theta.beta)
        kind.put_xi(xi, found)
    return Theta(xi, theta.beta)


def refine_batch(n_sweeps: int, batch: RowBatch) -> RowResult:
    """Sweeps over the rows of a chunk, of which those that have settled drop out."""
    xi, value = batch.theta.xi.copy(), batch.objectives()
    moving = np.flatnonzero(np.isfinite(value))
    for _ in range(n_sweeps):
        new_xi, new_value = _sweep(batch.at(xi).rows(moving), value[moving])
        gain = value[moving] - new_value
        xi[moving], value[moving] = new_xi, new_value
        moving = moving[gain > ROW_RTOL * (1.0 + np.abs(new_value))]
        if not moving.size:
            break
    return RowResult((xi,))


def _sweep(batch: RowBatch, value: Array) -> tuple[Array, Array]:
    """One damped Newton step of every row from its objective ``value``; new xi and values."""
    point, packed = batch.state(), PackedRows(batch.structure.carried)
    curved = _Curved.of(packed.pack_blocks(point.row_hessian("exact")),
                        packed.pack(point.row_spread()), packed.pack(point.row_gradient()))
    xi, value = batch.theta.xi.copy(), value.copy()

    def is_better(rows: Index, step: Array) -> Mask:
        """Which of the rows fall by their steps, which they then take."""
        own, move = batch.rows(rows), packed.take(rows).unpack(step)
        own = own.at(_slid(own.structure, own.theta.xi, move))
        with np.errstate(over="ignore"):  # a step to where the objective overflows is not better
            trial = own.objectives()
        better = trial < value[rows]
        xi[rows[better]], value[rows[better]] = own.theta.xi[better], trial[better]
        return better

    def majorizer(rows: Index) -> Array:
        blocks = batch.rows(rows).state().row_hessian("majorizer")
        return packed.take(rows).pack_blocks(blocks)

    if packed.width:
        every, rough = np.arange(len(value)), curved.rough
        held = ~is_better(every, curved.newton(rough, majorizer))
        # along a saddle the steps of the majorizer are short: the better of two is taken
        tried = np.flatnonzero(held | rough)
        careful, left = curved.rows(tried).careful(), np.arange(len(tried))
        while left.size and (step := next(careful, None)) is not None:
            left = left[~is_better(tried[left], step[left]) & held[tried[left]]]
    return xi, value


def _slid(structure: SAEStructure, xi: Array, step: Array) -> Array:
    """Rows (n, q) moved by their steps; on a flat their amplitude times coordinates is.

    Rows know only that product: where noise is small, steps that are straight in the factors leave
    the valley in which it is the same, unless they are short.
    """
    out = structure.move_rows(xi, step)
    if structure.assignment.is_log_normal:
        for k, atom in enumerate(structure.atoms):
            if atom.is_flat:
                t, longer = structure.coordinate_columns(k), step[:, [k]]
                out[:, t] = (out[:, t] + longer * xi[:, t]) * np.exp(
                    np.clip(-longer, -LONGEST_SLIDE, LONGEST_SLIDE))
    return out


def row_decrements(structure: SAEStructure, theta: Theta, rho: Array) -> Array:
    """Newton decrement of every row at fixed decoders, (N,), in the square root of nats."""
    return over_rows(structure, theta, rho, decrements_of)


def decrements_of(batch: RowBatch) -> RowResult:
    """The task of `row_decrements`."""
    point, packed = batch.state(), PackedRows(batch.structure.carried)
    gradient = packed.pack(point.row_gradient())
    blocks = packed.pack_blocks(point.row_hessian("majorizer"))
    known = np.linalg.slogdet(blocks)[0] > 0
    step = np.empty_like(gradient)
    step[known] = batched_solve_psd(blocks[known], gradient[known])
    # on an atom of no size any coordinate is as good
    step[~known] = np.einsum("nab,nb->na", np.linalg.pinv(blocks[~known], hermitian=True),
                             gradient[~known])
    square = (gradient * step).sum(axis=1)
    return RowResult((np.sqrt(np.maximum(square, 0.0)),))


class SAERowSampler:
    """Gaussian draws around the rows' modes; see `RowSampler`.

    The exact row Hessian is taken where it is positive definite, the majorized one elsewhere.

    Parameters
    ----------
    structure : SAEStructure
    theta : Theta
        The mode.
    rho : (n_rho,) array
    """

    def __init__(self, structure: SAEStructure, theta: Theta, rho: Array):
        self.theta, self.carried = theta, structure.carried
        self._parts = [
            (kind, batch, PackedRows(batch.structure.carried), over_batch(batch, _upper_factors))
            for kind, batch in _batches(structure, theta, rho)]

    def move(self, noise: Array) -> tuple[Theta, Array]:
        """State at standard normal noise; steps round a compact manifold leave it."""
        xi, volume = self.theta.xi.copy(), np.zeros(len(noise))
        for kind, batch, packed, upper in self._parts:
            structure, own = batch.structure, batch.theta.xi
            z = packed.pack(noise if kind is None else kind.xi(noise))
            step = packed.unpack(np.asarray(np.linalg.solve(upper, z[:, :, None])[:, :, 0], float))
            added = np.zeros(len(step))
            for k, atom in enumerate(structure.atoms):
                t, rows = structure.coordinate_columns(k), structure.active[:, k]
                added[rows] += atom.log_step_volume(own[rows, t], step[rows, t])
            moved = structure.move_rows(own, step)
            if kind is None:
                return Theta(moved, self.theta.beta), added
            kind.put_xi(xi, moved)
            volume[kind.rows] = added
        return Theta(xi, self.theta.beta), volume


def _upper_factors(batch: RowBatch) -> RowResult:
    """Transposed Cholesky factors (n, w, w) of the Hessians of what rows carry."""
    point, packed = batch.state(), PackedRows(batch.structure.carried)
    blocks = packed.pack_blocks(point.row_hessian("exact"))
    low = np.linalg.eigvalsh(blocks)[:, 0] if blocks.shape[1] else np.ones(len(blocks))
    blocks = np.where((low > 0.0)[:, None, None], blocks,
                      packed.pack_blocks(point.row_hessian("majorizer")))
    return RowResult((batched_cholesky(blocks).transpose(0, 2, 1),))


@dataclass(frozen=True)
class _Curved:
    """Gradient and exact curvature of rows, from which their steps follow, the most daring first.

    Attributes
    ----------
    exact : (n, w, w) array
        Row Hessians.
    gradient : (n, w) array
        Zero of a row that is out of the range of floats, which stays where it is.
    scale : (n, w) array
        Root of the curvature that a step is measured by.
    """

    exact: Array
    gradient: Array
    scale: Array

    @classmethod
    def of(cls, exact: Array, spread: Array, gradient: Array) -> _Curved:
        """With the curvature (n, w) of the rows' means along each parameter."""
        if not exact.size:
            return cls(exact, gradient, gradient)
        with np.errstate(over="ignore", invalid="ignore"):
            regular = np.all([np.isfinite(part).reshape(len(part), -1).all(axis=1)
                              for part in (exact, spread, gradient)], axis=0)
            exact = np.where(regular[:, None, None], exact, np.eye(exact.shape[1]))
            spread = np.where(regular[:, None], spread, 1.0)
            gradient = np.where(regular[:, None], gradient, 0.0)
            # that of the means may be far smaller than a block of negative curvature
            diagonal = np.maximum(spread, np.abs(exact).max(axis=2))
            scale = np.sqrt(np.maximum(diagonal, 1e-12 * diagonal.max(1, keepdims=True) + 1e-300))
        return cls(exact, gradient, scale)

    def rows(self, index: Index) -> _Curved:
        """Of some of the rows."""
        return _Curved(self.exact[index], self.gradient[index], self.scale[index])

    def _metric(self, scale: Array) -> Array:
        return scale[:, :, None] * scale[:, None, :]

    @cached_property
    def _scaled(self) -> Array:
        """Exact blocks (n, w, w) in units of the scale."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(self.exact / self._metric(self.scale))

    @property
    def rough(self) -> Mask:
        """Rows (n,) whose exact block is not positive definite."""
        with np.errstate(over="ignore", invalid="ignore"):
            return ~batched_is_definite(
                self._scaled - NEARLY_SINGULAR * np.eye(self._scaled.shape[1]))

    def newton(self, rough: Mask, majorizer: Callable[[Index], Array]) -> Array:
        """Newton steps (n, w); of the majorizer for ``rough`` rows."""
        with np.errstate(over="ignore", invalid="ignore"):
            blocks, one = self._scaled, np.eye(self.exact.shape[1])
            if rough.any():
                found = majorizer(np.flatnonzero(rough)) / self._metric(self.scale[rough])
                blocks = blocks.copy()
                blocks[rough] = np.where(np.isfinite(found), found, one)
            # a majorizer may be far above the scale, and singular
            ridge = 1e-10 * np.maximum(np.einsum("naa->na", blocks).max(axis=1, initial=1.0), 1.0)
            step = -batched_solve_psd(blocks + ridge[:, None, None] * one,
                                      self.gradient / self.scale)
            step /= self.scale
        return np.where(np.isfinite(step), step, 0.0)

    def careful(self) -> Iterator[Array]:
        """Levenberg steps (n, w) on the absolute eigenvalues of the exact blocks, ever shorter.

        Then, where a row has one, both ways along its direction of negative curvature.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            # a gradient that the curvature does not resist would lead out of reach at any damping
            slow = np.maximum(self.scale, np.sqrt(np.abs(self.gradient) / LONGEST_STEP))
            values, vectors = np.linalg.eigh(self.exact / self._metric(slow))
            along = np.einsum("nab,na->nb", vectors, self.gradient / slow)
            damped = [-np.einsum("nab,nb->na", vectors, along / (np.abs(values) + damping)) / slow
                      for damping in ROW_DAMPING]
        yield from (np.where(np.isfinite(step), step, 0.0) for step in damped)
        values, vectors = np.linalg.eigh(self._scaled)
        if (bends := values[:, 0] < -1e-6).any():
            downhill = np.where(bends[:, None], 0.5 * vectors[:, :, 0], 0.0) / self.scale
            yield from (downhill, -downhill)
