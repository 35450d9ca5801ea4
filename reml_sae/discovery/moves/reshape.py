"""Rival topologies in the joint model.

An atom's own rows propose its topology. They are not all of its rows while other atoms have the
wrong shape, so the rivals that come close are put in its place, and V of the joint model decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from reml_sae.discovery.first_fit import fit_starts
from reml_sae.discovery.fitting import Fitted, Settings
from reml_sae.discovery.moves.protocol import Context, Proposal, Proposals
from reml_sae.discovery.policy import MovePolicy
from reml_sae.discovery.topology import TopologyChoice
from reml_sae.manifolds import Manifold


class Reshape:
    """A rival takes the place of an atom's topology where V falls by the margin.

    The model with it is fitted anew: the present codes are those that the wrong shape has led to.
    """

    kind = "reshape"
    names_only = False

    def applies(self, fitted: Fitted, context: Context) -> bool:
        """Where the topologies of several atoms were chosen."""
        return len(context.choices) > 1

    def propose(self, fitted: Fitted, context: Context) -> Proposals:
        """The rivals of every atom, the closest first."""
        policy = context.settings.policy.move
        for k, choice in enumerate(context.choices):
            n_rows = int(fitted.model.active[:, k].sum())
            for rival in _rivals(choice, context.candidates, n_rows, policy):
                detail = f"{fitted.model.atoms[k].label} -> {rival.label}"
                atoms = [rival if j == k else atom for j, atom in enumerate(fitted.model.atoms)]
                fitted = yield Proposal(k, detail, -policy.margin,
                                        _anew(fitted, atoms, context.rng))


def _anew(
    fitted: Fitted, atoms: Sequence[Manifold], rng: np.random.Generator
) -> Callable[[Settings], Fitted]:
    """A fit of these atoms from starts."""
    return lambda settings: fit_starts(fitted.rows, atoms, settings, rng)


def _rivals(
    choice: TopologyChoice, candidates: Sequence[Manifold], n_rows: int, policy: MovePolicy
) -> list[Manifold]:
    """The closest curved topology of the same dimension, and the closest others.

    Rows that the atom has lost make an arc of a circle; so the first has no limit. Another number
    of functions is no rival (`Resize`).
    """
    by_label = {atom.label: atom for atom in candidates}
    own = choice.manifold
    ranked = [by_label[label] for label, _ in choice.table if label != own.label]
    if own.size_parameter is not None:
        ranked = [atom for atom in ranked if atom.name != own.name]
    values = dict(choice.table)
    limit = values.get(own.label, -np.inf) + policy.rival_per_row * n_rows
    akin = [atom for atom in ranked
            if atom.intrinsic_dim == own.intrinsic_dim and not atom.is_flat][:1]
    near = [atom for atom in ranked if values[atom.label] < limit and atom not in akin]
    return akin + near[: policy.most_rivals - len(akin)]
