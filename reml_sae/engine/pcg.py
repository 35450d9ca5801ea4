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
        A direction v with v^T K v <= 0, where one was met; x is then the last iterate before it,
        or lies on it at the bound of x.
    n_iter : int
    length : float
        Of x, in the preconditioner's metric.
    fall : float
        Of the quadratic x^T K x / 2 - b^T x, from 0 at x = 0.
    """

    x: Theta
    converged: bool
    residual: float
    negative_curvature: Theta | None
    n_iter: int
    length: float
    fall: float


def preconditioned_cg(
    matvec: Callable[[Theta], Theta],
    factor: Factor,
    b: Theta,
    rtol: float,
    max_iter: int = 200,
    solved: Theta | None = None,
    longest: float = np.inf,
) -> PCGResult:
    """Solve K x = b until the residual's norm in the preconditioner's metric falls by ``rtol``.

    ``solved`` is the preconditioned right-hand side, where it is known. The path of the iterates is
    left where it becomes longer than ``longest`` in that metric: their length only grows, and the
    quadratic falls all the way (Steihaug 1983; Conn, Gould and Toint 2000, section 7.5).

    At negative curvature met in the first iteration, with no bound, x is the preconditioned
    right-hand side, the Newton step of the majorizer.
    """
    x = Theta(np.zeros_like(b.xi), np.zeros_like(b.beta))
    r = b
    z = Theta(*factor.solve(r.xi, r.beta)) if solved is None else solved
    direction = z
    rz = r.dot(z)
    first, target = rz, rtol**2 * rz
    # squared lengths of x and of the direction, and their product
    square, across, along = 0.0, 0.0, rz
    fall, bound = 0.0, longest * longest
    for iteration in range(max_iter):
        if rz <= target or rz <= 0.0:
            return PCGResult(x, True, _share(rz, first), None, iteration, np.sqrt(square), fall)
        image = matvec(direction)
        curvature = direction.dot(image)
        step = rz / curvature if curvature > 0.0 else np.inf
        if longest < np.inf and square + step * (2.0 * across + step * along) >= bound:
            step = (np.sqrt(across * across + along * (bound - square)) - across) / along
            fall += step * (rz - 0.5 * step * curvature)
            return PCGResult(x.plus(direction, step), False, _share(rz, first),
                             direction if curvature <= 0.0 else None, iteration + 1, longest, fall)
        if curvature <= 0.0:
            if not iteration:
                x, square, fall = z, rz, rz - 0.5 * curvature
            return PCGResult(x, False, _share(rz, first), direction, iteration + 1,
                             np.sqrt(square), fall)
        x = x.plus(direction, step)
        square += step * (2.0 * across + step * along)
        fall += 0.5 * step * rz
        r = r.plus(image, -step)
        z = Theta(*factor.solve(r.xi, r.beta))
        rz, previous = r.dot(z), rz
        direction = z.plus(direction, rz / previous)
        across, along = rz / previous * (across + step * along), rz + (rz / previous) ** 2 * along
    return PCGResult(x, rz <= target, _share(rz, first), None, max_iter, np.sqrt(square), fall)


def _share(square: float, first: float) -> float:
    return float(np.sqrt(max(square, 0.0) / first)) if first > 0.0 else 0.0
