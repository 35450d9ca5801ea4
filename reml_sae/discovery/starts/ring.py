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
    not hide it.
    """

    def propose(self, problem: StartProblem, rng: np.random.Generator) -> list[CodeStart]:
        """Starts that come close to the best by evidence, and that only the criterion can rank."""
        if not problem.is_one_ring:
            return []
        Z, (atom,), policy = problem.Z, problem.atoms, problem.policy
        planes = find_partitions(Z, [1], problem.dims, [True], problem.n_init, rng,
                                 policy.relaxation.partition)
        scores = _main_scores(problem)
        few = scores[:, : atom.linear_dim + policy.start.extra_axes]
        found = carried_on(
            Z - Z.mean(axis=0), atom,
            [*(plane.coordinates[0] for plane in planes), *_along_loops(problem, scores, rng)],
            _on_planes(few, policy.relaxation.carry.most_planes, rng), rng,
            policy.relaxation.carry, policy.relaxation.grid)
        return [on_one_atom(t) for t in found]


class LoopStart:
    """Angles of a single ring along its loop, not carried on: that is for who knows the noise."""

    def propose(self, problem: StartProblem, rng: np.random.Generator) -> list[CodeStart]:
        """Starts of the rows and of their leading scores."""
        if not problem.is_one_ring:
            return []
        return [on_one_atom(t) for t in _along_loops(problem, _main_scores(problem), rng)]


def _main_scores(problem: StartProblem) -> Array:
    """Scores (N, r) on some axes more than the ring has functions."""
    rank = problem.atoms[0].basis_size - 1 + problem.policy.start.extra_axes
    return leading_scores(problem.Z, rank)[0]


def _along_loops(
    problem: StartProblem, scores: Array, rng: np.random.Generator
) -> list[Array]:
    """Angles (N, 1) of walks along the loop of the rows, and of their leading scores (N, r)."""
    policy = problem.policy.start
    return [*_loops(problem.Z, policy.neighbour_shares, problem, rng),
            *_loops(scores, policy.loop_shares, problem, rng)]


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
