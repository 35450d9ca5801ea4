"""Atoms among directions of noise that are as long as they are, or longer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reml_sae.discovery.starts._blocks import from_blocks, shells
from reml_sae.discovery.starts.protocol import CodeStart, StartProblem
from reml_sae.families.noise import Factor, tells_factors
from reml_sae.relaxations.noise_mixture import flats_amid_noise
from reml_sae.relaxations.unmixing import unmixed_amid_noise


class AmidNoiseStart:
    """Square unmixing of the axes that stand out of the noise's floor: the atoms, and the rest."""

    def propose(self, problem: StartProblem, rng: np.random.Generator) -> list[CodeStart]:
        """Starts for atoms whose length varies little, where the noise may have a shape.

        None where rows are too few to tell axes that stand out.
        """
        Z, dims = problem.Z, problem.dims
        second = Z.T @ Z / len(Z)
        if not (all(shells(problem.atoms, dims)) and tells_factors(second, len(Z))):
            return []
        n_noise = Factor.best(second, len(Z)).rank - sum(dims)
        if n_noise < 0 or (not n_noise and len(dims) == 1):
            return []
        n_active = 1 if problem.assignment.is_mixture else problem.assignment.most_active
        found = unmixed_amid_noise(Z, dims, n_active, n_noise, rng,
                                   problem.policy.relaxation.unmixing)
        return [from_blocks(problem, start, rng, ranked=False) for start in found[:problem.n_init]]


class NoiseMixtureStart:
    """Flats of atoms that rows use one at a time, told from the noise that all rows share.

    Scores give the angle of a row on a ring, but their length is mostly noise: decoders bend after
    amplitudes that begin with it.
    """

    def propose(self, problem: StartProblem, rng: np.random.Generator) -> list[CodeStart]:
        """Starts, where there are several atoms, all of them with coordinates."""
        if not problem.is_partition or len(problem.atoms) == 1 or not all(problem.dims):
            return []
        found = flats_amid_noise(problem.Z, problem.dims, problem.n_init, rng,
                                 problem.policy.relaxation.noise_mixture)
        starts = [from_blocks(problem, start, rng, ranked=False) for start in found]
        return [replace(start, codes=replace(
            start.codes, amplitudes=start.codes.support.astype(float))) for start in starts]
