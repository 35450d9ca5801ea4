"""The end of a search at a crease of V, where two smooth pieces meet in a minimum.

theta_hat(rho) forks where the data hold an atom no longer: V is continuous there, its gradient is
not, and neither side's vanishes. A proximal bundle method (Kiwiel 1990, Math. Program. 46, 105)
goes on from a search that stalled: with V_j and g_j at the points rho_j that were met, and
a_j = |V - V_j - g_j^T (rho - rho_j)| at the best, rho,

    d = sum_j alpha_j g_j,    alpha = argmin over the simplex of  |d|^2 / 2 w + sum_j alpha_j a_j

foretells a fall of |d|^2 / w + sum_j alpha_j a_j in the step -d / w. A step that does not keep the
promise leaves its gradient in the bundle.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from reml_sae.engine.criterion import CriterionValue
from reml_sae.engine.loop import Loop, logger
from reml_sae.engine.status import NEGLIGIBLE, OuterStatus
from reml_sae.errors import InnerConvergenceError, NotPositiveDefiniteError
from reml_sae.typing import Array

MOST_STEPS = 50
WEIGHT = 1.0
"""w, in nats over squared units of rho: what V curves by along the crease."""
KEPT, BETTER = 0.1, 0.9
"""Share of the foretold fall that a step must keep; and that a slope must leave of it, to count."""
SHORTER, LONGER = 0.3, 2.0


def crease(loop: Loop) -> OuterStatus:
    """Follow a crease of V from the best point; returns why it ended."""
    met: list[tuple[Array, CriterionValue]] = [(loop.best_rho, loop.found)]
    length = 1.0 / WEIGHT
    for _ in range(min(MOST_STEPS, loop.left)):
        direction, fall = _foretold(loop, met)
        if fall <= NEGLIGIBLE:
            return OuterStatus.CREASE
        trial = loop.outer.clip(loop.best_rho - length * direction)
        try:
            value = loop.evaluate(trial, gradient=True)
        except (InnerConvergenceError, NotPositiveDefiniteError) as error:
            logger.debug("step along a crease refused: %s", error)
            length *= SHORTER
            continue
        if not value.inner.converged:
            length *= SHORTER
        elif value.value <= loop.found.value - min(KEPT * fall * length * WEIGHT, NEGLIGIBLE):
            met.append((trial, value))
            loop.keep(trial, value)
            loop.record("crease", trial, value)
            length *= LONGER
        elif _foretold(loop, [*met, (trial, value)])[1] < BETTER * fall:
            met.append((trial, value))
            length = 1.0 / WEIGHT
        else:  # V is not convex: nearer, its slope says more
            length *= SHORTER
    return OuterStatus.STALLED


def _foretold(loop: Loop, met: list[tuple[Array, CriterionValue]]) -> tuple[Array, float]:
    """The direction d, and the fall of V that it foretells."""
    best, rho = loop.found, loop.best_rho
    slopes = np.array([loop.projected(rho, value.gradient) for _, value in met])
    errors = np.array([abs(best.value - value.value - float(value.gradient @ (rho - at)))
                       for at, value in met])
    alpha = _simplex_minimum(slopes, errors)
    direction = alpha @ slopes
    return direction, float(direction @ direction) / WEIGHT + float(alpha @ errors)


def _simplex_minimum(slopes: Array, errors: Array) -> Array:
    """Argmin over the simplex of |alpha^T slopes|^2 / 2 w + alpha^T errors."""
    gram = slopes @ slopes.T / WEIGHT
    n, unit = len(errors), float((0.5 * np.diagonal(gram) + errors).min()) + 1e-300

    def value(alpha: Array) -> tuple[float, Array]:
        pulled = gram @ alpha
        return float(0.5 * alpha @ pulled + alpha @ errors) / unit, (pulled + errors) / unit

    start = np.zeros(n)
    start[int(np.argmin(0.5 * np.diagonal(gram) + errors))] = 1.0
    found = minimize(value, start, jac=True, method="SLSQP", bounds=[(0.0, 1.0)] * n,
                     constraints={"type": "eq", "fun": lambda alpha: alpha.sum() - 1.0,
                                  "jac": lambda alpha: np.ones(n)},
                     options={"ftol": 1e-15, "maxiter": 200})
    alpha = np.maximum(found.x, 0.0)
    return np.asarray(alpha / alpha.sum(), np.float64)
