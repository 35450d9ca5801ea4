"""Atoms that are rough against their own simplest shape, judged by V.

The functions that its roughness leaves free make the simplest shape of an atom: the ellipse of a
circle, the ellipsoid of a sphere, the flat of a polynomial. That model is nested in the atom's: it
is the limit where the strength of roughness runs to infinity. So a fit whose V lies above it is at
a bad local optimum: a circle that winds twice, a sphere whose chart is folded. An atom that owes
much of its variance to rough functions is therefore put at its simplest shape, found anew from its
own rows, and fitted on from there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.fitting import Fitted, Settings
from reml_sae.discovery.local import local_rows
from reml_sae.discovery.moves.protocol import Context, Proposal, Proposals, refitted
from reml_sae.discovery.policy import SearchPolicy
from reml_sae.discovery.strengths import known_of
from reml_sae.engine import OuterKey
from reml_sae.models.sae.start import column_weights
from reml_sae.relaxations.axes import leading_scores
from reml_sae.relaxations.carried import rise_of_mixture
from reml_sae.relaxations.grid_mixture import make_grid, smooth_functions
from reml_sae.relaxations.latent_grid import simplest_coordinates
from reml_sae.typing import Array

TINY = 1e-12


class Restart:
    """Every rough atom is started again from its simplest shape; the lower V is kept."""

    kind = "restart"
    names_only = False

    def applies(self, fitted: Fitted, context: Context) -> bool:
        """Where an atom is rough. A fit that has not converged, and says so, is left as it is."""
        return fitted.result.converged and any(
            is_rough(fitted, k, context.settings.policy) for k in range(len(fitted.model.atoms)))

    def propose(self, fitted: Fitted, context: Context) -> Proposals:
        """Restarts, atom by atom."""
        for k in range(len(fitted.model.atoms)):
            if is_rough(fitted, k, context.settings.policy):
                proposal = _restarted(fitted, k, context)
                if proposal is not None:
                    fitted = yield proposal


def is_rough(fitted: Fitted, k: int, policy: SearchPolicy) -> bool:
    """Whether the chart of atom k is not that of its simplest shape."""
    return rough_share(fitted, k, policy.move.restart_grid) >= policy.move.rough_share


def _restarted(fitted: Fitted, k: int, context: Context) -> Proposal | None:
    """The fit with atom k started again; None where too few rows tell its shape."""
    atom, policy = fitted.model.atoms[k], context.settings.policy
    rows, X = local_rows(fitted, k, policy)
    if len(rows) < policy.start.least_rows:
        return None
    share = rough_share(fitted, k, policy.move.restart_grid)
    limit = -policy.move.restart_gain
    scores = leading_scores(X, atom.linear_dim + policy.start.extra_axes)[0]
    t = simplest_coordinates(scores, atom, context.rng, policy.relaxation.grid)

    def rise_alone(settings: Settings) -> float | None:
        if atom.latent_dim > 1 or settings.noise != "isotropic":
            return None  # what another curve leaves may be noise of another shape
        own = fitted.codes.coordinates[rows, fitted.model.layout.coordinate_slices[k]]
        rise = rise_of_mixture(X - X.mean(axis=0), atom, own, t, policy.relaxation.grid)
        return rise if rise > policy.move.restart_rise else None

    def fit(settings: Settings) -> Fitted | None:
        codes = with_coordinates(fitted, k, rows, t)
        known = _stiff(fitted, k, policy.move.restart_stiffness)
        return refitted(fitted, fitted.model.atoms, codes, known, settings)

    def has_returned(trial: Fitted) -> bool:
        again = rough_share(trial, k, policy.move.restart_grid)
        return again > policy.move.returned * share

    return Proposal(k, f"{atom.label} from its simplest shape", limit, fit, has_returned,
                    rise_alone)


def rough_share(fitted: Fitted, k: int, n_grid: int) -> float:
    """Share of the variance of atom k's curve, under its prior, by rough functions.

    Zero where all functions are free, or none but the constant is.
    """
    atom = fitted.model.atoms[k]
    grid = make_grid(atom, n_grid)
    smooth = smooth_functions(grid)
    if not grid.rough_values.any() or not len(smooth):
        return 0.0
    weight = np.exp(grid.log_weight)
    curve = grid.basis @ fitted.result.theta.beta[fitted.model.layout.basis_slices[k]]
    curve = curve - weight @ curve
    total = float(weight @ (curve**2).sum(axis=1))
    free = ((grid.basis @ smooth.T * weight[:, None]).T @ curve) ** 2
    return 1.0 - float(free.sum()) / total if total > TINY else 0.0


def with_coordinates(fitted: Fitted, k: int, rows: NDArray[np.intp], t: Array) -> Candidate:
    """The codes with other coordinates of the rows of atom k."""
    codes = fitted.codes
    coordinates = codes.coordinates.copy()
    coordinates[rows, fitted.model.layout.coordinate_slices[k]] = t
    return replace(codes, coordinates=coordinates)


def _stiff(fitted: Fitted, k: int, stiffness: float) -> dict[OuterKey, float]:
    """Outer parameters by key, with a roughness of atom k that leaves little to its functions."""
    known, model = known_of(fitted), fitted.model
    weights = column_weights(model, fitted.result.theta, fitted.result.rho)
    information = float((fitted.amplitudes[:, k] ** 2).sum() * weights.mean())
    for term in model.terms:
        if term.is_quadratic_decoder and not term.is_decoder_size and term.atom == k:
            values = np.linalg.eigvalsh(term.penalty.matrix())
            least = values[values > TINY * values[-1]][0]
            level = term.penalty.rho_at(float(np.log(stiffness * information / least)))
            low, high = term.penalty.rho_bounds().T
            known.update(zip(term.outer_part.keys, np.clip(level, low, high).tolist(), strict=True))
    return known
