"""One atom of a joint model on its own rows: what they look like, and fits of a shape to them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.first_fit import fit_starts
from reml_sae.discovery.fitting import Fitted, Settings, model_from_codes, rough_fit
from reml_sae.discovery.metric import MetricRows
from reml_sae.discovery.policy import SearchPolicy, TopologyPolicy
from reml_sae.engine import OuterKey, Theta
from reml_sae.errors import InnerConvergenceError
from reml_sae.families import Gaussian
from reml_sae.families.noise import best_noise, charged
from reml_sae.manifolds import Manifold
from reml_sae.models.sae.start import row_weights
from reml_sae.penalties.quadratic import LEAST_SIZE
from reml_sae.relaxations.axes import principal_scores, sample_rows
from reml_sae.typing import Array, Index

logger = logging.getLogger("reml_sae")

TINY = 1e-12


def local_rows(fitted: Fitted, k: int, policy: SearchPolicy) -> tuple[Index, Array]:
    """Rows that use atom k well, and what they look like on it alone.

    Returns
    -------
    rows : (n,) int array
    X : (n, p) array
        Working data less what the other atoms explain, with the row's amplitude on atom k taken
        out; under hard gates the atom's centre is whole whatever the amplitude. Rows too few to
        have a shape are left out altogether.
    """
    model = fitted.model
    amplitudes = fitted.amplitudes[:, k]
    used = model.active[:, k]
    own = policy.topology
    least = own.least_amplitude * float(np.median(amplitudes[used])) if used.any() else 0.0
    known = row_weights(model, fitted.result.theta, fitted.result.rho) >= own.least_weight
    rows = np.flatnonzero(used & known & (amplitudes >= max(least, TINY)))
    if len(rows) < policy.start.least_rows:
        return rows[:0], np.zeros((0, model.shape[1]))
    beta, where = fitted.result.theta.beta, model.layout.basis_slices[k]
    part = model.rows(rows)
    features = part.scaled_basis(Theta(fitted.result.theta.xi[rows], beta))[1]
    features[:, where] = 0.0
    centre = model.assignment.whole_constants(beta[where.start])
    residual = part.working - features @ beta
    return rows, (residual - centre) / amplitudes[rows, None] + centre


def local_scores(
    X: Array, most: int, policy: TopologyPolicy, rng: np.random.Generator
) -> Array:
    """Leading scores (n', r) of a sample of at most so many rows."""
    return principal_scores(sample_rows(X, most, rng), policy.most_columns)


def local_settings(settings: Settings, n_columns: int) -> Settings:
    """Settings for a fit of one atom on its own: Gaussian, default penalties, one start.

    Out of time it is raised that it is, whether or not there is a state.
    """
    policy = settings.policy
    return replace(
        settings.of_scores().of_shares(), curvature="majorizer", n_init=1, callbacks=(),
        max_outer=min(settings.max_outer, policy.move.most_outer),
        deadline=replace(settings.deadline, sharp=True),
        tol=max(settings.tol, policy.topology.local_tol), family=Gaussian(),
        offset=np.zeros(n_columns))


def uninterrupted(fitted: Fitted, settings: Settings) -> Fitted:
    """Return the fit; raise the interrupt that ended it."""
    if fitted.result.interrupted:
        settings.deadline.check()
        raise KeyboardInterrupt
    return fitted


def rough_local(
    scores: Array, atom: Manifold, settings: Settings, rng: np.random.Generator
) -> Fitted | None:
    """Rough fit of one atom to rows (n, r), None where no start is usable; raises interrupts."""
    try:
        found = fit_starts(MetricRows.isotropic(scores), [atom],
                           local_settings(settings, scores.shape[1]), rng)
    except InnerConvergenceError as error:
        logger.info("candidate %s was given up: %s", atom.label, error)
        return None
    return uninterrupted(found, settings)


def rough_criterion(
    scores: Array, atom: Manifold, settings: Settings, rng: np.random.Generator
) -> float:
    """V of a rough fit of one atom to rows (n, r); infinite where no start is usable."""
    found = rough_local(scores, atom, settings, rng)
    return np.inf if found is None else found.result.criterion


def criterion_from(
    scores: Array, t: Array, atom: Manifold, settings: Settings,
    known: Mapping[OuterKey, float] | None = None,
) -> float:
    """V of a rough fit of one atom to rows (n, r) from their coordinates on it (n, d).

    Where outer parameters are known by key, one step from there leaves less than a nat. Infinite
    where the start is of no use; raises interrupts.
    """
    own = local_settings(settings, scores.shape[1]).plain()
    if known is not None:
        settle = replace(own.policy.settle, rough_steps=1)
        own = replace(own, policy=replace(own.policy, settle=settle))
    model = model_from_codes(
        MetricRows.isotropic(scores), [atom], own, Candidate.on_one_atom(t), known)
    found = rough_fit(model, own, f"{atom.label} as it is")
    return np.inf if found is None else uninterrupted(found, settings).result.criterion


def least_gaussian(scores: Array) -> float:
    """What V of Gaussian rows (n, r) is hardly below, whatever their mean and covariance.

    The evidence of a model is not above its largest likelihood, and its centre costs what
    `least_flat` says: flats are such models, with noise of any kind.
    """
    n, r = scores.shape
    sign, log_volume = np.linalg.slogdet(np.atleast_2d(np.cov(scores.T, bias=True)))
    if sign <= 0:
        return -np.inf
    likelihood = n * (float(log_volume) + r * (1.0 + np.log(2.0 * np.pi)))
    return 0.5 * (likelihood + r * np.log(n))


def least_flat(fitted: Fitted, d: int, settings: Settings) -> float:
    """What V of the rows of a fit is hardly below with a flat of d dimensions for its atoms.

    The largest likelihood of the flat is that of principal axes (probabilistic PCA, Tipping and
    Bishop 1999), or without dimensions that of the rows' mean in its best noise. Its centre and
    axes cost half the log of n an entry and more: their prior is as wide as the rows, or for
    axes `LEAST_SIZE` times that, and n rows tell each to noise over root n. Minus infinity
    where there is no closed form: rows that are not Gaussian, a flat in noise of a shape.
    """
    rows, (n, p) = fitted.rows, fitted.model.shape
    if not isinstance(fitted.model.family, Gaussian) or (d and settings.noise != "isotropic"):
        return -np.inf
    X = rows.unit * rows.noise.colour(rows.Z)
    X -= X.mean(axis=0)
    size = n * p * (1.0 + np.log(2.0 * np.pi)) + (p + d * p - d * (d + 1) / 2) * np.log(n)
    size += 2.0 * d * p * np.log(LEAST_SIZE)
    if not d:
        second = X.T @ X / n
        return 0.5 * float(size) + charged(best_noise(settings.noise, second, n), second, n)
    variances = np.linalg.svd(X, compute_uv=False) ** 2 / n
    along, left = variances[:d], float(variances[d:].sum())
    if d >= p or not left > TINY * along.sum():
        return -np.inf
    return 0.5 * float(size + n * (np.log(along).sum() + (p - d) * np.log(left / (p - d))))


def beyond_doubt(rise: float, limit: float, fitted: Fitted, settings: Settings) -> bool:
    """Whether an estimated rise of V is so far above its limit that no fit would change that."""
    return rise > limit + settings.policy.move.within_per_row * len(fitted.model.active)
