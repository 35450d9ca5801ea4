"""How V bends in the strength of a prior, from what one state of it tells.

Let all m functions that a quadratic prior of strength lambda holds be told alike by the data, with
precision d, as they are where rows are many: c = d / (lambda + d) is the part of H there that is
the data's, the energy of the prior is E = lambda b^2 d^2 / 2 (lambda + d)^2, and with the log
determinant V has, up to a constant,

    dV / drho  =  g  =  E - v,    v = m c / 2            the Fellner-Schall equation
    d2V / drho dlog phi  =  -(1 - c) (E + g)             where d goes as 1 / phi
    V is least at  lambda / (1 + g / v c),               at infinity where that is not positive

c is v over the part that the normaliser has, which is m / 2. Where the functions are not alike
these hold nearly, and at both ends of c exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reml_sae.engine.chart import Chart
from reml_sae.engine.criterion import CriterionValue
from reml_sae.engine.outer import Outer
from reml_sae.typing import Array

LEAST_SHARE = 1e-6
"""Least c that is told from rounding."""


def has_formula(outer: Outer, value: CriterionValue) -> NDArray[np.bool_]:
    """Which strengths are those of quadratic priors with a part in H, or a dispersion.

    Of rows that are integrated out the normaliser of such a prior is in the integrals.
    """
    own = value.explicit["log_normalizer"] != 0.0
    if outer.dispersion is not None:
        own[outer.dispersion] = True
    return np.asarray(outer.quadratic & own)


def data_share(value: CriterionValue) -> Array:
    """c of every strength, (n_rho,); 1 for what is no prior's."""
    normalizer = np.abs(value.explicit["log_normalizer"])
    left = np.abs(value.explicit["half_logdet"]) / np.where(normalizer > 0.0, normalizer, np.inf)
    return np.clip(1.0 - left, LEAST_SHARE, 1.0)


def foretold_hessian(chart: Chart, rho: Array, value: CriterionValue) -> Array:
    """Curvature of V in the coordinates of a chart, (n_rho, n_rho).

    For a prior's own it is the mean from here to where V is least: a Newton step goes there, and
    the curvature is positive where V itself bends the other way on the way. At a minimum it is V's.
    Between two priors it is zero, and for what is neither a prior's nor the dispersion.
    """
    energy, c = np.abs(value.explicit["objective"]), data_share(value)
    x, prior, g = chart.deviation(rho), chart.deviations, value.gradient
    volume = np.abs(value.explicit["log_normalizer"]) * c
    ratio = 1.0 + g / np.where(prior & (volume > 0.0), volume * c, np.inf)
    secant = np.where(ratio > 0.0, 2.0 * volume * c * (1.0 + np.sqrt(np.maximum(ratio, 0.0))),
                      -2.0 * g)
    out = np.diag(np.where(prior, secant / x**2, 0.0))
    if (phi := chart.outer.dispersion) is not None:
        out[phi] = np.where(prior, 2.0 * (1.0 - c) * (energy + g) / x, 0.0)
        out[:, phi] = out[phi]
        out[phi, phi] = value.inner.point.dispersion_energy
    return out
