"""Conjugate gradients on the exact Hessian, preconditioned by the factor of the majorized one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reml_sae.engine.protocol import Theta
from reml_sae.linalg import Factor


@dataclass(frozen=True)
class PCGResult:
    """Solution of K x = b.

    Attributes
    ----------
    x : Theta
    converged : bool
    residual : float
        Norm of b - K x in the preconditioner's metric, relative to that of b.
    negative_curvature : Theta or None
        A direction v with v^T K v <= 0, where one was met; x is then the last iterate before it.
    n_iter : int
    """

    x: Theta
    converged: bool
    residual: float
    negative_curvature: Theta | None
    n_iter: int


def preconditioned_cg(
    matvec: Callable[[Theta], Theta],
    factor: Factor,
    b: Theta,
    rtol: float,
    max_iter: int = 200,
    solved: Theta | None = None,
) -> PCGResult:
    """Solve K x = b until the residual's norm in the preconditioner's metric falls by ``rtol``.

    ``solved`` is the preconditioned right-hand side, where it is known.

    At negative curvature met in the first iteration, x is the preconditioned right-hand side,
    the Newton step of the majorizer (Steihaug 1983).
    """
    x = Theta(np.zeros_like(b.xi), np.zeros_like(b.beta))
    r = b
    z = Theta(*factor.solve(r.xi, r.beta)) if solved is None else solved
    direction = z
    rz = r.dot(z)
    first, target = rz, rtol**2 * rz
    for iteration in range(max_iter):
        if rz <= target or rz <= 0.0:
            return PCGResult(x, True, _share(rz, first), None, iteration)
        image = matvec(direction)
        curvature = direction.dot(image)
        if curvature <= 0.0:
            return PCGResult(x if iteration else z, False, _share(rz, first), direction,
                             iteration + 1)
        step = rz / curvature
        x = x.plus(direction, step)
        r = r.plus(image, -step)
        z = Theta(*factor.solve(r.xi, r.beta))
        rz, previous = r.dot(z), rz
        direction = z.plus(direction, rz / previous)
    return PCGResult(x, rz <= target, _share(rz, first), None, max_iter)


def _share(square: float, first: float) -> float:
    return float(np.sqrt(max(square, 0.0) / first)) if first > 0.0 else 0.0
