"""Which topology the rows of an atom have, judged by V and checked against permuted rows.

Every candidate is fitted roughly to the leading principal scores of the rows, a sample of them
where there are many; the flat candidates and the best curved ones are fitted on by REML. The lowest
V wins, but a curved atom must beat the best flat by `MARGIN` nats: one whose roughness runs to
infinity is that flat, up to a constant.

V assumes Gaussian noise about the atom, and rows with other margins can make a curve look better
than a flat without any shape between the columns. So a curved winner is compared with rows whose
principal scores are permuted, each on its own, which keeps the margins and destroys the shape. The
statistic is V(best flat) - V(the topology), by rough fits of a sample. The first permutation that
reaches the observed one ends the search, and the flat is chosen.

Contract. `choose_topology` never raises for rows that are few, repeated, noiseless or of low rank:
rows without a shape get the best flat, or the first candidate where none is flat. It raises
InputError for no candidates and for rows that are no finite matrix. All that is random comes from
``rng``. Custom penalties of the model do not enter; roughness of the decoder does. An interrupt
during `choose_topology` or `choose_topologies` is raised as KeyboardInterrupt, since they hold no
state worth keeping; `choose_n_atoms` returns its best fit so far.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InnerConvergenceError, InputError
from reml_sae.estimators._code_starts import LEAST_ROWS, leading_scores
from reml_sae.estimators._fitting import Fitted, Settings, fit_starts, settle
from reml_sae.estimators._latent_grid import latent_grid_starts, nearest_coordinates
from reml_sae.estimators._moves import (
    MARGIN,
    Move,
    codes_of,
    is_flat,
    local_rows,
    local_settings,
    principal_scores,
    remove_idle,
    rough_criterion,
    rough_local,
    topology_label,
)
from reml_sae.estimators._pursuit import Candidate
from reml_sae.manifolds import (
    Circle,
    Cylinder,
    Euclidean,
    Interval,
    Manifold,
    Mobius,
    ProjectivePlane,
    Sphere,
    Torus,
)

Array = NDArray[np.float64]
logger = logging.getLogger("reml_sae")

AUTO_TOPOLOGIES: tuple[Manifold, ...] = (
    Euclidean(1, 1), Euclidean(2, 1), Euclidean(3, 1), Circle(2), Interval(8), Euclidean(2, 2),
    Sphere(2), Torus(1), Cylinder(1, 1), Mobius(1), ProjectivePlane(2),
)
"""Candidates where the user names none."""
N_SETTLED = 3
"""Best candidates that are fitted on by REML, the best flat beside them."""
WITHIN_PER_ROW = 0.75
"""Nats a row by which a rough V may be behind the best and still be fitted on."""
N_PERMUTATIONS, PERMUTED_ROWS = 19, 250
LEVEL = 1.0 / (1 + N_PERMUTATIONS)
MOST_ATOMS = 16
"""Largest number of atoms that is tried where the user names none."""
PATIENCE = 2
"""Numbers of atoms in a row that do not lower V, after which no more are tried."""


@dataclass(frozen=True)
class TopologyChoice:
    """Topology of one atom.

    Attributes
    ----------
    manifold : Manifold
    table : tuple of (str, float)
        Every candidate with its V in nats (of a REML fit for the best, of a rough fit for the
        others), the lowest first. Empty where the rows have no shape to look for.
    p_value : float
        (1 + permutations that reach the observed statistic) / (1 + permutations); nan where a flat
        won by V, or there was no flat to compare with.
    statistic : float
        V(best flat) - V(the curved winner) of the rows as they are, in nats; nan with the p-value.
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
    scores = principal_scores(X, rng)
    flats = [atom for atom in candidates if is_flat(atom)]
    if len(scores) < LEAST_ROWS or scores.shape[1] == 0:
        return TopologyChoice((flats or list(candidates))[0], (), np.nan, np.nan)
    fitted = _fit_candidates(scores, candidates, settings, rng)
    values = {atom: found.result.criterion for atom, found in fitted.items()}
    table = tuple(sorted(((topology_label(atom), value) for atom, value in values.items()),
                         key=lambda entry: entry[1]))
    best = min(values, key=lambda atom: values[atom] + (0.0 if is_flat(atom) else MARGIN))
    flat = min((atom for atom in values if is_flat(atom)), key=lambda atom: values[atom],
               default=None)
    if flat is None or is_flat(best):
        return TopologyChoice(best, table, np.nan, np.nan)
    p_value, statistic = _permutation_test(scores, best, flats, settings, rng)
    return TopologyChoice(best if p_value <= LEVEL else flat, table, p_value, statistic)


def _fit_candidates(
    X: Array, candidates: Sequence[Manifold], settings: Settings, rng: np.random.Generator
) -> dict[Manifold, Fitted]:
    """Fits of all candidates that have one: rough, the best by REML."""
    local = local_settings(settings, X.shape[1])
    fitted = {}
    for atom in candidates:
        found = rough_local(X, atom, settings, rng)
        if found is not None:
            fitted[atom] = found
    if not fitted:
        raise InnerConvergenceError(
            f"none of the {len(candidates)} candidate topologies could be fitted to {len(X)} rows; "
            "name a topology"
        )
    ranked = sorted(fitted, key=lambda atom: fitted[atom].result.criterion)
    within = fitted[ranked[0]].result.criterion + WITHIN_PER_ROW * len(X)
    chosen = [atom for atom in ranked[:N_SETTLED] if fitted[atom].result.criterion <= within]
    chosen += [atom for atom in ranked if is_flat(atom) and atom not in chosen][:1]
    for atom in chosen:
        final = settle(fitted[atom], local)
        if final.result.interrupted:
            raise KeyboardInterrupt
        if final.result.criterion < fitted[atom].result.criterion:
            fitted[atom] = final
    return fitted


def _permutation_test(
    X: Array, atom: Manifold, flats: Sequence[Manifold], settings: Settings,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """p-value and observed statistic; ends at the first permutation that reaches it."""
    if len(X) > PERMUTED_ROWS:
        X = X[rng.choice(len(X), PERMUTED_ROWS, replace=False)]

    def statistic(rows: Array) -> float:
        flat = min(rough_criterion(rows, other, settings, rng) for other in flats)
        return flat - rough_criterion(rows, atom, settings, rng)

    observed = statistic(X)
    for number in range(1, N_PERMUTATIONS + 1):
        if statistic(rng.permuted(X, axis=0)) >= observed:
            return 2.0 / (1 + number), observed
    return LEVEL, observed


def choose_topologies(
    fitted: Fitted, settings: Settings, candidates: Sequence[Manifold],
    rng: np.random.Generator,
) -> tuple[list[Manifold], Candidate, list[TopologyChoice]]:
    """Choose the topology of every atom of a joint fit from its own rows.

    Parameters
    ----------
    fitted : Fitted
        Joint fit, with the same topologies or others.
    settings : Settings
    candidates : sequence of Manifold
    rng : numpy.random.Generator

    Returns
    -------
    atoms : list of K Manifold
    codes : Candidate
        From which a joint fit of these atoms can start: the support and amplitudes of ``fitted``,
        and its coordinates where an atom keeps its topology.
    choices : list of K TopologyChoice
    """
    atoms: list[Manifold] = []
    coordinates: list[Array] = []
    choices = []
    codes = codes_of(fitted)
    for k, present in enumerate(fitted.model.atoms):
        rows, X = local_rows(fitted, k)
        choice = choose_topology(X, candidates, settings, rng)
        logger.info("atom %d: %s, p = %.3g", k, topology_label(choice.manifold), choice.p_value)
        where = fitted.model.layout.coordinate_slices[k]
        if choice.manifold.to_config() == present.to_config():
            coordinates.append(codes.coordinates[:, where])
        else:
            own = place_rows(X, choice.manifold, rng)
            everyone = np.repeat(choice.manifold.grid(1)[:1], len(codes.support), axis=0)
            everyone[rows] = own
            coordinates.append(everyone)
        atoms.append(choice.manifold)
        choices.append(choice)
    return atoms, Candidate(codes.support, codes.amplitudes, np.hstack(coordinates)), choices


def place_rows(X: Array, atom: Manifold, rng: np.random.Generator) -> Array:
    """Coordinates (n, d) of rows (n, p) on one atom."""
    if len(X) < LEAST_ROWS:
        return np.repeat(atom.grid(1)[:1], len(X), axis=0)
    scores = leading_scores(X, atom)[0]
    best = latent_grid_starts(scores, atom, 1, rng)[0]
    return nearest_coordinates(scores, atom, best.coefficients)[0]


def choose_n_atoms(
    Z: Array, unit: float, topology_for: Callable[[int], Sequence[Manifold]], settings: Settings,
    most: int, rng: np.random.Generator,
) -> tuple[Fitted, list[tuple[int, float]], list[Move]]:
    """Choose the number of atoms: more of them while V falls, and then none that V does not need.

    Parameters
    ----------
    Z : (N, p) standardised data
    unit : float
    topology_for : callable
        Atoms of a model with K of them.
    settings : Settings
        Numbers of atoms that its assignment does not allow are passed over.
    most : int
        Largest number that is tried.
    rng : numpy.random.Generator

    Returns
    -------
    fitted : Fitted
        Rough; the caller fits it on.
    table : list of (K, V)
        V in nats of the best rough fit of every number tried; infinite where none was usable.
    moves : list of Move
        Removals tried after the search.

    Raises
    ------
    InnerConvergenceError
        Where no number of atoms leads to a usable state.
    """
    best: Fitted | None = None
    table: list[tuple[int, float]] = []
    since = 0
    for n_atoms in range(_fewest(settings, most), min(most, len(Z) - 1) + 1):
        try:
            found = fit_starts(Z, unit, topology_for(n_atoms), settings, rng)
        except InnerConvergenceError as error:
            logger.info("%d atoms were given up: %s", n_atoms, error)
            table.append((n_atoms, np.inf))
            since += 1
        else:
            table.append((n_atoms, found.result.criterion))
            lower = best is None or found.result.criterion < best.result.criterion - MARGIN
            best, since = (found, 0) if lower else (best, since + 1)
            if found.result.interrupted:
                return best or found, table, []
        if since == PATIENCE:
            break
    if best is None:
        raise InnerConvergenceError(
            f"no fit with {', '.join(str(n) for n, _ in table)} atoms reached a usable state; name "
            "n_atoms, or try another topology"
        )
    fitted, moves = remove_idle(best, settings)
    return fitted, table, moves


def _fewest(settings: Settings, most: int) -> int:
    """Smallest number of atoms that the assignment allows."""
    for n_atoms in range(1, most):
        try:
            settings.assign(n_atoms)
        except InputError:
            continue
        return n_atoms
    return most
