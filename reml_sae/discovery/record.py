"""What a fit tried beside its parameters, and by which thresholds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from reml_sae.diagnostics import Check
from reml_sae.discovery.judge import MoveRecord
from reml_sae.discovery.policy import SearchPolicy
from reml_sae.discovery.topology import TopologyChoice
from reml_sae.manifolds import get_manifold
from reml_sae.relaxations.joint_search import Tries


@dataclass(frozen=True)
class SearchRecord:
    """What a fit tried beside its parameters.

    Attributes
    ----------
    n_atoms : tuple of (K, V)
        Numbers of atoms that were tried, with V of a rough fit; empty where K was given.
    topologies : tuple of TopologyChoice
        One for every atom; empty where the topologies were given.
    moves : tuple of MoveRecord
        Changes of the structure that were judged by V, accepted or not.
    policy : SearchPolicy
        Thresholds of the search, and of `transform`.
    seconds : float or None
        That it took, without what was read from a checkpoint; None where it was not kept.
    tries : Tries or None
        How often the search among atoms that rows use one at a time was made, and came to its best
        answer; None where the fit began otherwise.
    """

    n_atoms: tuple[tuple[int, float], ...] = ()
    topologies: tuple[TopologyChoice, ...] = ()
    moves: tuple[MoveRecord, ...] = ()
    policy: SearchPolicy = field(default_factory=SearchPolicy)
    seconds: float | None = None
    tries: Tries | None = None

    def __repr__(self) -> str:
        done = sum(move.accepted for move in self.moves)
        time = "" if self.seconds is None else f", {self.seconds:.1f} s"
        return f"<SearchRecord: {len(self.moves)} moves tried, {done} kept{time}>"

    def lines(self) -> list[str]:
        """Text for a summary; empty where nothing was searched."""
        lines = [f"  {n:>3} atoms            V = {value:.2f}" for n, value in self.n_atoms]
        if self.tries is not None:
            lines.append(f"  {self.tries}")
        for k, choice in enumerate(self.topologies):
            best = ", ".join(f"{name} {value:.1f}" for name, value in choice.table[:3])
            checked = ("" if np.isnan(choice.p_value)
                       else f"; permuted rows p = {choice.p_value:.2f}")
            lines.append(f"  atom {k}: {choice.manifold.name:<12}{best}{checked}")
        lines += [f"  {_named(move)}: {move.detail}; V {move.before:.2f} -> "
                  f"{move.after:.2f}, {_outcome(move)}" for move in self.moves]
        return ["", "Search (V of rough fits):", *lines] if lines else []

    @property
    def flat_twins(self) -> list[MoveRecord]:
        """Curved atoms, as they were asked for, that are no better than a flat."""
        return [move for move in self.moves if move.kind == "flat twin"]

    @property
    def no_atom(self) -> list[MoveRecord]:
        """The rows' mean, where the atoms as they were asked for are no better than that."""
        return [move for move in self.moves if move.kind == "no atom"]

    @property
    def one_flat(self) -> list[MoveRecord]:
        """One flat for all rows, where several atoms are no better than that."""
        return [move for move in self.moves if move.kind == "one flat"]

    def nothing_found(self, n_curved: int) -> str:
        """That none of the atoms, so many of them curved, is needed; empty where one is."""
        if self.no_atom:
            return "no structure was found: without atoms the rows are described as well"
        if self.one_flat:
            return "no curved structure was found: one flat describes all rows as well"
        if n_curved and len(self.flat_twins) == n_curved:
            return ("no curved structure was found: in the place of every curve a flat describes "
                    "the rows as well")
        return ""

    def checks(self) -> list[Check]:
        """What a reader must know of the atoms beside the checks of the fit."""
        nothing = [Check("atoms against none", "warn", move.before - move.after,
                         f"nats by which V falls with {move.detail} in their place")
                   for move in self.no_atom]
        nothing += [Check("atoms against one flat", "warn", move.before - move.after,
                          f"nats by which V falls with {move.detail} in their place")
                    for move in self.one_flat]
        flats = [Check(f"atom {move.atom} against its flat", "warn", move.before - move.after,
                       f"nats by which V falls with {move.detail}")
                 for move in self.flat_twins]
        return nothing + flats + self._missed()

    def _missed(self) -> list[Check]:
        """Whether tries of the search among atoms agree: each of them ends at some optimum."""
        tries = self.tries
        if tries is None or tries.made < 2:
            return []
        return [Check("search among atoms", "pass" if tries.agree else "warn",
                      tries.reached / tries.made, str(tries))]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for an artifact."""
        return {
            "n_atoms": [list(pair) for pair in self.n_atoms],
            "topologies": [{**asdict(choice), "manifold": choice.manifold.to_config()}
                           for choice in self.topologies],
            "moves": [asdict(move) for move in self.moves],
            "policy": self.policy.to_dict(), "seconds": self.seconds,
            "tries": None if self.tries is None else asdict(self.tries),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SearchRecord:
        """Inverse of `to_dict`."""
        choices = [TopologyChoice(**{
            **item, "manifold": get_manifold(item["manifold"]),
            "table": tuple((name, value) for name, value in item["table"])})
            for item in values["topologies"]]
        tries = values.get("tries")
        return cls(tuple((int(n), float(value)) for n, value in values["n_atoms"]),
                   tuple(choices), tuple(MoveRecord(**item) for item in values["moves"]),
                   SearchPolicy.from_dict(values.get("policy", {})), values.get("seconds"),
                   None if tries is None else Tries(**tries))


def _named(move: MoveRecord) -> str:
    return move.kind if move.kind in ("no atom", "one flat") else f"{move.kind} atom {move.atom}"


def _outcome(move: MoveRecord) -> str:
    if move.kind in ("flat twin", "no atom", "one flat"):
        return "kept as asked"
    return "done" if move.accepted else "refused"
