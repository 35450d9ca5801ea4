"""Newton steps of every row of an SAE-manifold on its own, at fixed decoders (DESIGN A4).

Each row takes the exact row Hessian where it is positive definite and the majorized one elsewhere,
and accepts or rejects its own step. It is no `solve_inner` a row: the rows are one batch, in which
each has a damping of its own and drops out once it has settled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reml_sae.engine.protocol import Theta
from reml_sae.linalg import PackedRows, batched_cholesky, batched_solve_psd
from reml_sae.typing import Array

if TYPE_CHECKING:
    from reml_sae.models.sae.model import SAEManifoldModel


ROW_RTOL = 1e-13
"""A row whose objective falls by less than this, relatively, has settled."""
ROW_DAMPING = (0.1, 1.0, 10.0)
LONGEST_STEP = 2.0
"""Of a damped row, in logits, radians or prior standard deviations, at a damping of one."""
NEARLY_SINGULAR = 1e-3


def refine_rows(model: SAEManifoldModel, theta: Theta, rho: Array, n_sweeps: int) -> Theta:
    """Sweeps over the rows; no row's objective increases, and settled rows drop out."""
    xi, value = theta.xi.copy(), model.row_objective(theta, rho)
    moving = np.flatnonzero(np.isfinite(value))
    for _ in range(n_sweeps):
        part = model.rows(moving)
        new_xi, new_value = _sweep(part, Theta(xi[moving], theta.beta), rho, value[moving])
        gain = value[moving] - new_value
        xi[moving], value[moving] = new_xi, new_value
        moving = moving[gain > ROW_RTOL * (1.0 + np.abs(new_value))]
        if not moving.size:
            break
    return Theta(xi, theta.beta)


def _sweep(
    model: SAEManifoldModel, theta: Theta, rho: Array, value: Array
) -> tuple[Array, Array]:
    """One damped Newton step of every row from its objective ``value``; new xi and values."""
    point = model.joint_at(theta, rho)
    packed = PackedRows(model.carried)
    with np.errstate(over="ignore", invalid="ignore"):  # of rows out of the range of floats
        moves = _row_steps(packed.pack_blocks(point.row_hessian("exact")),
                           packed.pack_blocks(point.row_hessian("majorizer")),
                           packed.pack(point.gradient().xi))
    trials = [packed.unpack(np.where(np.isfinite(move), move, 0.0)) for move in moves]
    best, improved = theta.xi, np.zeros(len(value), bool)
    for move in trials:
        candidate = model.retract(theta, Theta(move, np.zeros_like(theta.beta)))
        trial = model.row_objective(candidate, rho)
        better = (trial < value) & ~improved
        best = np.where(better[:, None], candidate.xi, best)
        value = np.where(better, trial, value)
        improved |= better
        if improved.all():
            break
    return best, value


def row_decrements(model: SAEManifoldModel, theta: Theta, rho: Array) -> Array:
    """Newton decrement of every row at fixed decoders, (N,), in the square root of nats."""
    point, packed = model.joint_at(theta, rho), PackedRows(model.carried)
    gradient = packed.pack(point.gradient().xi)
    blocks = packed.pack_blocks(point.row_hessian("majorizer"))
    square = (gradient * batched_solve_psd(blocks, gradient)).sum(axis=1)
    return np.sqrt(np.maximum(square, 0.0))


class SAERowSampler:
    """Gaussian draws around the rows' modes; see `RowSampler`.

    The exact row Hessian is taken where it is positive definite, the majorized one elsewhere.

    Parameters
    ----------
    model : SAEManifoldModel
    theta : Theta
        The mode.
    rho : (n_rho,) array
    """

    def __init__(self, model: SAEManifoldModel, theta: Theta, rho: Array):
        self.model, self.theta = model, theta
        self.carried = model.carried
        point = model.joint_at(theta, rho)
        blocks = point.row_hessian("exact")
        low = np.linalg.eigvalsh(blocks)[:, 0] if blocks.shape[1] else np.ones(len(blocks))
        blocks = np.where((low > 0.0)[:, None, None], blocks, point.row_hessian("majorizer"))
        self._upper = batched_cholesky(blocks).transpose(0, 2, 1)

    def move(self, noise: Array) -> tuple[Theta, Array]:
        """State at standard normal noise; steps round a compact manifold leave it."""
        step: Array = self.carried * np.asarray(
            np.linalg.solve(self._upper, noise[:, :, None])[:, :, 0], float)
        volume = np.zeros(len(step))
        for k, atom in enumerate(self.model.atoms):
            t, rows = self.model.coordinate_columns(k), self.model.active[:, k]
            volume[rows] += atom.log_step_volume(self.theta.xi[rows, t], step[rows, t])
        moved = self.model.retract(self.theta, Theta(step, np.zeros_like(self.theta.beta)))
        return moved, volume


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
