"""Fits by sweeps: seeds and repairs on a sample of the rows, then sweeps over all of them.

A sweep and an M step are one iteration of an EM algorithm. Sweeps end where the gains to come, by
the shrink rate of the last ones, are small. On the sample, atoms that their rows hardly need begin
again at the rows that are explained worst, which is kept where the objective falls.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from reml_sae.errors import InputError
from reml_sae.manifolds import Manifold
from reml_sae.sweeps.backend import Backend, DeviceArray
from reml_sae.sweeps.policy import SweepPolicy
from reml_sae.sweeps.rows import RowCodes, SweepSums, sweep
from reml_sae.sweeps.seeds import Near, nearest_flats, seed_flats
from reml_sae.sweeps.state import SweepState, kinds_of_atoms
from reml_sae.sweeps.tables import SweepTables
from reml_sae.sweeps.update import LEAST_NOISE, objective, updated
from reml_sae.typing import Array, Index

logger = logging.getLogger("reml_sae")

LEAST_NEAR = 6


@dataclass(frozen=True, eq=False)
class SweepFit:
    """A fit.

    Attributes
    ----------
    state : SweepState
    sums : SweepSums
        At the state.
    codes : RowCodes
    tables : SweepTables
        The nodes that the codes number.
    trace : (T,) objective of every sweep of all rows, in nats
    """

    state: SweepState
    sums: SweepSums
    codes: RowCodes
    tables: SweepTables
    trace: Array

    def coordinates(self, k: int) -> Array:
        """Coordinates (n, d) of the rows of atom k, in their order, at the nodes."""
        nodes = self.codes.nodes[self.codes.labels == k]
        kind = next(kind for kind in self.tables.kinds if k in kind.atoms)
        return np.asarray(kind.fine.points[nodes], float)


def fit_sweeps(
    Z: Array | DeviceArray, atoms: Sequence[Manifold], backend: Backend,
    rng: np.random.Generator, policy: SweepPolicy | None = None,
) -> SweepFit:
    """Fit atoms to centred rows (N, p) of unit mean square, of which each uses one.

    Raises
    ------
    InputError
        Where an atom is no ring: seeds do not find others reliably.
    """
    policy = policy or SweepPolicy()
    for atom in dict.fromkeys(atoms):
        if atom.relaxation != "ring":
            raise InputError(f"sweeps find rings alone, such as circles, got {atom!r}; fit other "
                             "atoms by SAEManifold")
    size = min(len(Z), policy.seed_rows * len(atoms))
    chosen = np.sort(rng.choice(len(Z), size, replace=False))
    few = backend.array(Z[chosen])
    run = _Run(few, backend, policy)
    value, state = min((run.ended(run.begun(atoms, near, rng)) for near in _NEAR),
                       key=lambda found: found[0])
    state = run.repaired(value, state, rng)
    return _Run(Z, backend, policy).finished(state)


_NEAR: tuple[Near, ...] = ("angle", "distance")


@dataclass(frozen=True, eq=False)
class _Run:
    """Sweeps over some rows."""

    Z: Array | DeviceArray
    backend: Backend
    policy: SweepPolicy

    def sweep(
        self, state: SweepState, candidates: Index | None = None
    ) -> tuple[SweepSums, RowCodes, SweepTables]:
        """One sweep."""
        return sweep(self.Z, state, self.backend, offset=np.zeros(self.Z.shape[1]),
                     n_candidates=self.policy.n_candidates, fineness=self.policy.fineness,
                     candidates=candidates)

    def begun(self, atoms: Sequence[Manifold], near: Near, rng: np.random.Generator) -> SweepState:
        """A state at seeds."""
        X, own = self.backend.array(self.Z), self.policy
        square = self.backend.numpy(self.backend.xp.sum(X * X, axis=1)).astype(float)
        flats = seed_flats(X, [atom.linear_dim for atom in atoms], square, near, rng, own,
                           self.backend, self.n_near(len(atoms)))
        left = nearest_flats(X, flats, self.backend)[1]
        kinds = kinds_of_atoms(atoms)
        return SweepState(
            kinds, tuple(np.stack([flats[k].decoder(kind.manifold) for k in kind.atoms])
                         for kind in kinds),
            tuple(np.ones(len(kind.atoms)) for kind in kinds),
            max(float(left.mean()) / X.shape[1], LEAST_NOISE), float(np.exp(own.log_amplitudes)))

    def n_near(self, n_atoms: int) -> int:
        """Rows through which a seed is laid."""
        return min(max(int(self.policy.seed_share * len(self.Z) / n_atoms), LEAST_NEAR),
                   len(self.Z))

    def ended(self, state: SweepState, most: int | None = None) -> tuple[float, SweepState]:
        """Objective and state after sweeps, until they gain little."""
        values: list[float] = []
        for _ in range(self.policy.most_seeded if most is None else most):
            sums = self.sweep(state)[0]
            values.append(objective(state, sums))
            if self._settled(values):
                return values[-1], state
            state = updated(state, sums)
        return objective(state, self.sweep(state)[0]), state

    def _settled(self, values: Sequence[float]) -> bool:
        """Whether the gains to come are small."""
        if len(values) < 3:
            return False
        before, last = values[-3] - values[-2], values[-2] - values[-1]
        small = self.policy.tol * len(self.Z)
        return last < small and (last < before and last / max(before - last, 1e-300) * last < small)

    def repaired(
        self, value: float, state: SweepState, rng: np.random.Generator
    ) -> SweepState:
        """The state, of this objective, with atoms moved to where rows need them."""
        most = state.n_atoms
        for _ in range(self.policy.most_repairs):
            trial = self._moved(state, most, rng)
            if trial is None:
                break
            again, ended = self.ended(trial)
            logger.info("atoms moved: objective %.2f, before %.2f", again, value)
            if again < value:
                value, state = again, ended
            elif most == 1:
                break
            else:
                most = 1
        return state

    def _moved(self, state: SweepState, most: int, rng: np.random.Generator) -> SweepState | None:
        """The state with at most so many of the least needed atoms where rows are worst explained.

        None where every atom is needed more than what another place might gain.
        """
        sums, codes, _ = self.sweep(state)
        typical = np.median(codes.values)
        excess = np.maximum(codes.values - typical, 0.0)
        lost = np.bincount(codes.labels, weights=excess, minlength=state.n_atoms)
        kinds = [np.asarray(decoders).copy() for decoders in state.decoders]
        donors, worst = np.argsort(sums.needs, kind="stable"), np.argsort(-lost, kind="stable")
        X, moved = self.backend.array(self.Z), 0
        for donor, place in zip(donors[:most], worst, strict=False):
            if sums.needs[donor] > 0.5 * lost[place] or donor == place:
                break
            rows = np.flatnonzero(codes.labels == place)
            if len(rows) < LEAST_NEAR:
                break
            number, kind = next((j, kind) for j, kind in enumerate(state.kinds)
                                if donor in kind.atoms)
            near: Near = "angle" if moved % 2 == 0 else "distance"
            flat = seed_flats(X[rows], [kind.manifold.linear_dim], excess[rows], near, rng,
                              self.policy, self.backend, min(self.n_near(state.n_atoms),
                                                             len(rows)))[0]
            at = int(np.flatnonzero(kind.atoms == donor)[0])
            kinds[number][at] = flat.decoder(kind.manifold)
            moved += 1
        if not moved:
            return None
        return replace(state, decoders=tuple(kinds))

    def finished(self, state: SweepState) -> SweepFit:
        """Sweeps over all rows, which look at all atoms now and then."""
        values: list[float] = []
        candidates: Index | None = None
        for number in range(self.policy.most_sweeps):
            if number % self.policy.reroute == 0:
                candidates = None
            sums, codes, tables = self.sweep(state, candidates)
            candidates = codes.candidates
            values.append(objective(state, sums))
            logger.info("sweep %d: objective %.4f", number, values[-1])
            if self._settled(values) or number + 1 == self.policy.most_sweeps:
                break
            state = updated(state, sums)
        return SweepFit(state, sums, codes, tables, np.array(values))
