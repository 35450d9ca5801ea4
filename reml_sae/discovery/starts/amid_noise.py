"""A ring or shell among directions of noise that are as long as it, or longer."""

from __future__ import annotations

import numpy as np

from reml_sae.discovery.starts._blocks import from_blocks, shells
from reml_sae.discovery.starts.protocol import CodeStart, StartProblem
from reml_sae.families.noise import factor
from reml_sae.relaxations.block_start import BlockStart
from reml_sae.relaxations.unmixing import unmixed_blocks


class AmidNoiseStart:
    """Square unmixing of the axes that stand out of the noise's floor: the atom, and the rest."""

    def propose(self, problem: StartProblem, rng: np.random.Generator) -> list[CodeStart]:
        """Starts for one atom whose length varies little, where the noise may have a shape."""
        if problem.noise == "isotropic" or len(problem.atoms) > 1:
            return []
        Z, dim = problem.Z, problem.dims[0]
        rank = factor(Z.T @ Z / len(Z), len(Z)).rank
        if rank <= dim or not shells(problem.atoms, [dim])[0]:
            return []
        found = unmixed_blocks(
            Z, [dim, rank - dim], 2, problem.n_init, rng, problem.policy.relaxation.unmixing,
            exact=True, shell=[True, False])
        own = [BlockStart(start.support[:, :1], start.scores[:1], start.frames[:1], np.nan)
               for start in found]
        return [from_blocks(problem, start, rng, ranked=False) for start in own]
