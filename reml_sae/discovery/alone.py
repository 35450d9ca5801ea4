"""The rows of one atom on their own, where every row uses one atom.

Given which rows are an atom's, they are a problem of one atom and one noise, for which there are
starts that expect noise of any shape (`find_alone`). What a search with one noise for all rows took
for a curve may be noise of this atom, and the other way round.

Given what all atoms share as well, the V of all rows is a sum over atoms, but for the permutations
of those that are alike. So a change of one atom changes V by what it does on that atom's rows
(`rise_alone`), at a cost that does not grow with the atoms.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from reml_sae.assignments.gates import TopK
from reml_sae.discovery.first_fit import fit_starts
from reml_sae.discovery.fitting import Fitted, Settings
from reml_sae.discovery.metric import TINY, MetricRows
from reml_sae.discovery.sizes import ways_gained
from reml_sae.discovery.strengths import known_of_one
from reml_sae.engine import OuterKey, Theta
from reml_sae.errors import InnerConvergenceError, InputError, NotPositiveDefiniteError
from reml_sae.families.noise import Noise
from reml_sae.manifolds import Manifold
from reml_sae.models import SAEManifoldModel
from reml_sae.models.sae.priors import with_own_priors
from reml_sae.models.sae.start import solve_beta
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


def rise_alone(
    fitted: Fitted, k: int, atom: Manifold, t: Array, settings: Settings
) -> float | None:
    """Nats by which V rises with another atom k, all that the atoms share held; None where unknown.

    Parameters
    ----------
    fitted : Fitted
    k : int
    atom : Manifold
    t : (n, d) array
        Coordinates of the rows of atom k on it, from which the fit starts.
    settings : Settings
    """
    model = fitted.model
    if not model.kinds or model.noise.n_metrics > 1 or fitted.rows.noise.simpler() is not None:
        return None  # what another basis leaves may be noise of another shape
    known = known_of_one(fitted, k)
    mine = model.active[:, k]
    own = fitted.result.theta.xi[mine, model.coordinate_columns(k)]
    values = []
    for each, coordinates in ((model.atoms[k], own), (atom, t)):
        part = _part(fitted, k, each, coordinates, known, settings)
        try:
            found = settings.journal.fit(
                part, tol=settings.policy.move.alone_tol, valleys=False,
                max_outer=settings.max_outer, max_time=settings.deadline)
        except (InnerConvergenceError, NotPositiveDefiniteError) as error:
            logger.info("%s alone was given up: %s", each.label, error)
            return None
        if not found.converged:
            return None
        values.append(found.criterion)
    rise = values[1] - values[0] - ways_gained(model, k, atom)
    logger.info("%s in the place of %s alone: V rises by %.4f", atom.label,
                model.atoms[k].label, rise)
    return rise


def _part(
    fitted: Fitted, k: int, atom: Manifold, t: Array, known: Mapping[OuterKey, float],
    settings: Settings,
) -> SAEManifoldModel:
    """The rows of atom k as a model of one atom; what it shares with others is held.

    The intercept is, too: it is the offset here, about which the model has another.
    """
    model, theta = fitted.model, fitted.result.theta
    rows = np.flatnonzero(model.active[:, k])
    atoms = [atom if j == k else other for j, other in enumerate(model.atoms)]
    terms = [replace(model.restricted(term, rows) if term.on_rows else term,
                     atom=min(term.atom, 0))
             for term in with_own_priors(model.assignment, settings.bind(atoms))
             if term.target != "gates" and term.atom in (-1, k)]
    shared = {key: value for key, value in known.items() if key.atom < 0}
    p = model.shape[1]
    xi = np.concatenate([theta.xi[rows, k][:, None], t], axis=1)
    family = model.family.restrict(rows, model.shape)
    rho = np.concatenate([*(term.penalty.initial_rho() for term in terms),
                          fitted.result.rho[model.outer.psi]])
    part = SAEManifoldModel(
        model.Z[rows], [atom], terms, np.ones((len(rows), 1), bool),
        Theta(xi, np.zeros((atom.basis_size + 1, p))), rho, assignment=TopK(1), unit=model.unit,
        spread=model.spread, decoder_precision=model.decoder_precision, family=family,
        offset=model.offset + theta.beta[-1], held=shared, integration="laplace").settled()
    rho = part.outer.filled(rho, known)
    return part.with_state(solve_beta(part, part.theta, rho), rho)


def _in_metric_of(model: SAEManifoldModel, k: int, decoder: Array, intercept: Array) -> Array:
    """A decoder (M_k, p) in the units of the data in the metric of atom k, beside an intercept."""
    size = model.unit * np.exp(0.5 * model.noise.log_size(k))
    out = np.array(model.noise.of_atom(k).whiten(decoder) / size)
    out[0] -= intercept
    return out
