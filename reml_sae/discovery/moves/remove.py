"""Atoms that do not earn their place."""

from __future__ import annotations

import numpy as np

from reml_sae.discovery.fitting import Fitted
from reml_sae.discovery.local import amplitudes_of
from reml_sae.discovery.moves._removal import without_atom
from reml_sae.discovery.moves.protocol import Context, Proposals


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
            for k in np.argsort(amplitudes_of(fitted).sum(axis=0), kind="stable"):
                n_rows = int(fitted.model.active[:, k].sum())
                limit = np.inf if n_rows <= policy.idle_rows else -policy.margin
                after = yield without_atom(fitted, int(k), f"{n_rows} rows", limit)
                if after is not fitted:
                    fitted, changed = after, True
                    break
