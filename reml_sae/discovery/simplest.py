"""Atoms that are rough against their own simplest shape, judged by V.

The functions that its roughness leaves free make the simplest shape of an atom: the ellipse of a
circle, the ellipsoid of a sphere, the flat of a polynomial. That model is nested in the atom's: it
is the limit where the strength of roughness runs to infinity. So a fit whose V lies above it is at
a bad local optimum: a circle that winds twice, a sphere whose chart is folded. An atom that owes
much of its variance to rough functions is therefore put at its simplest shape, found anew from its
own rows, and fitted on from there.

Contract. That of `_moves`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reml_sae.discovery.code_starts import LEAST_ROWS, leading_scores
from reml_sae.discovery.fitting import Fitted, Settings, model_from_codes, rough_fit
from reml_sae.discovery.moves import (
    Move,
    amplitudes_of,
    codes_of,
    decide,
    judged,
    judging,
    known_of,
    local_rows,
    topology_label,
)
from reml_sae.discovery.pursuit import Candidate
from reml_sae.engine import OuterKey
from reml_sae.models.sae.start import column_weights
from reml_sae.relaxations.grid_mixture import make_grid, smooth_functions
from reml_sae.relaxations.latent_grid import simplest_coordinates
from reml_sae.typing import Array

ROUGH_SHARE = 0.05
"""Share of an atom's variance by rough functions below which its chart is that of its simplest
shape, but for details."""
RETURNED = 0.5
"""Part of that share that a fit has won again where it has come back to the same curve."""
GAIN = 0.1
"""Nats by which V must fall."""
STIFFNESS = 10.0
"""Roughness of the least rough function at a restart, over what the rows know of it."""
GRID = 200
TINY = 1e-12


def restart_rough(
    fitted: Fitted, settings: Settings, rng: np.random.Generator
) -> tuple[Fitted, list[Move]]:
    """Fit every rough atom again from its simplest shape; keep what has the lower V.

    A fit that has not converged, and says so, is left as it is.
    """
    moves: list[Move] = []
    n_atoms = len(fitted.model.atoms)
    smooth = all(rough_share(fitted, k) < ROUGH_SHARE for k in range(n_atoms))
    if smooth or not fitted.result.converged:
        return fitted, moves
    found = judged(fitted, settings)
    for k in range(n_atoms):
        if found.result.interrupted:
            return found, moves
        share = rough_share(found, k)
        if share >= ROUGH_SHARE:
            found, move = _restarted(found, judging(settings), k, share, rng)
            moves.append(move)
    changed = found.result.interrupted or any(move.accepted for move in moves)
    return (found if changed else fitted), moves


def _restarted(
    fitted: Fitted, judge: Settings, k: int, share: float, rng: np.random.Generator
) -> tuple[Fitted, Move]:
    """The fit with atom k started again, where V is lower."""
    atom = fitted.model.atoms[k]
    move = Move("restart", k, fitted.result.criterion, np.nan, False,
                f"{topology_label(atom)} from its simplest shape")
    rows, X = local_rows(fitted, k)
    if len(rows) < LEAST_ROWS:
        return fitted, replace(move, detail=f"{move.detail}: {len(rows)} rows")
    t = simplest_coordinates(leading_scores(X, atom)[0], atom, rng)
    model = model_from_codes(fitted.model.Z, fitted.model.unit, fitted.model.atoms, judge,
                             _with_coordinates(fitted, k, rows, t), _stiff(fitted, k))
    trial = rough_fit(model, judge, f"atom {k} from its simplest shape")
    if trial is not None and _has_returned(fitted, trial, k, share):
        return fitted, replace(move, after=trial.result.criterion)
    return decide(fitted, judge, move, trial, -GAIN)


def rough_share(fitted: Fitted, k: int) -> float:
    """Share of the variance of atom k's curve, under its prior, by rough functions.

    Zero where all functions are free, or none but the constant is.
    """
    atom = fitted.model.atoms[k]
    grid = make_grid(atom, GRID)
    smooth = smooth_functions(grid)
    if not grid.rough_values.any() or not len(smooth):
        return 0.0
    weight = np.exp(grid.log_weight)
    curve = grid.basis @ fitted.result.theta.beta[fitted.model.layout.basis_slices[k]]
    curve = curve - weight @ curve
    total = float(weight @ (curve**2).sum(axis=1))
    free = ((grid.basis @ smooth.T * weight[:, None]).T @ curve) ** 2
    return 1.0 - float(free.sum()) / total if total > TINY else 0.0


def _has_returned(fitted: Fitted, trial: Fitted, k: int, share: float) -> bool:
    """Whether the fit has led back to the same curve."""
    higher = trial.result.criterion > fitted.result.criterion - GAIN
    finished = not trial.result.interrupted
    return finished and higher and rough_share(trial, k) > RETURNED * share


def _with_coordinates(fitted: Fitted, k: int, rows: NDArray[np.intp], t: Array) -> Candidate:
    """The codes with other coordinates of the rows of atom k."""
    codes = codes_of(fitted)
    coordinates = codes.coordinates.copy()
    coordinates[rows, fitted.model.layout.coordinate_slices[k]] = t
    return replace(codes, coordinates=coordinates)


def _stiff(fitted: Fitted, k: int) -> dict[OuterKey, float]:
    """Outer parameters by key, with a roughness of atom k that leaves little to its functions."""
    known, model = known_of(fitted), fitted.model
    weights = column_weights(model, fitted.result.theta, fitted.result.rho)
    information = float((amplitudes_of(fitted)[:, k] ** 2).sum() * weights.mean())
    for term in model.terms:
        if term.is_quadratic_decoder and term.atom == k:
            values = np.linalg.eigvalsh(term.penalty.matrix())
            least = values[values > TINY * values[-1]][0]
            level = term.penalty.rho_at(float(np.log(STIFFNESS * information / least)))
            low, high = term.penalty.rho_bounds().T
            known.update(zip(term.outer_part.keys, np.clip(level, low, high).tolist(), strict=True))
    return known
