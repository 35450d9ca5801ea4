"""Cases of the kinds that act on outer parameters."""

import numpy as np

from reml_sae.penalties.hyperprior import LogStrengthPriorPenalty
from tests.penalties.cases._case import Case, Small

PRIOR = LogStrengthPriorPenalty(names=["ard.*"], mean=1.5, sd=2.0, weight=0.7)


def normal(target, strengths):
    total = 0.0
    for rho in np.ravel(target):
        total += 0.7 / 2 * ((rho - 1.5) / 2.0) ** 2
    return total


CASES = [
    Case(PRIOR, np.random.default_rng(8).normal(size=5), normal,
         lambda n: (PRIOR, np.linspace(-3.0, 3.0, n)),
         extremes=(np.zeros(3), 700.0 * np.ones(2), 1e-9 * np.ones(2)),
         small=Small(PRIOR, 2, np.eye(2), 2.0)),
]
