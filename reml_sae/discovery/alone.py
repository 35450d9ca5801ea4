"""The rows of one atom searched on their own, where every row uses one atom.

Given which rows are an atom's, they are a problem of one atom and one noise, for which there are
starts that expect noise of any shape. What a search with one noise for all rows took for a curve
may be noise of this atom, and the other way round.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from reml_sae.discovery.first_fit import fit_starts
from reml_sae.discovery.fitting import Fitted, Settings
from reml_sae.discovery.metric import TINY, MetricRows
from reml_sae.engine import Theta
from reml_sae.errors import InnerConvergenceError, InputError
from reml_sae.families.noise import Noise
from reml_sae.models import SAEManifoldModel
from reml_sae.typing import Array

logger = logging.getLogger("reml_sae")


@dataclass(frozen=True)
class Alone:
    """An atom that was found by its rows alone.

    Attributes
    ----------
    theta : Theta
        State of the whole model with this atom in the place of its own.
    noise : Noise
    variance : float
        Geometric mean of its noise, in squared units of the data.
    """

    theta: Theta
    noise: Noise
    variance: float


def find_alone(
    fitted: Fitted, k: int, settings: Settings, rng: np.random.Generator
) -> Alone | None:
    """Atom k by its own rows; None where these are too few or lead to no usable state."""
    model, theta = fitted.model, fitted.result.theta
    mine = np.flatnonzero(model.active[:, k])
    data = model.unit * model.coloured[mine]
    if len(mine) <= model.atoms[k].basis_size:
        return None
    mean = data.mean(axis=0)
    unit = float(np.sqrt(np.mean((data - mean) ** 2)))
    if not unit > TINY:
        return None
    rows = MetricRows.isotropic((data - mean) / unit, unit)
    try:
        found = fit_starts(rows, [model.atoms[k]], replace(settings, callbacks=()), rng)
    except (InnerConvergenceError, InputError) as error:
        logger.info("atom %d alone was given up: %s", k, error)
        return None
    own, alone = found.model, found.result.theta
    xi = theta.xi.copy()
    xi[mine, k] = alone.xi[:, 0]
    xi[mine, model.coordinate_columns(k)] = alone.xi[:, 1:]
    decoder = own.unit * own.centred_decoders(alone.beta)[:-1]
    decoder[0] += mean
    beta = theta.beta.copy()
    beta[model.layout.basis_slices[k]] = _in_metric_of(model, k, decoder, theta.beta[-1])
    phi = own.family.dispersion(found.result.rho[own.outer.psi])
    return Alone(Theta(xi, beta), own.noise.of_atom(0), phi * own.unit**2)


def _in_metric_of(model: SAEManifoldModel, k: int, decoder: Array, intercept: Array) -> Array:
    """A decoder (M_k, p) in the units of the data in the metric of atom k, beside an intercept."""
    size = model.unit * np.exp(0.5 * model.noise.log_size(k))
    out = np.array(model.noise.of_atom(k).whiten(decoder) / size)
    out[0] -= intercept
    return out
