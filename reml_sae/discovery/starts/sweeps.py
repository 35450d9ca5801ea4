"""Many atoms, one a row: sweeps from seeds, in the place of all starts by linear relaxations."""

from __future__ import annotations

import numpy as np

from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.starts.protocol import CodeStart, StartProblem
from reml_sae.linalg import single_threaded
from reml_sae.sweeps import fit_sweeps, get_backend


class SweepStart:
    """Codes of a fit by sweeps, whose work is linear in the atoms."""

    @single_threaded
    def propose(self, problem: StartProblem, rng: np.random.Generator) -> list[CodeStart]:
        """One start, where atoms are many."""
        if not problem.has_sweeps:
            return []
        fit = fit_sweeps(problem.Z, problem.atoms, get_backend(), rng, problem.policy.sweeps)
        labels, rows = fit.codes.labels, np.arange(len(problem.Z))
        support = labels[:, None] == np.arange(len(problem.atoms))
        coordinates = []
        for k, atom in enumerate(problem.atoms):
            t = np.repeat(atom.grid(1)[:1], len(rows), axis=0)
            t[labels == k] = fit.coordinates(k)
            coordinates.append(t)
        amplitudes = np.where(support, fit.codes.amplitudes[:, None], 0.0)
        return [CodeStart(Candidate(support, amplitudes, np.concatenate(coordinates, axis=1)),
                          None)]
