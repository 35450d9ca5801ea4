"""Atoms among directions of noise that are as long as they are, or longer."""

from __future__ import annotations

import numpy as np

from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.starts._blocks import from_blocks, shells
from reml_sae.discovery.starts.protocol import CodeStart, StartProblem
from reml_sae.families.noise import Factor, tells_factors
from reml_sae.relaxations.curves_amid_noise import AtomCodes, curves_amid_noise
from reml_sae.relaxations.unmixing import unmixed_amid_noise
from reml_sae.typing import Array


class AmidNoiseStart:
    """Square unmixing of the axes that stand out of the noise's floor: the atoms, and the rest."""

    def propose(self, problem: StartProblem, rng: np.random.Generator) -> list[CodeStart]:
        """Starts for atoms whose length varies little, where the noise may have a shape.

        None where rows are too few to tell axes that stand out.
        """
        Z, dims = problem.Z, problem.dims
        if problem.is_partition:
            return []
        second = Z.T @ Z / len(Z)
        if not (all(shells(problem.atoms, dims)) and tells_factors(second, len(Z))):
            return []
        n_noise = Factor.best(second, len(Z)).rank - sum(dims)
        if n_noise < 0:
            return []
        found = unmixed_amid_noise(Z, dims, problem.assignment.most_active, n_noise, rng,
                                   problem.policy.relaxation.unmixing)
        return [from_blocks(problem, start, rng, ranked=False) for start in found[:problem.n_init]]


class CurvesStart:
    """Curves that rows use one at a time, told from the noise that all rows share."""

    def propose(self, problem: StartProblem, rng: np.random.Generator) -> list[CodeStart]:
        """Starts from the seeds of the problem, and from random ones, the likeliest first."""
        if not problem.tells_curves:
            return []
        seeds = [AtomCodes(start.labels, start.codes.coordinates) for start in problem.seeds]
        return [_on_curves(found, noise, len(problem.atoms)) for found, noise in curves_amid_noise(
            problem.Z, problem.atoms, seeds, rng, problem.policy.relaxation.curves)]


def _on_curves(found: AtomCodes, noise: Array, n_atoms: int) -> CodeStart:
    """Codes of rows on one atom each, whose amplitude is one: their length is mostly noise."""
    support = found.labels[:, None] == np.arange(n_atoms)
    codes = Candidate(support, support.astype(float), found.coordinates)
    return CodeStart(codes, None, noise=noise)
