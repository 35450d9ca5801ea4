"""One ring along its loop: angles read off the neighbours of the rows, however it winds."""

from __future__ import annotations

import numpy as np

from reml_sae.discovery.starts.protocol import CodeStart, StartProblem, on_one_atom
from reml_sae.relaxations.loops import loop_angles


class LoopStart:
    """Angles of a single ring, one start for every size of neighbourhood."""

    def propose(self, problem: StartProblem, rng: np.random.Generator) -> list[CodeStart]:
        """Starts that only the criterion can rank."""
        if len(problem.atoms) > 1 or problem.atoms[0].relaxation != "ring":
            return []
        angles = [loop_angles(problem.Z, share, rng, problem.policy.relaxation.loop)
                  for share in problem.policy.start.neighbour_shares]
        return [on_one_atom(t[:, None]) for t in angles if t is not None]
