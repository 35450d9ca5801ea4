"""The whole search for a fit: number and shapes of atoms, and what does not earn its place.

1. Number of atoms: given, or by births while V falls (`choose_n_atoms`).
2. Topologies: given, or chosen atom by atom from a joint fit with circles (`choose_topologies`).
3. REML fit with its discrete choices (`settle`).
4. Rivals of the chosen topologies are tried in the joint model; atoms that explain the same are
   merged and idle ones removed, where their number is free; rough atoms are fitted again from their
   simplest shape; a curved atom that is no better than a flat is demoted where that was asked for
   or shapes are free, else named. A fit that changed is settled again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reml_sae.diagnostics import Check
from reml_sae.discovery.fitting import (
    Fitted,
    Settings,
    fit_starts,
    model_from_codes,
    reassign,
    rough_fit,
    stopped,
    working_scale,
)
from reml_sae.discovery.flats import demote, flat_twins
from reml_sae.discovery.moves import Move, merge_duplicates, remove_idle
from reml_sae.discovery.n_atoms import choose_n_atoms
from reml_sae.discovery.reshape import choose_topologies, reshape
from reml_sae.discovery.settle import integrate_rows, settle
from reml_sae.discovery.simplest import restart_rough
from reml_sae.discovery.topology import (
    AUTO_TOPOLOGIES,
    TopologyChoice,
    choose_topology,
)
from reml_sae.engine import reason
from reml_sae.manifolds import Circle, Manifold, get_manifold
from reml_sae.typing import Array

logger = logging.getLogger("reml_sae")

TOPOLOGY_ROUNDS = 2


@dataclass(frozen=True)
class SearchRecord:
    """What a fit tried beside its parameters.

    Attributes
    ----------
    n_atoms : tuple of (K, V)
        Numbers of atoms that were tried, with V of a rough fit; empty where K was given.
    topologies : tuple of TopologyChoice
        One for every atom; empty where the topologies were given.
    moves : tuple of Move
        Changes of the structure that were judged by V, accepted or not.
    """

    n_atoms: tuple[tuple[int, float], ...] = ()
    topologies: tuple[TopologyChoice, ...] = ()
    moves: tuple[Move, ...] = ()

    def lines(self) -> list[str]:
        """Text for a summary; empty where nothing was searched."""
        lines = [f"  {n:>3} atoms            V = {value:.2f}" for n, value in self.n_atoms]
        for k, choice in enumerate(self.topologies):
            best = ", ".join(f"{name} {value:.1f}" for name, value in choice.table[:3])
            checked = ("" if np.isnan(choice.p_value)
                       else f"; permuted rows p = {choice.p_value:.2f}")
            lines.append(f"  atom {k}: {choice.manifold.name:<12}{best}{checked}")
        lines += [f"  {move.kind} atom {move.atom}: {move.detail}; V {move.before:.2f} -> "
                  f"{move.after:.2f}, {_outcome(move)}" for move in self.moves]
        return ["", "Search (V of rough fits):", *lines] if lines else []

    @property
    def flat_twins(self) -> list[Move]:
        """Curved atoms, as they were asked for, that are no better than a flat."""
        return [move for move in self.moves if move.kind == "flat twin"]

    def checks(self) -> list[Check]:
        """What a reader must know of the atoms beside the checks of the fit."""
        return [Check(f"atom {move.atom} against its flat", "warn", move.before - move.after,
                      f"nats by which V falls with {move.detail}: its curve is not needed")
                for move in self.flat_twins]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for an artifact."""
        return {
            "n_atoms": [list(pair) for pair in self.n_atoms],
            "topologies": [{**asdict(choice), "manifold": choice.manifold.to_config()}
                           for choice in self.topologies],
            "moves": [asdict(move) for move in self.moves],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SearchRecord:
        """Inverse of `to_dict`."""
        choices = [TopologyChoice(**{
            **item, "manifold": get_manifold(item["manifold"]),
            "table": tuple((name, value) for name, value in item["table"])})
            for item in values["topologies"]]
        return cls(tuple((int(n), float(value)) for n, value in values["n_atoms"]),
                   tuple(choices), tuple(Move(**item) for item in values["moves"]))


def _outcome(move: Move) -> str:
    if move.kind == "flat twin":
        return "kept as asked"
    return "done" if move.accepted else "refused"


@dataclass(frozen=True)
class Structure:
    """What the user left open.

    Attributes
    ----------
    topology : Manifold, list of Manifold, or None
        Of all atoms or of each; None where the evidence chooses.
    n_atoms : int or None
        None where the evidence chooses.
    most_atoms : int
        Bound of that choice.
    demote : bool
        Whether a curved atom that was asked for may become flat.
    """

    topology: Manifold | list[Manifold] | None
    n_atoms: int | None
    most_atoms: int
    demote: bool

    def atoms(self, n_atoms: int) -> list[Manifold]:
        """Atoms from which a fit with so many starts; circles where shapes are open."""
        if isinstance(self.topology, list):
            return self.topology
        return [Circle() if self.topology is None else self.topology] * n_atoms


def search(
    Z: Array, unit: float, structure: Structure, settings: Settings, rng: np.random.Generator
) -> tuple[Fitted, SearchRecord]:
    """Fit an SAE-manifold to standardised data (N, p)."""
    table: Sequence[tuple[int, float]] = ()
    choices: Sequence[TopologyChoice] = ()
    moves: list[Move] = []
    if structure.topology is None and structure.n_atoms == 1:
        choices = [choose_topology(working_scale(Z, settings), AUTO_TOPOLOGIES, settings, rng)]
        fitted = fit_starts(Z, unit, [choices[0].manifold], settings, rng)
    elif structure.n_atoms is None:
        fitted, table, moves = choose_n_atoms(
            Z, unit, structure.atoms, settings, structure.most_atoms, rng)
    else:
        fitted = fit_starts(Z, unit, structure.atoms(structure.n_atoms), settings, rng)
    if structure.topology is None and not choices and not fitted.result.interrupted:
        fitted, choices = _shape(Z, unit, fitted, settings, rng)
    if not fitted.result.interrupted:
        fitted = settle(fitted, settings)
        fitted, found = _improve(fitted, structure, choices, settings, rng)
        moves += found
    record = SearchRecord(tuple(table), tuple(choices), tuple(moves))
    return integrate_rows(fitted, settings), record


def _shape(
    Z: Array, unit: float, fitted: Fitted, settings: Settings, rng: np.random.Generator
) -> tuple[Fitted, Sequence[TopologyChoice]]:
    """Choose the topology of every atom of a joint fit, and fit again, until none changes."""
    choices: Sequence[TopologyChoice] = ()
    for _ in range(TOPOLOGY_ROUNDS):
        # rows that the wrong shapes have drawn would spoil the choice of the others
        model = reassign(fitted.model, fitted.result.theta, fitted.result.rho)[0]
        fitted = rough_fit(model, settings, "rows reassigned") or fitted
        try:
            atoms, codes, choices = choose_topologies(fitted, settings, AUTO_TOPOLOGIES, rng)
        except KeyboardInterrupt as stop:
            return stopped(fitted, reason(stop)), choices
        if tuple(atoms) == fitted.model.atoms:
            break
        again = rough_fit(model_from_codes(Z, unit, atoms, settings, codes), settings,
                          "atoms with chosen topologies")
        if again is None:
            break
        logger.info("topologies %s: V = %.4f, before %.4f", [atom.name for atom in atoms],
                    again.result.criterion, fitted.result.criterion)
        fitted = again
    return fitted, choices


def _improve(
    fitted: Fitted, structure: Structure, choices: Sequence[TopologyChoice], settings: Settings,
    rng: np.random.Generator,
) -> tuple[Fitted, list[Move]]:
    """Try other shapes and charts, and remove what does not earn its place; then settle again."""
    moves: list[Move] = []
    before = fitted
    if len(choices) > 1:
        fitted, moves = reshape(fitted, choices, AUTO_TOPOLOGIES, settings, rng)
    if structure.n_atoms is None and not fitted.result.interrupted:
        for step in (merge_duplicates, remove_idle):
            fitted, found = step(fitted, settings)
            moves += found
    if not fitted.result.interrupted:
        fitted, found = restart_rough(fitted, settings, rng)
        moves += found
    if not fitted.result.interrupted:
        flatten = demote if structure.demote or structure.topology is None else flat_twins
        fitted, found = flatten(fitted, settings, rng)
        moves += found
    if fitted is not before and not fitted.result.interrupted:
        fitted = settle(fitted, settings)
    return fitted, moves
