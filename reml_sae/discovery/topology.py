"""Which topology the rows of an atom have, judged by V and checked against permuted rows.

Every candidate is fitted roughly to the leading principal scores of a sample of the rows, and the
best of them by REML; those that are close to the lowest V are then fitted to all rows. The lowest V
wins, but a curved atom must beat the best flat by the margin nats: one whose roughness runs to
infinity is that flat, up to a constant. Noise has no shape in these fits, unless the best of them
leaves such noise or a curve may be hidden in it: then all are fitted again.

V assumes Gaussian noise about the atom, and rows with other margins can make a curve look better
than a flat without any shape between the columns. So a curved winner is compared with rows whose
principal scores are permuted, each on its own, which keeps the margins and destroys the shape. The
statistic is V(best flat) - V(the topology), by rough fits of the sample. The test is sequential.
The first permutation that reaches the observed statistic ends it, and the flat is chosen. After
``least_permutations`` an observed statistic ends it that would be rarer than ``sure`` if it were
one more draw from the normal distribution of the permuted ones (Student's t of their mean and
standard deviation, the latter no less than the margin). Where all statistics have one distribution
this calls a shape in 5.1 % of cases if that is normal, 6.7 % if it is exponential and 7.7 % if a
tenth lies eight standard deviations above the rest (simulated), against 5 % without the early end;
that the curve must also win by V is not counted, nor that it was the best of several.

Contract. `choose_topology` never raises for rows that are few, repeated, noiseless or of low rank:
rows without a shape get the best flat, or the first candidate where none is flat. It raises
InputError for no candidates and for rows that are no finite matrix. All that is random comes from
``rng``. Custom penalties of the model do not enter; roughness of the decoder does. Where
the deadline passes, the best rough fit so far wins, without a check on permuted rows; an interrupt
that is no deadline is raised as KeyboardInterrupt.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.fitting import Fitted, Settings, model_from_codes, rough_fit
from reml_sae.discovery.follow_noise import better_noise
from reml_sae.discovery.local import (
    local_scores,
    local_settings,
    rough_criterion,
    rough_local,
    uninterrupted,
)
from reml_sae.discovery.metric import MetricRows
from reml_sae.discovery.settle import settle
from reml_sae.discovery.strengths import known_of
from reml_sae.engine import Stopped
from reml_sae.errors import InnerConvergenceError, InputError
from reml_sae.families.noise import best_noise
from reml_sae.manifolds import (
    Circle,
    Cylinder,
    Euclidean,
    Interval,
    Manifold,
    Mobius,
    Point,
    ProjectivePlane,
    Sphere,
    Torus,
)
from reml_sae.relaxations.axes import sample_rows
from reml_sae.relaxations.latent_grid import nearest_coordinates
from reml_sae.typing import Array

logger = logging.getLogger("reml_sae")

AUTO_TOPOLOGIES: tuple[Manifold, ...] = (
    Euclidean(1, 1), Euclidean(2, 1), Euclidean(3, 1), Circle(2), Circle(4), Interval(8),
    Euclidean(2, 2), Sphere(2), Torus(1), Cylinder(1, 1), Mobius(1), ProjectivePlane(2),
)
"""Candidates where the user names none.

A ring of many harmonics is nearer to an interval of eight functions than to a circle of five.
"""


@dataclass(frozen=True)
class TopologyChoice:
    """Topology of one atom.

    Attributes
    ----------
    manifold : Manifold
    table : tuple of (str, float)
        Every candidate with its V in nats, the lowest first: of a REML fit for the best, of a rough
        one for the others. It is V of a sample where the best is clear from that; else of all rows
        for the close ones, and V of the sample times the ratio of rows for the others. Empty where
        the rows have no shape to look for.
    p_value : float
        (1 + permutations that reach the observed statistic) / (1 + permutations), or the tail
        probability that ended the test; nan where a flat won by V, or there was no flat.
    statistic : float
        V(best flat) - V(the curved winner) by rough fits of the sample, in nats, below zero where
        REML alone finds the winner; nan with the p-value.
    """

    manifold: Manifold
    table: tuple[tuple[str, float], ...]
    p_value: float
    statistic: float


def choose_topology(
    X: Array, candidates: Sequence[Manifold], settings: Settings, rng: np.random.Generator
) -> TopologyChoice:
    """Choose the topology of an atom from its rows.

    Parameters
    ----------
    X : (n, r) array
        Rows of one atom, on the scale of the predictor, without what other atoms explain.
    candidates : sequence of Manifold
    settings : Settings
        Of the fit; its curvature, ``max_outer`` and ``tol`` are used.
    rng : numpy.random.Generator

    Returns
    -------
    TopologyChoice

    Raises
    ------
    InputError
        Where there are no candidates, or X is not a finite matrix.
    """
    if not candidates:
        raise InputError("candidates is empty; name at least one topology")
    X = np.asarray(X, float)
    if X.ndim != 2 or not np.isfinite(X).all():
        raise InputError(f"X must be a finite matrix, got shape {X.shape}")
    policy, settings = settings.policy.topology, settings.of_scores()
    scores = local_scores(X, policy.final_rows, policy, rng)
    flats = [atom for atom in candidates if atom.is_flat]
    if len(scores) < settings.policy.start.least_rows or scores.shape[1] == 0:
        return TopologyChoice((flats or list(candidates))[0], (), np.nan, np.nan)
    sample = sample_rows(scores, policy.sample_rows, rng)
    screened: dict[Manifold, Fitted] = {}
    own = settings.plain()
    try:
        _screen(sample, candidates, own, rng, screened)
        hidden = _hidden(sample, screened, settings, rng)
        if hidden:
            own = settings
            _screen(sample, hidden, own, rng, screened)
        return _judged(scores, sample, screened, own, rng)
    except Stopped:
        values = {atom: fitted.result.criterion for atom, fitted in screened.items()}
        best = min(values, key=lambda atom: values[atom], default=(flats or list(candidates))[0])
        return TopologyChoice(best, _table(values), np.nan, np.nan)


def _judged(
    scores: Array, sample: Array, screened: dict[Manifold, Fitted], settings: Settings,
    rng: np.random.Generator,
) -> TopologyChoice:
    """The choice among topologies that have rough fits to the sample."""
    policy, margin = settings.policy.topology, settings.policy.move.margin
    flats = [atom for atom in screened if atom.is_flat]
    values = _values(scores, _settle_best(screened, settings), settings)
    table = _table(values)
    best = min(values, key=lambda atom: values[atom] + (0.0 if atom.is_flat else margin))
    flat = min((atom for atom in values if atom.is_flat), key=lambda atom: values[atom],
               default=None)
    if flat is None or best.is_flat:
        return TopologyChoice(best, table, np.nan, np.nan)
    rough = {atom: fitted.result.criterion for atom, fitted in screened.items()}
    statistic = min(rough[atom] for atom in rough if atom.is_flat) - rough[best]
    p_value = _permutation_test(sample, best, statistic, flats, settings, rng)
    return TopologyChoice(best if p_value <= policy.level else flat, table, p_value, statistic)


def _table(values: dict[Manifold, float]) -> tuple[tuple[str, float], ...]:
    """Labels and V, the lowest first."""
    return tuple(sorted(((atom.label, value) for atom, value in values.items()),
                        key=lambda entry: entry[1]))


def _screen(
    X: Array, candidates: Sequence[Manifold], settings: Settings, rng: np.random.Generator,
    screened: dict[Manifold, Fitted],
) -> None:
    """Add rough fits of all candidates that have one, where V is not above that of a known one."""
    for number, atom in enumerate(candidates):
        settings.stages.enter("shape", number + 1, len(candidates))
        fitted = rough_local(X, atom, settings, rng)
        if fitted is not None:
            screened[atom] = min(screened.get(atom, fitted), fitted,
                                 key=lambda found: found.result.criterion)
    if not screened:
        raise InnerConvergenceError(
            f"none of the {len(candidates)} candidate topologies could be fitted to {len(X)} rows; "
            "name a topology"
        )


def _hidden(
    X: Array, screened: dict[Manifold, Fitted], settings: Settings, rng: np.random.Generator
) -> list[Manifold]:
    """Candidates that noise of a shape may make the choice, of rough fits without.

    All, where the best of them leaves such noise. Where it has coordinates that may stand for
    noise, those of fewer dimensions without; a flat stands for any, and then there must be a curve
    in the rows where all that varies together is taken for noise.
    """
    if settings.noise == "isotropic":
        return []
    best = min(screened, key=lambda atom: screened[atom].result.criterion)
    if better_noise(screened[best], settings)[2] >= settings.policy.noise.least_gain:
        return list(screened)
    if not best.is_flat:
        return [atom for atom in screened if best.gaussian_axes and not atom.gaussian_axes
                and atom.intrinsic_dim < best.intrinsic_dim]
    plain = settings.plain()
    everything = best_noise(settings.noise, X.T @ X / len(X), len(X))
    white = MetricRows.isotropic(X).whitened(everything).Z
    least = rough_criterion(white, Point(), plain, rng) - settings.policy.move.margin
    return [atom for atom in screened
            if not atom.is_flat and rough_criterion(white, atom, plain, rng) < least]


def _settle_best(screened: dict[Manifold, Fitted], settings: Settings) -> dict[Manifold, Fitted]:
    """Fits of the sample, by REML where V may be the lowest, rough elsewhere."""
    policy = settings.policy.topology
    fits = dict(screened)
    values = {atom: fitted.result.criterion for atom, fitted in fits.items()}
    n_rows, n_columns = next(iter(fits.values())).model.Z.shape
    local, best = local_settings(settings, n_columns), np.inf
    ranked = sorted(values, key=lambda atom: values[atom])
    n = policy.n_settled
    for atom in ranked[:n] + [atom for atom in ranked[n:] if atom.is_flat]:
        if values[atom] > min(best, values[ranked[0]]) + policy.rough_per_row * n_rows:
            break
        final = uninterrupted(settle(fits[atom], local), settings)
        if final.result.criterion < values[atom]:
            fits[atom] = final
        best = min(best, fits[atom].result.criterion)
    return fits


def _values(X: Array, fits: dict[Manifold, Fitted], settings: Settings) -> dict[Manifold, float]:
    """V of all candidates: that of the sample, unless several are close to the lowest there.

    The close ones are then fitted to all rows X; the V of the others is scaled up to these.
    """
    values = {atom: fitted.result.criterion for atom, fitted in fits.items()}
    n_sample = len(next(iter(fits.values())).model.Z)
    within = min(values.values()) + settings.policy.topology.close_per_row * n_sample
    close = [atom for atom in values if values[atom] <= within]
    if len(X) == n_sample or len(close) == 1:
        return values
    values = {atom: value * len(X) / n_sample for atom, value in values.items()}
    local = local_settings(settings, X.shape[1])
    for atom in close:
        carried = _on_all_rows(X, fits[atom], local)
        if carried is not None:
            values[atom] = min(carried.result.criterion,
                               uninterrupted(settle(carried, local), settings).result.criterion)
    return values


def _on_all_rows(X: Array, fitted: Fitted, local: Settings) -> Fitted | None:
    """The fit of a sample carried to all rows, and rough there."""
    model, result = fitted.model, fitted.result
    (atom,) = model.atoms
    rows, everyone = MetricRows.isotropic(X), np.ones((len(X), 1))
    if fitted.rows.noise.simpler() is not None:
        rows = rows.whitened(fitted.rows.noise)
    variance = model.family.dispersion(result.rho[model.outer.psi])
    t = nearest_coordinates(rows.Z * (rows.unit / model.unit), atom, result.theta.beta,
                            local.policy.relaxation.grid, variance)[0]
    codes = Candidate(everyone > 0.0, everyone, t)
    model = model_from_codes(rows, [atom], local, codes, known_of(fitted))
    found = rough_fit(model, local, atom.label)
    return None if found is None else uninterrupted(found, local)


def _permutation_test(
    X: Array, atom: Manifold, observed: float, flats: Sequence[Manifold], settings: Settings,
    rng: np.random.Generator,
) -> float:
    """p-value of the observed statistic."""
    policy, margin = settings.policy.topology, settings.policy.move.margin
    permuted: list[float] = []
    while len(permuted) < policy.n_permutations:
        settings.stages.enter("permuted rows", len(permuted) + 1, policy.n_permutations)
        rows = rng.permuted(X, axis=0)
        flat = min(rough_criterion(rows, other, settings, rng) for other in flats)
        permuted.append(flat - rough_criterion(rows, atom, settings, rng))
        if permuted[-1] >= observed:
            return 2.0 / (1 + len(permuted))
        if len(permuted) >= policy.least_permutations:
            p_value = _tail(observed, permuted, margin)
            if p_value < policy.sure:
                return p_value
    return policy.level


def _tail(observed: float, permuted: Sequence[float], least: float) -> float:
    """Probability that one more normal value is as high as the observed one.

    Their standard deviation is no less than ``least``.
    """
    if not np.isfinite(permuted).all():
        return 1.0
    n = len(permuted)
    spread = max(float(np.std(permuted, ddof=1)), least) * np.sqrt(1.0 + 1.0 / n)
    return float(student_t.sf((observed - np.mean(permuted)) / spread, n - 1))
