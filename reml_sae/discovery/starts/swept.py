"""Many rings, one a row: their atoms by sweeps, whose work hardly grows with their number."""

from __future__ import annotations

import numpy as np

from reml_sae.discovery.codes import Candidate, hard_shares
from reml_sae.discovery.starts.protocol import CodeStart, StartProblem
from reml_sae.relaxations.pieces import same_partition
from reml_sae.sweeps import SweepFit, fit_sweeps, get_backend
from reml_sae.typing import Array


class SweptStart:
    """Codes at which sweeps end: rows are integrated over their nodes there, in white noise.

    They begin at random seeds, and end at one partition of the rows where these show it clearly;
    then other starts find no other, and take longer.
    """

    def propose(self, problem: StartProblem, rng: np.random.Generator) -> list[CodeStart]:
        """Starts from two seeds, or the better of both, where they agree, as one that is sure."""
        if not problem.has_many_rings:
            return []
        backend, found = get_backend("numpy"), list[SweepFit]()
        for seed in rng.integers(2**32, size=2):
            found.append(fit_sweeps(problem.Z, problem.atoms, backend, int(seed),
                                    problem.policy.start.sweeps, deadline=problem.deadline))
            if problem.deadline.passed:
                break
        found.sort(key=lambda fit: float(fit.trace[-1]))
        one, other = found[0].codes.labels, found[-1].codes.labels
        if len(found) == 2 and same_partition(one, other, len(problem.atoms)):
            return [_start(problem, found[0], sure=True)]
        return [_start(problem, fit) for fit in found]


def _start(problem: StartProblem, fit: SweepFit, *, sure: bool = False) -> CodeStart:
    codes, K, left = fit.codes, len(problem.atoms), problem.Z.copy()
    coordinates: list[Array] = []
    for k, atom in enumerate(problem.atoms):
        rows = np.flatnonzero(codes.labels == k)
        own = np.repeat(atom.grid(1)[:1], len(left), axis=0)
        own[rows] = fit.coordinates(k)
        coordinates.append(own)
        features = atom.basis(own[rows])
        features[:, 1:] *= codes.amplitudes[rows, None]
        left[rows] -= features @ fit.state.decoder(k)
    support = codes.labels[:, None] == np.arange(K)
    shares = hard_shares(codes.labels, K, problem.policy.encode.hard_share)
    explained = 1.0 - float((left**2).sum() / max((problem.Z**2).sum(), np.finfo(float).tiny))
    return CodeStart(Candidate(support, shares, np.concatenate(coordinates, axis=1)), explained,
                     sure)
