"""Fellner-Schall steps (Wood and Fasiolo 2017): a cheap start for quadratic strengths.

Every strength goes to the value at which the gradient g of V vanishes,

    lambda / (1 + g / v c)

with the notation of `response`, as if it alone moved. Where the mode does not move with it, g is
E - v, and at c = 1 the step is Wood and Fasiolo's, lambda v / E, which holds E and v fixed: towards
a limit, where c vanishes, that goes by a constant factor for ever. Of codes of rows the mode moves
so much that E = v is far from where V is least.
"""

from __future__ import annotations

import numpy as np

from reml_sae.engine.criterion import CriterionValue
from reml_sae.engine.inner import InnerStatus
from reml_sae.engine.loop import Loop
from reml_sae.engine.response import data_share, has_formula
from reml_sae.typing import Array

CLIP = 4.0
"""Longest step of a log strength."""
LOOSE, LOOSE_ADJOINT = 0.05, 1e-3
"""Newton decrement of the inner solves, where a step costs as much as V itself; relative residual
of the adjoint."""
SMALL_GAIN = 0.2


def fellner_schall(loop: Loop, max_steps: int) -> None:
    """Steps until V gains less than `SMALL_GAIN` nats."""
    rho = loop.best_rho
    costly = loop.model.at(loop.theta, rho).factor_is_costly
    for _ in range(min(max_steps, loop.left)):
        value = loop.evaluate(rho, gradient=True, lenient=True, tol=None if costly else LOOSE,
                              adjoint_rtol=LOOSE_ADJOINT)
        gain = np.inf if loop.best is None else loop.best.value - value.value
        if gain < 0.0:
            break
        loop.keep(rho, value)
        loop.record("fellner-schall", rho, value)
        if value.inner.status is InnerStatus.MAX_ITER:
            break
        step = np.where(has_formula(loop.outer, value), _step(value, loop.outer.dispersion), 0.0)
        rho = loop.model.advance_rho(value.inner.point, loop.outer.clip(rho + step))
        if gain < SMALL_GAIN or np.abs(rho - loop.best_rho).max(initial=0.0) < 0.02:
            break


def _step(value: CriterionValue, dispersion: int | None) -> Array:
    """Steps of the log strengths, clipped.

    For a dispersion the signs of numerator and denominator are exchanged, and the ratio is
    RSS / (N p - edf).
    """
    energy = value.explicit["objective"]
    volume = np.maximum(-(value.explicit["log_normalizer"] + value.explicit["half_logdet"]), 1e-300)
    ratio = 1.0 + value.gradient / (volume * data_share(value))
    step = -np.log(np.maximum(ratio, 1e-300))
    if (j := dispersion) is not None:
        # log phi: dF = (N p - rss / phi) / 2, volume = edf / 2
        rss = value.inner.point.dispersion_energy
        rest = max(energy[j] + rss - volume[j], 1e-12 * rss, 1e-300)
        step[j] = np.log(max(rss, 1e-300) / rest)
    return np.clip(step, -CLIP, CLIP)
