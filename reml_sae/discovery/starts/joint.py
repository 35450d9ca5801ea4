"""Codes of rows on one atom each, from a search by the evidence of the mixture of all atoms."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.starts.protocol import CodeStart, StartProblem
from reml_sae.manifolds import Manifold
from reml_sae.relaxations.joint_mixture import AtomCodes
from reml_sae.relaxations.joint_search import search_codes
from reml_sae.typing import Array


@dataclass(frozen=True)
class JointStart:
    """Atoms told from each other and from the noise that all rows share.

    Attributes
    ----------
    white : bool
        Whether the noise has one variance in all directions; else any covariance.
    """

    white: bool

    def propose(self, problem: StartProblem, rng: np.random.Generator) -> list[CodeStart]:
        """Starts from the seeds of the problem, and from random ones, the likeliest first.

        They are sure where many of these agree.
        """
        if not (problem.tells_atoms if self.white else problem.tells_curves):
            return []
        seeds = [AtomCodes(start.labels, start.codes.coordinates) for start in problem.seeds]
        atoms, wider = problem.atoms, None
        if self.white and problem.sizes_open:
            # narrow ones may share the rows of one that is to become wide
            more = problem.policy.move.sizes_ahead
            atoms = wide = [atom.resized(more) or atom for atom in problem.atoms]
            if all(atom.latent_dim == 1 for atom in atoms):  # sweeps of others cost their grids
                atoms, wider = [_simplest(atom) for atom in problem.atoms], wide
        found = search_codes(problem.Z, atoms, seeds, self.white, rng,
                             problem.policy.relaxation.joint, lambda: problem.deadline.passed,
                             wider)
        starts = [_on_one_atom_each(codes, None if self.white else noise, len(problem.atoms),
                                    found.agreed)
                  for codes, noise in zip(found.codes, found.noises, strict=True)]
        if starts:  # it is the first that the tries have come to
            starts[0] = replace(starts[0], tries=found.tries)
        return starts


def _simplest(atom: Manifold) -> Manifold:
    """The same manifold with its smallest basis."""
    while (smaller := atom.resized(-1)) is not None:
        atom = smaller
    return atom


def _on_one_atom_each(
    found: AtomCodes, noise: Array | None, n_atoms: int, sure: bool
) -> CodeStart:
    """Codes whose amplitude is one: the length of rows is mostly noise."""
    support = found.labels[:, None] == np.arange(n_atoms)
    codes = Candidate(support, support.astype(float), found.coordinates)
    return CodeStart(codes, None, sure, noise)
