"""Rings of many harmonics, of which the plane of the first one says little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reml_sae.discovery.starts._blocks import clipped, from_blocks, shells
from reml_sae.discovery.starts.protocol import CodeStart, StartProblem
from reml_sae.relaxations.dictionary import block_dictionary
from reml_sae.relaxations.loops import loop_angles


class WideRingStart:
    """Blocks of all dimensions that wide rings span, and angles along the loops of their rows."""

    def propose(self, problem: StartProblem, rng: np.random.Generator) -> list[CodeStart]:
        """Starts that only the criterion can rank."""
        if not problem.is_partition or len(problem.atoms) == 1:
            return []
        spans = [atom.basis_size - 1 if atom.relaxation == "ring" else atom.linear_dim
                 for atom in problem.atoms]
        if max(spans) <= problem.policy.start.wide or sum(spans) > problem.Z.shape[1]:
            return []
        dims = clipped(problem, spans)
        found = block_dictionary(problem.Z, dims, 1, 1, rng,
                                 problem.policy.relaxation.blocks, exact=True,
                                 shell=shells(problem.atoms, dims))
        wide = [from_blocks(problem, start, rng, ranked=False) for start in found]
        return [start for first in wide
                for start in (first, *along_loops(problem, spans, first, rng))]


def along_loops(
    problem: StartProblem, spans: Sequence[int], start: CodeStart, rng: np.random.Generator
) -> list[CodeStart]:
    """The start with the angles of its wide rings read off the neighbours of their own rows."""
    policy = problem.policy.start
    found = []
    for share in policy.neighbour_shares:
        coordinates, column = start.codes.coordinates.copy(), 0
        for k, (atom, span) in enumerate(zip(problem.atoms, spans, strict=True)):
            rows = np.flatnonzero(start.codes.support[:, k])
            if (atom.relaxation == "ring" and span > policy.wide
                    and len(rows) >= policy.least_rows):
                angles = loop_angles(problem.Z[rows], share, rng,
                                     problem.policy.relaxation.loop)
                if angles is not None:
                    coordinates[rows, column] = angles
            column += atom.latent_dim
        found.append(replace(start, codes=replace(start.codes, coordinates=coordinates)))
    return found
