"""Fits by sweeps: seeds and repairs on samples of the rows, and sweeps over all of them.

A sweep and an M step are one iteration of an EM algorithm. Sweeps end where the gains to come, by
the shrink rate of the last ones, are small among all atoms. On a sample, atoms that their rows
hardly need begin again at the rows that are explained worst, which is kept where the objective
falls; after the sweeps over all rows another sample is asked whether it knows better.

What a round does hangs on the rows, the seed and its number alone, so that a fit goes on from its
last `Progress` to the same bits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from reml_sae.engine import Deadline
from reml_sae.errors import InputError
from reml_sae.manifolds import Manifold
from reml_sae.rows import RowMap, SerialRows
from reml_sae.sweeps.backend import Backend, DeviceArray
from reml_sae.sweeps.checkpoint import Progress, SweepCheckpoint
from reml_sae.sweeps.policy import SweepPolicy
from reml_sae.sweeps.repair import NEAR, PLANS, Repair, begun
from reml_sae.sweeps.rows import RowCodes, SweepSums, longest_row, sweep
from reml_sae.sweeps.state import SweepState
from reml_sae.sweeps.update import AMPLITUDES, objective, updated
from reml_sae.typing import Array, Index

logger = logging.getLogger("reml_sae")

Watch = Callable[[Literal["sample", "sweep"], SweepState, float], object]
"""Told of every sweep, over a sample or all rows: its state, and the objective of its rows."""


@dataclass(frozen=True, eq=False)
class SweepFit:
    """A fit.

    Attributes
    ----------
    state : SweepState
    sums : SweepSums
        At the state.
    codes : RowCodes
    trace : (T,) objective of every sweep of all rows, in nats
    settled : bool
        Whether sweeps ended because they gained little.
    """

    state: SweepState
    sums: SweepSums
    codes: RowCodes
    trace: Array
    settled: bool

    def coordinates(self, k: int) -> Array:
        """Coordinates (n, d) of the rows of atom k, in their order."""
        kind = next(kind for kind in self.state.kinds if k in kind.atoms)
        return self.codes.points[self.codes.labels == k, :kind.manifold.latent_dim]


def is_swept(atom: Manifold) -> bool:
    """Whether sweeps find such atoms: rings, and flats with coordinates."""
    return atom.relaxation == "ring" or (atom.is_flat and atom.latent_dim > 0)


def fit_sweeps(
    Z: Array | DeviceArray, atoms: Sequence[Manifold], backend: Backend, seed: int,
    policy: SweepPolicy | None = None, *, row_map: RowMap | None = None,
    checkpoint: SweepCheckpoint | None = None, deadline: Deadline | None = None,
    start: SweepState | None = None, watch: Watch = lambda stage, state, value: None,
) -> SweepFit:
    """Fit atoms to rows of which each uses one.

    Parameters
    ----------
    Z : (N, p) array, or what has its ``len``, ``shape`` and rows by slices and by numbers
        Centred rows of unit mean square.
    atoms : sequence of Manifold
    backend : Backend
    seed : int
    policy : SweepPolicy, optional
    row_map : RowMap, optional
        Executes sweeps over all rows; chunks and their order, and so the bits, are the same.
    checkpoint : SweepCheckpoint, optional
        Where the fit goes on from, and keeps where it is after every sweep over all rows.
    deadline : Deadline, optional
        After which no more is begun; one sweep over all rows is always made.
    start : SweepState, optional
        From which to go on, with all rows first; from seeds by default.
    watch : callable, optional

    Raises
    ------
    InputError
        Where an atom is neither a ring nor a flat: seeds do not find others reliably.
    """
    for atom in dict.fromkeys(atoms):
        if not is_swept(atom):
            raise InputError(f"sweeps find rings and flats alone, such as circles and planes, got "
                             f"{atom!r}; fit other atoms by the search, solver='search'")
    policy, checkpoint = policy or SweepPolicy(), checkpoint or SweepCheckpoint(None)
    fit = _Fit(Z, tuple(atoms), backend, seed, policy, checkpoint, deadline or Deadline(), watch,
               SerialRows() if row_map is None else row_map)
    return fit.run(start)


@dataclass(frozen=True, eq=False)
class Ended:
    """Rows at a state to which sweeps have brought it.

    Attributes
    ----------
    value : float
        The objective.
    state : SweepState
    sums : SweepSums
    codes : RowCodes
    settled : bool
        Whether sweeps would gain little more.
    """

    value: float
    state: SweepState
    sums: SweepSums
    codes: RowCodes
    settled: bool = False


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows to sweep over."""

    Z: Array | DeviceArray
    backend: Backend
    policy: SweepPolicy
    row_map: RowMap

    @cached_property
    def longest(self) -> float:
        """Length of the longest row."""
        return longest_row(self.Z, self.backend)

    def at(
        self, state: SweepState, candidates: Index | None = None, reroute: bool = False
    ) -> Ended:
        """One sweep."""
        sums, codes = sweep(
            self.Z, state, self.backend, longest=self.longest, fineness=self.policy.fineness,
            n_candidates=self.policy.n_candidates, candidates=candidates, reroute=reroute,
            row_map=self.row_map)
        return Ended(objective(state, sums), state, sums, codes)

    def settled(self, values: Sequence[float]) -> bool:
        """Whether the gains to come are small."""
        if len(values) < 3:
            return False
        before, last = values[-3] - values[-2], values[-2] - values[-1]
        small = self.policy.tol * len(self.Z)
        turn = self.policy.reroute
        # nodes that change with the state may send the objective round
        if max(abs(last), abs(before)) < small or (
                len(values) > 2 * turn and min(values[:-turn]) - min(values[-turn:]) < small):
            return True
        return last < small and last < before and last / (before - last) * last < small


@dataclass(frozen=True, eq=False)
class _Fit:
    """A fit under way."""

    Z: Array | DeviceArray
    atoms: tuple[Manifold, ...]
    backend: Backend
    seed: int
    policy: SweepPolicy
    checkpoint: SweepCheckpoint
    deadline: Deadline
    watch: Watch
    row_map: RowMap

    def run(self, start: SweepState | None) -> SweepFit:
        """All rounds."""
        rows = _Rows(self.Z, self.backend, self.policy, self.row_map)
        progress = self.checkpoint.read(self.atoms, len(self.Z))
        if progress is None:
            progress = self._first() if start is None else Progress(0, start)
            self._keep(progress)
        reached = progress.round
        found, progress = self._finished(rows, progress)
        most = self.policy.most_rounds if self._size < len(self.Z) else 1
        for number in range(reached + 1, most):
            # a round that has bettered nothing is the last
            again = (self._repaired(progress)
                     if progress.round == number - 1 and not self.deadline.passed else None)
            if again is None:
                break
            self._keep(again)
            found, progress = self._finished(rows, again)
        return SweepFit(found.state, found.sums, found.codes, np.array(progress.values),
                        progress.settled)

    def _keep(self, progress: Progress) -> None:
        # what time has cut short is not where another fit would be
        if not self.deadline.passed:
            self.checkpoint.write(progress)

    @property
    def _size(self) -> int:
        """Rows of a sample."""
        return min(len(self.Z), self.policy.seed_rows * len(self.atoms))

    def _sample(self, number: int) -> _Rows:
        """Rows of a round."""
        rng = np.random.default_rng((self.seed, number))
        chosen = np.sort(rng.choice(len(self.Z), self._size, replace=False))
        return _Rows(self.backend.array(self.Z[chosen]), self.backend, self.policy, SerialRows())

    def _first(self) -> Progress:
        """The first round's sample, from seeds."""
        sample, rng = self._sample(0), np.random.default_rng((self.seed, 0, 0))
        best: Ended | None = None
        for near in NEAR:
            if best is not None and not self._repair(sample, best).is_needed:
                break
            found = self._swept(sample, begun(sample.Z, self.atoms, near, rng, self.policy,
                                              self.backend), self.policy.most_ranked)
            best = found if best is None or found.value < best.value else best
        assert best is not None
        if not best.settled:
            best = self._swept(sample, best.state, self.policy.most_seeded)
        best = self._anew(sample, best)
        found = self._mended(sample, best, 0)
        return Progress(0, (best if found is best else self._anew(sample, found)).state)

    def _repaired(self, progress: Progress) -> Progress | None:
        """What the next round's sample makes of the state; None where it knows no better."""
        number = progress.round + 1
        sample = self._sample(number)
        # where its sweeps end: what they gain there is no more than that decoders follow few rows
        before = self._swept(sample, progress.state, self.policy.most_ranked)
        found = self._mended(sample, before, number)
        return None if found is before else Progress(
            number, found.state, progress.values, best=progress.best)

    def _repair(self, sample: _Rows, found: Ended) -> Repair:
        return Repair(sample.Z, found.state, found.sums, found.codes, self.policy, self.backend)

    def _swept(
        self, rows: _Rows, state: SweepState, most: int, candidates: Index | None = None
    ) -> Ended:
        """Rows of a sample at the state that sweeps end with, from the atoms that they know."""
        values: list[float] = []
        stale = candidates is not None
        while True:
            found = rows.at(state, candidates, not stale)
            values.append(found.value)
            self.watch("sample", state, found.value)
            # of few rows the objective may rise: it counts the decoders' volume, which steps do not
            rises = len(values) > 2 and values[-3] < values[-2] < values[-1]
            done = rises or rows.settled(values)
            if len(values) > most or self.deadline.passed or (done and not stale):
                return replace(found, settled=rows.settled(values) and not stale)
            stale, candidates = not done and len(values) % self.policy.reroute != 0, (
                found.codes.candidates)
            # decoders of few rows take their noise in, which would pass for amplitudes
            least = float(np.exp(self.policy.log_amplitudes))
            state = updated(state, found.sums, (least, AMPLITUDES[1]))

    def _anew(self, sample: _Rows, found: Ended) -> Ended:
        """The sample with atoms that began again among their own rows."""
        repair = self._repair(sample, found)
        other = self._swept(sample, repair.anew(), self.policy.most_ranked, found.codes.candidates)
        state = repair.with_better(other.state, other.codes)
        if state is None or self.deadline.passed:
            return found
        again = self._swept(sample, state, self.policy.most_ranked)
        return again if again.value < found.value else found

    def _mended(self, sample: _Rows, found: Ended, number: int) -> Ended:
        """The sample with atoms that began again where rows need them."""
        plan, most, failed, shunned = 0, len(self.atoms), 0, set[int]()
        for trial in range(self.policy.most_repairs):
            repair = self._repair(sample, found)
            rng, places = np.random.default_rng((self.seed, number, 1 + trial)), list[int]()
            while not places and plan < len(PLANS):
                state, places = repair.trial(PLANS[plan], most, shunned, rng)
                if not places:
                    plan, most = plan + 1, len(self.atoms)
                    shunned.clear()
            if not places or failed == self.policy.most_failed or self.deadline.passed:
                break
            again = self._swept(sample, state, self.policy.most_ranked)
            logger.info("%d atoms began again (%s): objective %.2f, before %.2f", len(places),
                        PLANS[plan], again.value, found.value)
            if again.value < found.value:
                found, plan, most, failed = again, 0, len(self.atoms), 0
                shunned.clear()
                continue
            failed += 1
            if len(places) == 1:
                shunned |= set(places)
            else:
                most = len(places) // 2
        return found

    def _finished(self, rows: _Rows, progress: Progress) -> tuple[Ended, Progress]:
        """Sweeps over all rows, which look at all atoms now and then; the lowest of all rounds."""
        while True:
            found = rows.at(progress.state, progress.candidates, progress.reroute)
            progress = replace(progress, values=(*progress.values, found.value),
                               recent=(*progress.recent, found.value)).with_best()
            self.watch("sweep", progress.state, found.value)
            logger.info("sweep %d: objective %.4f", len(progress.values), found.value)
            done, fresh = rows.settled(progress.recent), progress.reroute
            if (done and fresh) or self.deadline.passed or (
                    len(progress.recent) >= self.policy.most_sweeps):
                return self._lowest(rows, found, replace(progress, settled=done and fresh))
            again = done or len(progress.recent) % self.policy.reroute == 0
            progress = replace(progress, state=updated(progress.state, found.sums),
                               candidates=found.codes.candidates, reroute=again)
            self._keep(progress)

    def _lowest(self, rows: _Rows, found: Ended, progress: Progress) -> tuple[Ended, Progress]:
        """The last sweep, or one more at the state of the lowest where that gains what counts.

        Nodes, and their rounding, change with the state.
        """
        best = progress.best
        assert best is not None
        if found.value - best.recent[-1] < self.policy.tol * len(self.Z):
            return found, progress
        found = rows.at(best.state)
        self.watch("sweep", best.state, found.value)
        return found, replace(best, values=(*progress.values, found.value),
                              settled=progress.settled, best=best)
