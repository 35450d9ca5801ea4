"""Atoms that do not earn their place."""

from __future__ import annotations

import numpy as np

from reml_sae.discovery.fitting import Fitted, Settings
from reml_sae.discovery.local import beyond_doubt, least_flat
from reml_sae.discovery.moves._removal import without_atom
from reml_sae.discovery.moves.protocol import Context, Proposal, Proposals, refitted_on_one
from reml_sae.families import Gaussian
from reml_sae.families.noise import Factor, Isotropic, best_noise
from reml_sae.manifolds import Euclidean, Point


class Remove:
    """An atom is removed where V falls by the margin, and anyway where hardly a row uses it.

    At least one atom stays.
    """

    kind = "remove"
    names_only = False

    def applies(self, fitted: Fitted, context: Context) -> bool:
        """Where the number of atoms is free."""
        return context.structure.n_atoms is None

    def propose(self, fitted: Fitted, context: Context) -> Proposals:
        """Removals, the least used atom first, from the beginning again after one that is done."""
        policy = context.settings.policy.move
        changed = True
        while changed and len(fitted.model.atoms) > 1:
            changed = False
            for k in np.argsort(fitted.amplitudes.sum(axis=0), kind="stable"):
                n_rows = int(fitted.model.active[:, k].sum())
                limit = np.inf if n_rows <= policy.idle_rows else -policy.margin
                after = yield without_atom(fitted, int(k), f"{n_rows} rows", limit)
                if after is not fitted:
                    fitted, changed = after, True
                    break


class RemoveLast:
    """A point takes the place of the last atom unless V is lower by the margin with it.

    A model of one point that every row uses whole has a mean and noise, and no atom.
    """

    kind = "remove"
    names_only = False

    def applies(self, fitted: Fitted, context: Context) -> bool:
        """Where the number of atoms is free, and a row's use of a sole atom is not."""
        model = fitted.model
        return (context.structure.n_atoms is None and len(model.atoms) == 1
                and model.assignment.dim == 0 and not isinstance(model.atoms[0], Point))

    def propose(self, fitted: Fitted, context: Context) -> Proposals:
        """The point at the rows' mean."""
        label, n = fitted.model.atoms[0].label, len(fitted.model.active)
        yield _without_any(fitted, f"{label}, {n} rows: no atom is left", context.settings)


class NameNoAtom:
    """Where V is not lower by the margin than without any atom, that is named.

    An atom may be so small that it is none, and V then says neither.
    """

    kind = "no atom"
    names_only = True

    def applies(self, fitted: Fitted, context: Context) -> bool:
        """Where the number of atoms was asked for."""
        model = fitted.model
        one = len(model.atoms) == 1 and isinstance(model.atoms[0], Point)
        return context.structure.n_atoms is not None and not one

    def propose(self, fitted: Fitted, context: Context) -> Proposals:
        """The point at the rows' mean."""
        yield _without_any(fitted, "the mean of the rows", context.settings)


def _without_any(fitted: Fitted, detail: str, settings: Settings) -> Proposal:
    """One point, at the rows' mean, in the place of all atoms."""
    policy = settings.policy.move
    limit = policy.margin
    if _is_of_the_noise(fitted, settings):
        limit += policy.flat_prior * fitted.model.atoms[0].latent_dim
        detail += " (the directions of the flat are in the noise)"

    def fit(settings: Settings) -> Fitted | None:
        return refitted_on_one(fitted, Point(), np.zeros((len(fitted.model.active), 0)), settings)

    def rise_alone(settings: Settings) -> float | None:
        rise = least_flat(fitted, 0, settings) - fitted.result.criterion
        return rise if beyond_doubt(rise, limit, fitted, settings) else None

    return Proposal(0, detail, limit, fit, rise_alone=rise_alone)


def _is_of_the_noise(fitted: Fitted, settings: Settings) -> bool:
    """Whether the only atom is a flat, of all rows, whose directions noise alone has as factors.

    The rows are then as likely without the flat. V may be lower with it, by the priors alone: that
    of a flat has a size that V chooses, that of factors is uniform.
    """
    model, rows = fitted.model, fitted.rows
    if (len(model.atoms) > 1 or not isinstance(model.atoms[0], Euclidean)
            or model.atoms[0].degree > 1 or model.assignment.dim or not model.active.all()
            or not all(model.has_manifold_prior) or model.couples_rows
            or not isinstance(model.family, Gaussian)
            or not isinstance(rows.noise, Isotropic | Factor)):
        return False
    X = rows.noise.colour(rows.Z)
    X = X - X.mean(axis=0)
    alone = best_noise(settings.noise, X.T @ X / len(X), len(X))
    held = rows.noise.rank if isinstance(rows.noise, Factor) else 0
    return isinstance(alone, Factor) and alone.rank >= held + model.atoms[0].latent_dim
