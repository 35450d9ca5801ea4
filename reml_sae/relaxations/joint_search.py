"""A search for the codes of rows on one atom each, by the evidence of the joint mixture.

EM from partitions and random codes ends at many local optima, from the best of which moves lead on
(`joint_moves`), until two chains of them have come to the same. A sweep of EM takes a millisecond
where a fit takes a second, so hundreds of ends can be looked at before one is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain as joined
from itertools import islice

import numpy as np

from reml_sae.errors import InputError
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
class Tries:
    """How often a search has come to its best answer.

    Attributes
    ----------
    made : int
        Count of tries that are alike: chains of moves, or seeds where none were made.
    reached : int
        Count of those that came to the best end.
    """

    made: int
    reached: int

    def __post_init__(self) -> None:
        if not 0 <= self.reached <= self.made:
            raise InputError(f"{self.reached} of {self.made} tries cannot have come to an answer")

    @classmethod
    def of(cls, mixture: JointMixture, values: Sequence[float]) -> Tries:
        """Of the ends with these values."""
        least = min(values, default=np.inf)
        return cls(len(values), sum(value < least + mixture.alike for value in values))

    @property
    def agree(self) -> bool:
        """Whether several have: one alone may end at any local optimum."""
        return self.reached > 1

    def __str__(self) -> str:
        tries = "try" if self.made == 1 else "tries"
        return f"{self.reached} of {self.made} {tries} of the search came to its best answer"


@dataclass(frozen=True)
class JointEnds:
    """Where the search ends.

    Attributes
    ----------
    codes : sequence of AtomCodes
        On grids, the best by evidence first and no two alike.
    noises : sequence of (p, p) arrays
        Second moments of the noise there.
    tries : Tries
    """

    codes: Sequence[AtomCodes]
    noises: Sequence[Array]
    tries: Tries

    @property
    def agreed(self) -> bool:
        """Whether several seeds, or moves from two of them, have come to the best end."""
        return self.tries.agree


@single_threaded
def search_codes(
    Z: Array, atoms: Sequence[Manifold], seeds: Sequence[AtomCodes], white: bool,
    rng: np.random.Generator, policy: JointPolicy, stop: Callable[[], bool] = lambda: False,
    wider: Sequence[Manifold] | None = None,
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
    wider : sequence of K Manifold, optional
        The same with more basis functions: they are searched for in the place of the others where
        these have not agreed, or where the wider ones have a use for theirs at the best end.

    Returns
    -------
    JointEnds
        Without codes where rows are too few to tell the noise, or all equal.
    """
    seen = mixture_of(Z, atoms, white, rng, policy)
    if seen is None:
        return JointEnds([], [], Tries(0, 0))
    mixture, axes = seen.mixture, seen.axes
    begun = [seed.of(seen.sample) for seed in seeds]
    ends, tries = _ends(mixture, begun, rng, stop)
    best = kept_ends(mixture, ends)
    if wider is not None and best and not stop():
        wide = replace(mixture, joint=JointGrid.of(wider, policy))
        found = [mixture.codes(mixture.X, place) for place in best]
        if not tries.agree or _lead_lower(wide, found[0], best[0].value):
            wide_ends, wide_tries = _ends(wide, [*found, *begun], rng, stop)
            if kept := kept_ends(wide, wide_ends):
                mixture, best, tries = wide, kept, wide_tries
    return JointEnds([mixture.codes(seen.rows, place) for place in best],
                     [axes.T @ place.noise @ axes + seen.outside for place in best], tries)


def _ends(
    mixture: JointMixture, seeds: Sequence[AtomCodes], rng: np.random.Generator,
    stop: Callable[[], bool],
) -> tuple[list[Place], Tries]:
    """Where seeds, random ones, and moves where these do not agree lead."""
    policy, white = mixture.policy, mixture.white
    ends = [mixture.carried(seed) for seed in seeds if not stop()]
    agreed = seed_at_random(mixture, ends, policy.few_random if white else policy.most_random,
                            rng, stop)
    if not agreed and white and _tries(mixture, ends).agree:
        agreed = seed_at_random(mixture, ends, policy.more_random, rng, stop)
    if agreed or not _is_hopeful(mixture, ends):
        return ends, _tries(mixture, ends)
    tries = _move_on(mixture, ends, rng, stop)
    return ends, tries


def _lead_lower(mixture: JointMixture, codes: AtomCodes, value: float) -> bool:
    """Whether EM leads below a value from codes."""
    return mixture.carried(codes).value < value - mixture.alike


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
    while (not (agreed := _tries(mixture, ends).reached >= mixture.policy.agree)
           and len(ends) < most and not stop()):
        ends.append(mixture.carried(random_codes(mixture.joint, spread, rng)))
    return agreed


def _tries(mixture: JointMixture, ends: Sequence[Place]) -> Tries:
    return Tries.of(mixture, [end.value for end in ends])


def _is_hopeful(mixture: JointMixture, ends: Sequence[Place]) -> bool:
    """Whether an end describes the rows nearly as well as their mean and noise do, or better.

    In rows without structure every move leads to some lower end, and none of them says anything;
    with one, seeds that are as far above noise alone have come to where moves would lead.
    """
    least = min((end.value for end in ends), default=-np.inf)
    return least <= mixture.noise_alone + mixture.policy.close_per_row * len(mixture.X)


def _move_on(
    mixture: JointMixture, ends: list[Place], rng: np.random.Generator, stop: Callable[[], bool]
) -> Tries:
    """Add the ends of chains of moves from several seeds, until two have come to the best.

    One alone, however often its moves come back, ends at many local optima. So would two from
    seeds that are alike: they begin from the best in turn that differ, and then from random ones.
    Where moves from the best end have come back to it, one that comes to it too goes no further.
    """
    policy, spread, reached = mixture.policy, spread_out(mixture.X), list[float]()
    goal = -np.inf

    def over(at: Place) -> bool:
        return stop() or abs(at.value - goal) < mixture.alike

    anywhere = iter(lambda: mixture.carried(random_codes(mixture.joint, spread, rng)), None)
    for seed in islice(joined(_apart(mixture, ends), anywhere), policy.most_chains):
        if stop():
            break
        end, came_back = _chain(Optimum(mixture, seed), rng, over)
        ends.append(end)
        if stop() and reached:
            break
        reached.append(end.value)
        if Tries.of(mixture, reached).agree:
            break
        if end.value == min(reached):
            goal = end.value if came_back else -np.inf
    return Tries.of(mixture, reached)


def _chain(
    optimum: Optimum, rng: np.random.Generator, stop: Callable[[Place], bool]
) -> tuple[Place, bool]:
    """Where moves lead from a place, until many in turn were no better or several came back.

    And whether these did. Those of two atoms begin where each atom is settled on its own rows.
    """
    policy, alike, n_atoms = optimum.mixture.policy, optimum.mixture.alike, optimum.n_atoms
    optimum = _settled(optimum, rng, stop)
    failed = back = 0
    while (n_atoms > 1 and failed < policy.patience * n_atoms
           and back < policy.confirmed * n_atoms and not stop(optimum.place)):
        move = propose(optimum, rng)
        found = Found(-np.inf) if move is None else optimum.follow(move)
        if found.place is not None and found.gain > alike:
            optimum = _settled(Optimum(optimum.mixture, found.place), rng, stop)
            failed = back = 0
        else:
            failed += 1
            back += abs(found.gain) <= alike
    return optimum.place, back >= policy.confirmed * n_atoms


def _settled(
    optimum: Optimum, rng: np.random.Generator, stop: Callable[[Place], bool]
) -> Optimum:
    """Where coordinates that begin again lead, of every atom in turn.

    An atom is done with where they have come back often enough, or too often to no better. Each
    is counted by itself: a circle always comes back, a Moebius strip that is wrong hardly ever.
    """
    policy, alike = optimum.mixture.policy, optimum.mixture.alike
    todo = list(range(optimum.n_atoms))
    while todo:
        k, failed, back = todo.pop(), 0, 0
        while (failed < policy.patience and back < policy.confirmed
               and not stop(optimum.place)):
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
    policy, least = mixture.policy, min((end.value for end in ends), default=np.inf)
    close = [end for end in ends if end.value <= least + policy.close_per_row * len(mixture.X)]
    return list(islice(_apart(mixture, close), policy.most_kept))


def _apart(mixture: JointMixture, ends: Sequence[Place]) -> Iterator[Place]:
    """Ends, the best first, without those whose curves are those of a better one."""
    least, before = mixture.policy.same * mixture.X.size, list[Array]()
    for end in sorted(ends, key=lambda end: end.value):
        white, curves = mixture.whitening(end), mixture.curves(end)
        if all((((curves - other) @ white) ** 2).sum() > least for other in before):
            before.append(curves)
            yield end
