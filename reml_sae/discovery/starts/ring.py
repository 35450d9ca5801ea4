"""One ring, by its plane and along its loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from reml_sae.discovery.starts.protocol import CodeStart, StartProblem, on_one_atom
from reml_sae.relaxations.axes import leading_scores
from reml_sae.relaxations.carried import carried_on
from reml_sae.relaxations.loops import loop_angles
from reml_sae.relaxations.pieces import find_partitions
from reml_sae.typing import Array


class RingStart:
    """Angles of a single ring, carried on to where the evidence of the curve is highest.

    They are those about the centres of planes, main ones and random, and of walks along the loop,
    however it winds: of the rows, and of their leading scores, in which noise of many columns does
    not hide it. Carried on in white noise a ring bends after noise of a shape: where noise may have
    one, some raw angles are starts too, unless the rows are many.
    """

    def propose(self, problem: StartProblem, rng: np.random.Generator) -> list[CodeStart]:
        """Starts that come close to the best by evidence, and that only the criterion can rank."""
        if not problem.is_one_ring:
            return []
        Z, (atom,), policy = problem.Z, problem.atoms, problem.policy
        planes = find_partitions(Z, [1], problem.dims, [True], problem.n_init, rng,
                                 policy.relaxation.partition)
        raw = [plane.coordinates[0] for plane in planes]
        raw += _loops(Z, policy.start.neighbour_shares, problem, rng)
        scores = leading_scores(Z, atom.basis_size - 1 + policy.start.extra_axes)[0]
        few = scores[:, : atom.linear_dim + policy.start.extra_axes]
        found = carried_on(
            Z - Z.mean(axis=0), atom, raw + _loops(scores, policy.start.loop_shares, problem, rng),
            _on_planes(few, policy.relaxation.carry.most_planes, rng), rng,
            policy.relaxation.carry, policy.relaxation.grid)
        if problem.shaped and Z.size <= policy.start.raw_entries:
            found += raw
        return [on_one_atom(t) for t in found]


def _loops(
    rows: Array, shares: Sequence[float], problem: StartProblem, rng: np.random.Generator
) -> list[Array]:
    """Angles (N, 1) of walks between neighbouring rows (N, r), for every share of neighbours."""
    found = [loop_angles(rows, share, rng, problem.policy.relaxation.loop) for share in shares]
    return [t[:, None] for t in found if t is not None]


def _on_planes(scores: Array, most: int, rng: np.random.Generator) -> Iterator[Array]:
    """Angles (N, 1) of rows (N, r) on random planes, of which each axis has the same variance."""
    if scores.shape[1] < 2:
        return
    for _ in range(most):
        frame = np.linalg.qr(rng.standard_normal((scores.shape[1], 2)))[0]
        y = scores @ frame
        y /= y.std(axis=0)
        yield np.arctan2(y[:, 1], y[:, 0])[:, None]
