"""Frames and scores of atoms of which rows use most: square unmixing by maximum likelihood."""

from __future__ import annotations

import numpy as np

from reml_sae.discovery.starts._blocks import clipped, from_blocks, shells
from reml_sae.discovery.starts.protocol import CodeStart, StartProblem
from reml_sae.relaxations.unmixing import unmixed_blocks


class UnmixingStart:
    """Independent subspaces, where the data have a dimension for every one of the atoms'."""

    def propose(self, problem: StartProblem, rng: np.random.Generator) -> list[CodeStart]:
        """Starts, the best first.

        Where rows may use fewer atoms it can beat the dictionary if many of them use most, but it
        explains a little less: there is one start then, ranked by the criterion alone.
        """
        if not problem.can_be_unmixed:
            return []
        exact, dims = problem.is_exact, clipped(problem, problem.dims)
        found = unmixed_blocks(problem.Z, dims, problem.assignment.most_active,
                               problem.n_init if exact else 1, rng,
                               problem.policy.relaxation.unmixing, exact=exact,
                               shell=shells(problem.atoms, dims))
        return [from_blocks(problem, start, rng, ranked=exact) for start in found]
