"""A search for the codes of rows on one atom each, by the evidence of the joint mixture.

EM from partitions and random codes ends at many local optima, from the best of which moves lead on
(`joint_moves`), until two chains of them have come to the same. A sweep of EM takes a millisecond
where a fit takes a second, so hundreds of ends can be looked at before one is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from reml_sae.linalg import single_threaded
from reml_sae.manifolds import Manifold
from reml_sae.relaxations.axes import TINY, leading_axes, sample_index
from reml_sae.relaxations.joint_mixture import AtomCodes, JointGrid, JointMixture, Place
from reml_sae.relaxations.joint_moves import (
    Found,
    Optimum,
    begin_again,
    propose,
    random_codes,
    spread_out,
)
from reml_sae.relaxations.policy import JointPolicy
from reml_sae.typing import Array, Index


@dataclass(frozen=True)
class JointEnds:
    """Where the search ends.

    Attributes
    ----------
    codes : sequence of AtomCodes
        On grids, the best by evidence first and no two alike.
    noises : sequence of (p, p) arrays
        Second moments of the noise there.
    agreed : bool
        Whether several seeds, or moves from two of them, have come to the best end.
    """

    codes: Sequence[AtomCodes]
    noises: Sequence[Array]
    agreed: bool


@single_threaded
def search_codes(
    Z: Array, atoms: Sequence[Manifold], seeds: Sequence[AtomCodes], white: bool,
    rng: np.random.Generator, policy: JointPolicy, stop: Callable[[], bool] = lambda: False,
) -> JointEnds:
    """Carry seeds on, and the best of their ends.

    Parameters
    ----------
    Z : (N, p) array
        Centred rows.
    atoms : sequence of K Manifold
        All of them with coordinates.
    seeds : sequence of AtomCodes
        All of which are tried; then random ones in turn, and moves.
    white : bool
        Whether the noise has one variance in all directions; else any covariance.
    rng : Generator
    policy : JointPolicy
    stop : callable
        Whether no more is to be tried.

    Returns
    -------
    JointEnds
        Without codes where rows are too few to tell the noise, or all equal.
    """
    seen = mixture_of(Z, atoms, white, rng, policy)
    if seen is None:
        return JointEnds([], [], False)
    mixture, axes = seen.mixture, seen.axes
    ends = [mixture.carried(seed.of(seen.sample)) for seed in seeds if not stop()]
    most_random = policy.few_random if white else policy.most_random
    agreed = seed_at_random(mixture, ends, most_random, rng, stop)
    if ends and not agreed:
        agreed = _move_on(mixture, ends, rng, stop)
    best = kept_ends(mixture, ends)
    return JointEnds([mixture.codes(seen.rows, place) for place in best],
                     [axes.T @ place.noise @ axes + seen.outside for place in best], agreed)


@dataclass(frozen=True)
class Seen:
    """Rows on their leading axes.

    Attributes
    ----------
    mixture : JointMixture
        Of the sample of rows.
    rows : (N, q) array
        Of one unit.
    sample : (n,) int array
    axes : (q, p) array
    outside : (p, p) array
        Second moment of what is not along the axes.
    """

    mixture: JointMixture
    rows: Array
    sample: Index
    axes: Array
    outside: Array


def mixture_of(
    Z: Array, atoms: Sequence[Manifold], white: bool, rng: np.random.Generator,
    policy: JointPolicy,
) -> Seen | None:
    """The mixture of centred rows; None where they are too few to tell the noise, or all equal."""
    most = len(Z) - 1 if white else len(Z) // policy.rows_per_axis
    q = min(Z.shape[1], policy.most_axes, most)
    size = float(np.sqrt((Z**2).mean())) if Z.size else 0.0
    if q < 2 or not size > TINY:
        return None
    axes = leading_axes(Z, q, rng)
    Y, rest = Z @ axes.T / size, (Z - Z @ axes.T @ axes) / size
    sample = sample_index(len(Y), max(policy.least_sample, policy.rows_per_atom * len(atoms)), rng)
    mixture = JointMixture(Y[sample], JointGrid.of(atoms, policy), white, policy)
    return Seen(mixture, Y, sample, axes, rest.T @ rest / len(Z))


def seed_at_random(
    mixture: JointMixture, ends: list[Place], most: int, rng: np.random.Generator,
    stop: Callable[[], bool],
) -> bool:
    """Add the ends of random seeds until several have come to the best; whether they have."""
    most, spread = len(ends) + most, spread_out(mixture.X)
    while not (agreed := _agree(mixture, ends)) and len(ends) < most and not stop():
        ends.append(mixture.carried(random_codes(mixture.joint, spread, rng)))
    return agreed


def _agree(mixture: JointMixture, ends: Sequence[Place]) -> bool:
    """Whether several have come to the best."""
    least = min((end.value for end in ends), default=np.inf)
    return sum(end.value < least + mixture.alike for end in ends) >= mixture.policy.agree


def _move_on(
    mixture: JointMixture, ends: list[Place], rng: np.random.Generator, stop: Callable[[], bool]
) -> bool:
    """Add the ends of chains of moves from the best seeds in turn, until two have come to the best.

    Whether they have: one alone, however often its moves come back, ends at many local optima.
    """
    policy, reached = mixture.policy, list[float]()
    for seed in sorted(ends, key=lambda end: end.value)[:policy.most_chains]:
        if stop():
            break
        ends.append(_chain(mixture, seed, rng, stop))
        reached.append(ends[-1].value)
        if sum(value < min(reached) + mixture.alike for value in reached) > 1:
            return True
    return False


def _chain(
    mixture: JointMixture, seed: Place, rng: np.random.Generator, stop: Callable[[], bool]
) -> Place:
    """Where moves lead from a place, until many in turn were no better or several came back.

    Those of two atoms begin where each atom is settled on its own rows.
    """
    policy, optimum = mixture.policy, _settled(Optimum(mixture, seed), rng, stop)
    failed = back = 0
    while (optimum.n_atoms > 1 and failed < policy.patience * optimum.n_atoms
           and back < policy.confirmed * optimum.n_atoms and not stop()):
        move = propose(optimum, rng)
        found = Found(-np.inf) if move is None else optimum.follow(move)
        if found.place is not None and found.gain > mixture.alike:
            optimum = _settled(Optimum(mixture, found.place), rng, stop)
            failed = back = 0
        else:
            failed += 1
            back += abs(found.gain) <= mixture.alike
    return optimum.place


def _settled(optimum: Optimum, rng: np.random.Generator, stop: Callable[[], bool]) -> Optimum:
    """Where coordinates that begin again lead, of every atom in turn.

    An atom is done with where they have come back often enough, or too often to no better. Each
    is counted by itself: a circle always comes back, a Moebius strip that is wrong hardly ever.
    """
    policy, alike = optimum.mixture.policy, optimum.mixture.alike
    todo = list(range(optimum.n_atoms))
    while todo:
        k, failed, back = todo.pop(), 0, 0
        while failed < policy.patience and back < policy.confirmed and not stop():
            move = begin_again(optimum, k, rng)
            if move is None:
                break
            found = optimum.follow(move)
            if found.place is not None and found.gain > alike:
                optimum, failed, back = Optimum(optimum.mixture, found.place), 0, 0
                todo = [other for other in range(optimum.n_atoms) if other != k]
            else:
                failed += 1
                back += abs(found.gain) <= alike
    return optimum


def kept_ends(mixture: JointMixture, ends: Sequence[Place]) -> list[Place]:
    """The ends that come close to the best, in their order, without those that are a better one."""
    policy, size = mixture.policy, mixture.X.size
    kept: list[tuple[Place, Array]] = []
    ranked = sorted(ends, key=lambda end: end.value)
    for end in ranked:
        if (len(kept) == policy.most_kept
                or end.value > ranked[0].value + policy.close_per_row * len(mixture.X)):
            break
        white, curves = mixture.whitening(end), mixture.curves(end)
        if all((((curves - other) @ white) ** 2).sum() > policy.same * size
               for _, other in kept):
            kept.append((end, curves))
    return [end for end, _ in kept]
