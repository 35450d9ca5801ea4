"""Where sweeps begin, and which atoms begin again at rows that are explained worst."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from reml_sae.manifolds import Manifold
from reml_sae.sweeps.backend import Backend, DeviceArray
from reml_sae.sweeps.policy import SweepPolicy
from reml_sae.sweeps.rows import RowCodes, SweepSums
from reml_sae.sweeps.seeds import Near, flat_through, nearest_distance, seed_flats
from reml_sae.sweeps.state import SweepState, kinds_of_atoms
from reml_sae.sweeps.update import LEAST_NOISE
from reml_sae.typing import Array, Index

LEAST_NEAR = 6
SURE = 0.5
"""Nats that rows may need of an atom which is moved, over those that are lost at its new place."""
MIXED = 2.0
"""Nats that are lost at an atom, over the median of all, where it may be mixed with another."""
LOST = 0.4
"""What a row loses by noise, over the standard deviation of its nats."""
NOISE = 1.1
"""Standard deviation of the nats of rows, over that by noise, up to which nothing else is seen."""
CENTRAL = 0.1
"""Squared length of the constant of an atom about the common centre, over that of its curve."""
CLEAR = 4.0
"""Standard deviations of noise that a row loses without its atom where no atom could be missed."""
ANEW = 5.0
"""Nats that the rows of an atom gain where it begins again among them, over what sweeps still
would."""
APART = 0.75
"""Share of what flats about the common centre leave of rows, below which they are about others."""
Plan = Literal["move", "mix"]
NEAR: tuple[Near, ...] = ("angle", "distance")
PLANS: tuple[Plan, ...] = ("move", "mix")
Start = tuple[tuple[int, ...], Index, int]
"""Atoms that begin again, the rows at which they do, and the atom by which they were chosen."""


def begun(
    X: DeviceArray, atoms: Sequence[Manifold], near: Near, rng: np.random.Generator,
    policy: SweepPolicy, backend: Backend,
) -> SweepState:
    """A state at seeds."""
    square = backend.numpy(backend.xp.sum(X * X, axis=1)).astype(float)
    flats, left = seed_flats(X, [atom.linear_dim for atom in atoms], square, near, rng, policy,
                             backend, _n_near(len(X), len(atoms), policy))
    kinds = kinds_of_atoms(atoms)
    return SweepState(
        kinds, tuple(np.stack([flats[k].decoder(kind.manifold) for k in kind.atoms])
                     for kind in kinds),
        tuple(np.ones((len(kind.atoms), len(kind.penalties))) for kind in kinds),
        max(float(backend.xp.sum(left)) / (X.shape[0] * X.shape[1]), LEAST_NOISE),
        float(np.exp(policy.log_amplitudes)))


def _n_near(n_rows: int, n_atoms: int, policy: SweepPolicy) -> int:
    """Rows through which a seed is laid."""
    return min(max(int(policy.seed_share * n_rows / n_atoms), LEAST_NEAR), n_rows)


@dataclass(frozen=True, eq=False)
class Repair:
    """Rows of a sample at a state, and what might begin again there.

    Parameters
    ----------
    X : (n, p) rows on the device
    state, sums, codes
        Of these rows.
    policy : SweepPolicy
    backend : Backend
    """

    X: DeviceArray
    state: SweepState
    sums: SweepSums
    codes: RowCodes
    policy: SweepPolicy
    backend: Backend

    @cached_property
    def _excess(self) -> Array:
        """Nats (n,) of every row above the median."""
        return np.asarray(np.maximum(self.codes.values - np.median(self.codes.values), 0.0))

    @cached_property
    def _lost(self) -> Array:
        """Those of the rows of every atom, (K,)."""
        lost = np.bincount(self.codes.labels, self._excess, self.state.n_atoms)
        return np.asarray(lost, float)

    @cached_property
    def _least_lost(self) -> Array:
        """Nats (K,) that are more than noise where no row could be another atom's by noise."""
        counts = np.bincount(self.codes.labels, minlength=self.state.n_atoms)
        spread = float(np.sqrt(0.5 * self.X.shape[1]))  # of half a chi square
        clear = (self.sums.needs > CLEAR * spread * counts).all() and (
            np.std(self.codes.values) < NOISE * spread)
        return np.asarray(MIXED * LOST * spread * counts if clear else 0.0 * counts, float)

    @property
    def is_needed(self) -> bool:
        """Whether atoms may be missed: centres are apart, atoms lose much, or noise hides it."""
        lengths = [(B**2).sum(axis=2) for B in self.state.decoders]
        apart = any((own[:, 0] > CENTRAL * own[:, 1:].sum(axis=1)).any() for own in lengths)
        return bool(apart or not self._least_lost.any() or self._moves(set())
                    or self._mixed(set()))

    def _worst(self, shunned: Set[int]) -> list[int]:
        return [int(k) for k in np.argsort(-self._lost, kind="stable") if k not in shunned]

    def trial(
        self, plan: Plan, most: int, shunned: Set[int], rng: np.random.Generator
    ) -> tuple[SweepState, list[int]]:
        """A state with atoms that begin again.

        Parameters
        ----------
        plan : "move" or "mix"
            Atoms that rows need less than what is lost at another place move there. Two atoms of
            which each may have parts of the same curves begin again at the rows of both.
        most : int
            Count of places.
        shunned : set of int
            Atoms by whose rows nothing was gained.
        rng : numpy.random.Generator

        Returns
        -------
        The state, and the atoms by whose rows others begin: none where nothing is to be gained.
        """
        chosen = (self._mixed(shunned) if plan == "mix" else self._moves(shunned))[:most]
        kinds = [np.asarray(decoders).copy() for decoders in self.state.decoders]
        for own, rows, _ in chosen:
            places = [next((j, int(np.flatnonzero(kind.atoms == k)[0]))
                           for j, kind in enumerate(self.state.kinds) if k in kind.atoms)
                      for k in own]
            manifolds = [self.state.kinds[j].manifold for j, _ in places]
            n_near = _n_near(len(self.X), self.state.n_atoms, self.policy)
            X, energy = self.X[rows], self._excess[rows] + 1e-9
            central, apart = (
                seed_flats(X, [shape.linear_dim for shape in manifolds], energy, near, rng,
                           self.policy, self.backend, min(n_near, len(rows)))[0] for near in NEAR)
            left = [nearest_distance(X, flats, self.backend) for flats in (central, apart)]
            flats = apart if left[1] < APART * left[0] else central
            for (j, place), shape, flat in zip(places, manifolds, flats, strict=True):
                kinds[j][place] = flat.decoder(shape)
        return replace(self.state, decoders=tuple(kinds)), [place for *_, place in chosen]

    def anew(self) -> SweepState:
        """The state with every atom at the flat through its own rows.

        Sweeps may end with an arc of too large a circle, whose rows make up for it by amplitudes.
        """
        X, labels, kinds = self.backend.numpy(self.X), self.codes.labels, list[Array]()
        for kind, decoders in zip(self.state.kinds, self.state.decoders, strict=True):
            kinds.append(np.asarray(decoders).copy())
            for place, k in enumerate(kind.atoms):
                rows = np.asarray(X[labels == k], float)
                if len(rows) >= LEAST_NEAR:
                    flat = flat_through(rows, kind.manifold.linear_dim, "distance")
                    kinds[-1][place] = flat.decoder(kind.manifold)
        return replace(self.state, decoders=tuple(kinds))

    def with_better(self, state: SweepState, codes: RowCodes) -> SweepState | None:
        """The state with the atoms whose rows another explains better; None where it has none."""
        K = self.state.n_atoms
        gains = np.bincount(self.codes.labels, self.codes.values - codes.values, K)
        if not (gains > ANEW).any():
            return None
        return replace(self.state, decoders=tuple(
            np.where((gains[kind.atoms] > ANEW)[:, None, None], new, old)
            for kind, new, old in zip(self.state.kinds, state.decoders, self.state.decoders,
                                      strict=True)))

    def _moves(self, shunned: Set[int]) -> list[Start]:
        out: list[Start] = []
        donors = np.argsort(self.sums.needs, kind="stable").tolist()
        for donor, place in zip(donors, self._worst(shunned), strict=False):
            rows = np.flatnonzero(self.codes.labels == place)
            needed = self.sums.needs[donor] > SURE * self._lost[place]
            if needed or donor == place or len(rows) < LEAST_NEAR:
                break
            out.append(((donor,), rows, place))
        return out

    def _mixed(self, shunned: Set[int]) -> list[Start]:
        out, taken = list[Start](), set[int]()
        labels, others = self.codes.labels, self.codes.candidates[:, 1:]
        usual = MIXED * float(np.median(self._lost))
        for place in self._worst(shunned):
            if self._lost[place] < usual or not others.shape[1]:
                break
            if self._lost[place] < self._least_lost[place]:
                continue
            rows = np.flatnonzero(labels == place)
            partner = int(np.bincount(others[rows, 0], minlength=self.state.n_atoms).argmax())
            if len(rows) and not {place, partner} & taken and partner != place:
                taken |= {place, partner}
                both = np.flatnonzero((labels == place) | (labels == partner))
                if len(both) >= 2 * LEAST_NEAR:
                    out.append(((place, partner), both, place))
        return out
