"""The order in which a curve of many functions goes through its rows.

EM moves coordinates by little, and so does a fit: where rows lie in tight clusters, a curve that
goes through these in a wrong order stays as it is. Here the arcs of a curve move as the edges of a
travelling salesman's tour do (3-opt, Lin 1965): two neighbouring arcs are exchanged, or one is
turned round. EM follows each move, and its evidence judges, as the way between clusters matters as
much as their order. Few leading axes of the rows are asked: in many, a point of the grid holds all
that a row has, and EM hardly moves; and noise of any covariance has more parameters than an order
can be told by.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reml_sae.linalg import single_threaded
from reml_sae.manifolds import Manifold
from reml_sae.relaxations.joint_mixture import AtomCodes
from reml_sae.relaxations.joint_moves import Move, Optimum
from reml_sae.relaxations.joint_search import kept_ends, mixture_of, seed_at_random
from reml_sae.relaxations.policy import OrderPolicy
from reml_sae.typing import Array, Index


@single_threaded
def other_orders(
    X: Array, atom: Manifold, t: Array, white: bool, rng: np.random.Generator,
    policy: OrderPolicy, stop: Callable[[], bool] = lambda: False,
) -> list[Array]:
    """Coordinates of rows on a curve to which EM gives more evidence than to where these lead.

    Parameters
    ----------
    X : (n, p) array
        Rows that the curve explains.
    atom : Manifold
        Of one coordinate.
    t : (n, 1) array
        Coordinates of the rows.
    white : bool
        Whether the noise has one variance in all directions; else any covariance.
    rng : Generator
    policy : OrderPolicy
    stop : callable
        Whether no more is to be tried.

    Returns
    -------
    list of (n, 1) arrays
        On a grid, the likeliest first; none where rows are too few to tell, or where this order is
        found from many others.
    """
    seen = mixture_of(X - X.mean(axis=0), [atom], white, rng, policy.joint)
    if seen is None:
        return []
    mixture = seen.mixture
    own = mixture.carried(AtomCodes(np.zeros(len(X), np.intp), t).of(seen.sample))
    ends = [own]
    if not seed_at_random(mixture, ends, policy.seeds, rng, stop):
        ends.append(_by_arcs(Optimum(mixture, min(ends, key=lambda end: end.value)), rng,
                             policy.patience, stop).place)
    better = [end for end in ends if end.value < own.value - policy.gain]
    return [mixture.codes(seen.rows, end).coordinates for end in kept_ends(mixture, better)]


def _by_arcs(
    optimum: Optimum, rng: np.random.Generator, patience: int, stop: Callable[[], bool]
) -> Optimum:
    """Where moves of arcs lead, until so many in turn were no better."""
    failed = 0
    while failed < patience and not stop():
        found = optimum.follow(Move(_rearranged(optimum, rng), (0,)))
        if found.place is not None and found.gain > optimum.mixture.alike:
            optimum, failed = Optimum(optimum.mixture, found.place), 0
        else:
            failed += 1
    return optimum


def _rearranged(optimum: Optimum, rng: np.random.Generator) -> AtomCodes:
    """Codes after a move of arcs."""
    codes, points = optimum.codes, np.sort(optimum.mixture.joint.grids[0].points[:, 0])
    place = np.searchsorted(points, codes.coordinates[:, 0])
    return AtomCodes(codes.labels, points[arcs_moved(len(points), rng)[place], None])


def arcs_moved(n: int, rng: np.random.Generator) -> Index:
    """Where each of n points in a row goes, (n,), as arcs of them are exchanged or turned round."""
    first, middle, last = np.sort(rng.choice(n + 1, 3, replace=False))
    one, two = np.arange(first, middle), np.arange(middle, last)
    moved = ((one[::-1], two), (two, one), (two[::-1], one), (two, one[::-1]),
             (two[::-1], one[::-1]))[rng.integers(5)]
    out = np.arange(n)
    out[np.concatenate(moved)] = np.arange(first, last)
    return out
