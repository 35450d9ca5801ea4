"""Coordinates of rows on one atom, carried on to a local optimum of the latent-grid mixture.

Between coordinates that were read off a plane or a graph and those of a fit, the joint objective of
rows and decoder curves downwards in many directions, and Newton's method strays. The mixture has
integrated the coordinates out: its EM goes straight down at a small part of the work, and the
evidence at its end ranks where the starts lead. So there is time for many: random ones, and then
crosses of the best end with another, of which some rows take their coordinates. Two ends that each
have a part of a curve right are crossed to the whole, as in a genetic algorithm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reml_sae.linalg import single_threaded
from reml_sae.manifolds import Manifold
from reml_sae.relaxations.axes import TINY
from reml_sae.relaxations.grid_mixture import (
    FLOOR,
    SETTLED,
    Grid,
    Moments,
    State,
    anneal,
    decoder_evidence,
    fit_decoder,
    make_grid,
    responsibilities,
)
from reml_sae.relaxations.policy import CarryPolicy, GridPolicy
from reml_sae.typing import Array

STRENGTH = 1.0
"""Of the roughness at first; it then follows by Fellner-Schall."""


@dataclass(frozen=True)
class _End:
    """Where EM ends.

    Attributes
    ----------
    value : float
        Negative log evidence, in nats.
    state : State
    coordinates : (n, 1) array
    basis : (n, M) array
        Expected basis of the rows.
    """

    value: float
    state: State
    coordinates: Array
    basis: Array

    @cached_property
    def curve(self) -> Array:
        """Expected reconstruction (n, r) of the rows."""
        return self.basis @ self.state.decoder


@single_threaded
def carried_on(
    X: Array, atom: Manifold, starts: Sequence[Array], more: Iterable[Array],
    rng: np.random.Generator, policy: CarryPolicy, grid_policy: GridPolicy,
) -> list[Array]:
    """Where the best of starts and of their crosses lead, the best first and no two alike.

    Parameters
    ----------
    X : (n, r) array
        Rows about their mean.
    atom : Manifold
        Of one coordinate.
    starts : sequence of (n, 1) arrays
    more : iterable of (n, 1) arrays
        Independent of each other; tried in turn until several have come to the best end of all.
    rng : numpy.random.Generator
        Of what is crossed where they did not.
    policy : CarryPolicy
    grid_policy : GridPolicy

    Returns
    -------
    list of (n, 1) arrays
        On a grid; the starts as they are where rows are equal.
    """
    Y, grid = _unit_rows(X), make_grid(atom, grid_policy.coarse_grid)
    if Y is None:
        return list(starts)

    def carried(t: Array) -> _End:
        return _end(Y, grid, _first_state(Y, atom, grid, t), grid_policy.nearly)

    ends = [carried(t) for t in starts]
    independent: list[_End] = []
    for t in more:
        independent.append(carried(t))
        least = min(end.value for end in (*ends, *independent))
        if sum(end.value < least + policy.alike for end in independent) >= policy.agree:
            ends += independent
            break
    else:
        ends += independent
        _cross(ends, carried, rng, policy)
    return [_end(Y, grid, end.state, SETTLED).coordinates
            for end in _kept(Y, ends, policy, grid_policy.same)]


@single_threaded
def rise_of_mixture(
    X: Array, atom: Manifold, before: Array, after: Array, policy: GridPolicy
) -> float:
    """Nats by which EM from other coordinates ends above EM from these; 0 where rows are equal.

    Parameters
    ----------
    X : (n, r) array
        Rows about their mean.
    atom : Manifold
        Of one coordinate.
    before, after : (n, 1) arrays
    policy : GridPolicy
    """
    Y, grid = _unit_rows(X), make_grid(atom, policy.coarse_grid)
    if Y is None:
        return 0.0
    old, new = (_end(Y, grid, _first_state(Y, atom, grid, t), policy.nearly).value
                for t in (before, after))
    return new - old


def _unit_rows(X: Array) -> Array | None:
    """Rows of mean square 1; None where they are equal."""
    size = float(np.sqrt((X**2).sum(axis=1).mean())) if X.size else 0.0
    return X / size if size > TINY else None


def _cross(
    ends: list[_End], carried: Callable[[Array], _End], rng: np.random.Generator,
    policy: CarryPolicy,
) -> None:
    """Add crosses of the best end with another, until several in turn were no better.

    Rows that are neighbours on the best one take the coordinates of the other.
    """
    failed = 0
    while len(ends) > 1 and failed < policy.patience:
        ends.sort(key=lambda end: end.value)
        best, other = ends[0], ends[rng.integers(1, len(ends))]
        order = np.argsort(best.coordinates[:, 0], kind="stable")
        first, count = rng.integers(len(order)), rng.integers(1, len(order))
        rows = np.roll(order, first)[:count]
        t = best.coordinates.copy()
        t[rows] = other.coordinates[rows]
        ends.append(carried(t))
        failed = 0 if ends[-1].value < best.value - policy.alike else failed + 1


def _kept(Y: Array, ends: Sequence[_End], policy: CarryPolicy, same: float) -> list[_End]:
    """The ends that come close to the best, in their order, without those that are a better one."""
    kept: list[_End] = []
    ranked = sorted(ends, key=lambda end: end.value)
    limit = ranked[0].value + policy.close_per_row * len(Y)
    for end in ranked:
        if len(kept) == policy.most_kept or end.value >= limit:
            break
        near = same * float(((Y - end.curve) ** 2).sum())
        if all(((end.curve - other.curve) ** 2).sum() > near for other in kept):
            kept.append(end)
    return kept


def _first_state(Y: Array, atom: Manifold, grid: Grid, t: Array) -> State:
    """The decoder of least squares at coordinates, up to rounding."""
    basis = atom.basis(t)
    known = Moments(basis.T @ basis, basis.T @ Y, float(np.vdot(Y, Y)), np.ones(len(t)))
    decoder, squares, _ = fit_decoder(known, grid, FLOOR, STRENGTH)
    return State(decoder, max(squares / Y.size, FLOOR), STRENGTH)


def _end(Y: Array, grid: Grid, begin: State, settled: float) -> _End:
    """Where EM leads from a state."""
    state = anneal(Y, grid, begin, settled)
    R, value = responsibilities(Y, grid, state)
    return _End(value + decoder_evidence(grid.gram(R.sum(axis=0)), grid, state), state,
                grid.points[R.argmax(axis=1)], R @ grid.basis)
