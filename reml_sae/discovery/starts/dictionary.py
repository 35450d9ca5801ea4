"""Frames and scores of atoms that share rows, or directions: a block-sparse dictionary."""

from __future__ import annotations

import numpy as np

from reml_sae.discovery.starts._blocks import clipped, from_blocks, shells
from reml_sae.discovery.starts.protocol import CodeStart, StartProblem
from reml_sae.relaxations.dictionary import block_dictionary


class DictionaryStart:
    """Block K-SVD, where rows use several atoms but not most, or the atoms share directions."""

    def propose(self, problem: StartProblem, rng: np.random.Generator) -> list[CodeStart]:
        """Starts, the best explained first."""
        if problem.is_partition:
            n_active, exact = 1, True
            if len(problem.atoms) == 1 or sum(problem.dims) <= problem.Z.shape[1]:
                return []
        else:
            n_active, exact = problem.assignment.most_active, problem.is_exact
            if problem.can_be_unmixed and exact:
                return []
        dims = clipped(problem, problem.dims)
        found = block_dictionary(problem.Z, dims, n_active, problem.n_init, rng,
                                 problem.policy.relaxation.blocks, exact=exact,
                                 shell=shells(problem.atoms, dims), tell=True)
        return [from_blocks(problem, start, rng) for start in found]
