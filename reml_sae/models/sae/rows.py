"""What every row of an SAE-manifold has, and does, on its own at fixed decoders (DESIGN A4).

All of it is computed in chunks of rows (`reml_sae.rows`). In a Newton step each row takes the exact
row Hessian where it is positive definite and the majorized one elsewhere, and accepts or rejects
its own step. It is no `solve_inner` a row: the rows are one batch, in which each has a damping of
its own and drops out once it has settled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from reml_sae.engine.protocol import Theta
from reml_sae.linalg import PackedRows, batched_cholesky, batched_solve_psd
from reml_sae.models.sae.row_prior import RowPrior
from reml_sae.models.sae.row_scales import missing_rows
from reml_sae.models.sae.state import SAEState, decoder_span
from reml_sae.models.sae.structure import SAEStructure
from reml_sae.rows import RowResult, gather_rows, row_slices
from reml_sae.typing import Array

RowChunk = tuple[SAEStructure, Theta]
"""The structure of some rows, and their state."""

ROW_RTOL = 1e-13
"""A row whose objective falls by less than this, relatively, has settled."""
ROW_DAMPING = (0.1, 1.0, 10.0)
LONGEST_STEP = 2.0
"""Of a damped row, in logits, radians or prior standard deviations, at a damping of one."""
NEARLY_SINGULAR = 1e-3


def over_rows(
    structure: SAEStructure, theta: Theta, task: Callable[[RowChunk], RowResult]
) -> Array:
    """What a task returns of every row, (N, ..); all rows are one chunk where they are coupled."""
    return gather_rows(structure.row_map, task, _chunks(structure, theta)).each[0]


def _chunks(structure: SAEStructure, theta: Theta) -> Iterator[RowChunk]:
    (n, p), q = structure.shape, structure.carried.shape[1] + 1
    width = max(p, q * (q + min(p, structure.layout.basis_size)))
    elements = n * width if structure.couples_rows else structure.row_map.elements
    for where in row_slices(n, width, elements):
        index = np.arange(where.start, where.stop)
        yield structure.rows(index), Theta(theta.xi[where], theta.beta)


def row_objective(structure: SAEStructure, theta: Theta, rho: Array) -> Array:
    """The part of F that belongs to each row, (N,).

    Penalties on beta, and those that couple rows, are left out.
    """
    return over_rows(structure, theta, partial(_objective, rho))


def _objective(rho: Array, chunk: RowChunk) -> RowResult:
    return RowResult((_objectives(*chunk, rho),))


def _objectives(structure: SAEStructure, theta: Theta, rho: Array) -> Array:
    amplitudes, features = structure.scaled_basis(theta)
    eta = features @ theta.beta + structure.offset
    loss = structure.family.loss(structure.Z, eta, rho[structure.outer.psi]).sum(1)
    loss += structure.shape[1] * np.log(structure.unit)
    return loss + RowPrior(structure, theta, rho, amplitudes).values()


def row_evidence(structure: SAEStructure, theta: Theta, rho: Array) -> Array:
    """Laplace approximation of -log p(z_i | B), (N,), but for constants that all rows share.

    Infinite where a row's curvature is not positive definite, so that it is not at a mode.
    """
    return over_rows(
        structure, theta, partial(_evidence, rho, decoder_span(structure, theta.beta)))


def _evidence(rho: Array, span: Array, chunk: RowChunk) -> RowResult:
    structure, theta = chunk
    point = SAEState(structure, theta, rho, span)
    sign, logdet = np.linalg.slogdet(point.row_hessian("majorizer"))
    value = _objectives(structure, theta, rho) + np.where(sign > 0, 0.5 * logdet, np.inf)
    value -= 0.5 * np.log(2.0 * np.pi) * structure.carried.sum(axis=1)
    value[sign > 0] += point.remainder.values[sign > 0]
    value -= missing_rows(structure, point.psi)[0]
    return RowResult((value + point.row_prior.log_partitions(),))


def refine_rows(structure: SAEStructure, theta: Theta, rho: Array, n_sweeps: int) -> Theta:
    """Newton steps of every row on its own at fixed beta; no row's objective increases.

    Where a penalty couples the rows they cannot move on their own, and all stay.
    """
    if structure.couples_rows:
        return theta
    span = decoder_span(structure, theta.beta)
    return Theta(over_rows(structure, theta, partial(_refine, rho, span, n_sweeps)), theta.beta)


def _refine(rho: Array, span: Array, n_sweeps: int, chunk: RowChunk) -> RowResult:
    """Sweeps over the rows of a chunk, of which those that have settled drop out."""
    structure, theta = chunk
    xi, value = theta.xi.copy(), _objectives(structure, theta, rho)
    moving = np.flatnonzero(np.isfinite(value))
    for _ in range(n_sweeps):
        part = structure.rows(moving), Theta(xi[moving], theta.beta)
        new_xi, new_value = _sweep(part, rho, span, value[moving])
        gain = value[moving] - new_value
        xi[moving], value[moving] = new_xi, new_value
        moving = moving[gain > ROW_RTOL * (1.0 + np.abs(new_value))]
        if not moving.size:
            break
    return RowResult((xi,))


def _sweep(chunk: RowChunk, rho: Array, span: Array, value: Array) -> tuple[Array, Array]:
    """One damped Newton step of every row from its objective ``value``; new xi and values."""
    structure, theta = chunk
    point = SAEState(structure, theta, rho, span)
    packed = PackedRows(structure.carried)
    with np.errstate(over="ignore", invalid="ignore"):  # of rows out of the range of floats
        moves = _row_steps(packed.pack_blocks(point.row_hessian("exact")),
                           packed.pack_blocks(point.row_hessian("majorizer")),
                           packed.pack(point.gradient().xi))
    trials = [packed.unpack(np.where(np.isfinite(move), move, 0.0)) for move in moves]
    best, improved = theta.xi, np.zeros(len(value), bool)
    for move in trials:
        candidate = structure.retract(theta, Theta(move, np.zeros_like(theta.beta)))
        trial = _objectives(structure, candidate, rho)
        better = (trial < value) & ~improved
        best = np.where(better[:, None], candidate.xi, best)
        value = np.where(better, trial, value)
        improved |= better
        if improved.all():
            break
    return best, value


def row_decrements(structure: SAEStructure, theta: Theta, rho: Array) -> Array:
    """Newton decrement of every row at fixed decoders, (N,), in the square root of nats."""
    return over_rows(
        structure, theta, partial(_decrements, rho, decoder_span(structure, theta.beta)))


def _decrements(rho: Array, span: Array, chunk: RowChunk) -> RowResult:
    structure, theta = chunk
    point, packed = SAEState(structure, theta, rho, span), PackedRows(structure.carried)
    gradient = packed.pack(point.gradient().xi)
    blocks = packed.pack_blocks(point.row_hessian("majorizer"))
    square = (gradient * batched_solve_psd(blocks, gradient)).sum(axis=1)
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
        self.structure, self.theta = structure, theta
        self.carried = structure.carried
        self._upper = over_rows(
            structure, theta, partial(_upper_factors, rho, decoder_span(structure, theta.beta)))

    def move(self, noise: Array) -> tuple[Theta, Array]:
        """State at standard normal noise; steps round a compact manifold leave it."""
        step: Array = self.carried * np.asarray(
            np.linalg.solve(self._upper, noise[:, :, None])[:, :, 0], float)
        volume = np.zeros(len(step))
        for k, atom in enumerate(self.structure.atoms):
            t, rows = self.structure.coordinate_columns(k), self.structure.active[:, k]
            volume[rows] += atom.log_step_volume(self.theta.xi[rows, t], step[rows, t])
        moved = self.structure.retract(self.theta, Theta(step, np.zeros_like(self.theta.beta)))
        return moved, volume


def _upper_factors(rho: Array, span: Array, chunk: RowChunk) -> RowResult:
    """Transposed Cholesky factors (n, q, q) of the rows' Hessians."""
    point = SAEState(*chunk, rho, span)
    blocks = point.row_hessian("exact")
    low = np.linalg.eigvalsh(blocks)[:, 0] if blocks.shape[1] else np.ones(len(blocks))
    blocks = np.where((low > 0.0)[:, None, None], blocks, point.row_hessian("majorizer"))
    return RowResult((batched_cholesky(blocks).transpose(0, 2, 1),))


def _row_steps(exact: Array, majorizer: Array, gradient: Array) -> list[Array]:
    """Steps (N, q) of every row, the most daring first.

    The Newton step, of the majorizer where the exact block is not positive definite; then Levenberg
    steps on the absolute eigenvalues of the exact block, shorter and shorter; then, where a row has
    one, both ways along its direction of negative curvature. All in the metric of the majorizer's
    diagonal.
    """
    if exact.shape[1] == 0:
        return [gradient]
    # a row out of the range of floats stays where it is
    regular = np.all([np.isfinite(part).reshape(len(part), -1).all(axis=1)
                      for part in (exact, majorizer, gradient)], axis=0)
    one = np.eye(exact.shape[1])
    exact = np.where(regular[:, None, None], exact, one)
    majorizer = np.where(regular[:, None, None], majorizer, one)
    gradient = np.where(regular[:, None], gradient, 0.0)
    # a majorizer may be far smaller than a block of negative curvature
    diagonal = np.maximum(np.einsum("nqq->nq", majorizer), np.abs(exact).max(axis=2))
    scale = np.sqrt(np.maximum(diagonal, 1e-12 * diagonal.max(1, keepdims=True) + 1e-300))
    metric = scale[:, :, None] * scale[:, None, :]
    values, vectors = np.linalg.eigh(exact / metric)
    lowest = values[:, 0]
    blocks = np.where((lowest > NEARLY_SINGULAR)[:, None, None], exact, majorizer) / metric
    blocks += 1e-10 * np.eye(exact.shape[1])
    steps = [-batched_solve_psd(blocks, gradient / scale) / scale]
    # a gradient that the curvature does not resist would lead out of reach at any damping of it
    slow = np.maximum(scale, np.sqrt(np.abs(gradient) / LONGEST_STEP))
    bounded = np.linalg.eigh(exact / (slow[:, :, None] * slow[:, None, :]))
    along = np.einsum("nab,na->nb", bounded[1], gradient / slow)
    steps += [-np.einsum("nab,nb->na", bounded[1], along / (np.abs(bounded[0]) + damping)) / slow
              for damping in ROW_DAMPING]
    if (lowest < -1e-6).any():
        downhill = np.where((lowest < -1e-6)[:, None], 0.5 * vectors[:, :, 0], 0.0) / scale
        steps += [downhill, -downhill]
    return steps
