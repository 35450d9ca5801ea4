"""Atoms that lie on each other: they span the same subspace about the same centre."""

from __future__ import annotations

import numpy as np

from reml_sae.discovery.fitting import Fitted
from reml_sae.discovery.moves._removal import without_atom
from reml_sae.discovery.moves.protocol import Context, Proposals
from reml_sae.discovery.policy import SearchPolicy
from reml_sae.discovery.pursuit import atom_grid
from reml_sae.relaxations.axes import leading_scores


class Merge:
    """The less used of two such atoms is removed where V falls by the margin."""

    kind = "merge"
    names_only = False

    def applies(self, fitted: Fitted, context: Context) -> bool:
        """Where the number of atoms is free."""
        return context.structure.n_atoms is None

    def propose(self, fitted: Fitted, context: Context) -> Proposals:
        """Removals, pair by pair."""
        policy = context.settings.policy
        pairs = _duplicates(fitted, policy)
        while pairs:
            k, other = pairs.pop(0)
            after = yield without_atom(fitted, k, f"lies on atom {other}", -policy.move.margin)
            if after is not fitted:
                fitted, pairs = after, _duplicates(after, policy)


def _duplicates(fitted: Fitted, policy: SearchPolicy) -> list[tuple[int, int]]:
    """Pairs of atoms that lie on each other, the less used first."""
    shapes = []
    for k, atom in enumerate(fitted.model.atoms):
        points = atom.basis(atom_grid(atom, policy.encode)) @ fitted.result.theta.beta[
            fitted.model.layout.basis_slices[k]]
        _, axes, centre = leading_scores(points, atom.linear_dim)
        radius = float(np.sqrt(((points - centre) ** 2).sum(axis=1).mean()))
        shapes.append((centre, axes, radius))
    share = fitted.amplitudes.sum(axis=0)
    pairs = []
    for k, (centre, axes, radius) in enumerate(shapes):
        for j, (other_centre, other_axes, other_radius) in enumerate(shapes[:k]):
            cosines = np.linalg.svd(axes @ other_axes.T, compute_uv=False)
            apart = float(np.linalg.norm(centre - other_centre))
            shared = cosines[:min(len(axes), len(other_axes))]
            if (shared.min(initial=1.0) > policy.move.same_subspace
                    and apart < policy.move.same_centre * max(radius, other_radius)):
                pairs.append((k, j) if share[k] < share[j] else (j, k))
    return pairs
