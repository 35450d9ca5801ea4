"""Curves that go through their rows in a wrong order, judged by V.

A curve of many functions can go through clusters of rows in any order, and a fit keeps the one that
it began with. So each is looked for among its own rows by the evidence of a mixture that has
integrated the coordinates out (`relaxations/order`), and fitted on from there.
"""

from __future__ import annotations

from reml_sae.discovery.fitting import Fitted, Settings, model_in_own_noise, rough_fit
from reml_sae.discovery.local import local_rows
from reml_sae.discovery.moves.protocol import Context, Proposal, Proposals
from reml_sae.discovery.moves.restart import is_rough, with_coordinates
from reml_sae.discovery.strengths import known_of
from reml_sae.relaxations.order import other_orders
from reml_sae.typing import Array, Index


class Reorder:
    """Every rough curve takes its rows in another order where V falls."""

    kind = "reorder"
    names_only = False

    def applies(self, fitted: Fitted, context: Context) -> bool:
        """Where a curve is rough. A fit that has not converged, and says so, is left as it is."""
        return fitted.result.converged and bool(_curves(fitted, context))

    def propose(self, fitted: Fitted, context: Context) -> Proposals:
        """Other orders, curve by curve, the likeliest first, until one is accepted."""
        settings = context.settings
        for k in _curves(fitted, context):
            rows, X = local_rows(fitted, k, settings.policy)
            if not len(rows):
                continue
            own = fitted.codes.coordinates[rows, fitted.model.layout.coordinate_slices[k]]
            for t in other_orders(fitted.rows.noise.colour(X), fitted.model.atoms[k], own,
                                  settings.noise == "isotropic", context.rng,
                                  settings.policy.relaxation.order,
                                  lambda: settings.deadline.passed):
                before = fitted
                fitted = yield _reordered(fitted, k, rows, t, context)
                if fitted is not before:
                    break


def _curves(fitted: Fitted, context: Context) -> list[int]:
    return [k for k, atom in enumerate(fitted.model.atoms)
            if atom.latent_dim == 1 and is_rough(fitted, k, context.settings.policy)]


def _reordered(fitted: Fitted, k: int, rows: Index, t: Array, context: Context) -> Proposal:
    """The fit with other coordinates of these rows on atom k, in the noise that they leave."""
    atoms = fitted.model.atoms

    def fit(settings: Settings) -> Fitted | None:
        codes = with_coordinates(fitted, k, rows, t)
        model = model_in_own_noise(fitted.rows, atoms, settings, codes, known_of(fitted))
        return rough_fit(model, settings, "curve in another order")

    return Proposal(k, f"{atoms[k].label} through its rows in another order",
                    -context.settings.policy.move.restart_gain, fit)
