"""What a likelihood that others wrote answers, asked before a fit."""

from __future__ import annotations

import numpy as np

from reml_sae.answers import Asked
from reml_sae.families._base import Family
from reml_sae.typing import Array

ROWS = 5
STEPS = (0.0, 1.0, -1.0, 10.0, -10.0)
"""From the saturated fit to the linear predictors that are asked for."""


def check_answers(family: Family, data: Array) -> None:
    """Ask a family for all that a fit asks it, at a few rows (N, p) of its data.

    Raises
    ------
    InputError
        Naming the family and the method, where it raises, has another shape or is not finite.
    """
    asked = Asked(family, family.name, "reml_sae.families.Family says what is asked for")
    count = family.n_psi
    asked.array("psi_bounds", (count, 2))
    psi = asked.array("initial_psi", (count,), data)
    rows = np.unique(np.linspace(0, len(data) - 1, ROWS).astype(np.intp))
    z = data[rows]
    part = Asked(asked.answer("restrict", rows, data.shape), asked.name, asked.remedy)
    centre = part.array("initial_eta", z.shape, z)
    part.array("saturated_loss", z.shape, z, psi)
    for step in STEPS:
        eta = centre + step
        part.array("mean", z.shape, eta)
        part.array("deviance", z.shape, z, eta, psi)
        for order in (1, 2, 3):
            part.array("loss_eta", z.shape, z, eta, psi, order)
        for order in (0, 1):
            part.array("weight", z.shape, z, eta, psi, order)
        for order in (1, 2):
            part.array("loss_eta_psi", (count, *z.shape), z, eta, psi, order)
        for method in ("loss_psi", "weight_psi"):
            part.array(method, (count, *z.shape), z, eta, psi)
