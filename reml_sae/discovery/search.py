"""The whole search for a fit: number and shapes of atoms, and what does not earn its place.

1. Number of atoms: given, or by births while V falls (`choose_n_atoms`).
2. Topologies: given, or chosen atom by atom from a joint fit with circles (`choose_topologies`).
3. REML fit with its discrete choices (`settle`), in the metric of the noise that it leaves
   (`follow_noise`).
4. Moves that the structure is open to, judged by V (`moves.registry`): rivals of the chosen
   topologies, atoms that explain the same, idle ones, rough ones, and curved ones that are no
   better than a flat. A fit that changed is settled again.
5. Noises of the atoms' own, where they are asked for and lower V (`own_noises`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reml_sae.discovery.first_fit import fit_starts, noise_alone_is_better
from reml_sae.discovery.fitting import (
    Fitted,
    Settings,
    model_from_codes,
    reassign,
    rough_fit,
    stopped,
    working_scale,
)
from reml_sae.discovery.follow_noise import better_noise, follow_noise, leaves_nothing
from reml_sae.discovery.joint_topologies import choose_topologies
from reml_sae.discovery.judge import MoveRecord, try_move
from reml_sae.discovery.local import least_flat
from reml_sae.discovery.metric import MetricRows
from reml_sae.discovery.moves.birth import choose_n_atoms
from reml_sae.discovery.moves.protocol import Context
from reml_sae.discovery.moves.registry import MOVES
from reml_sae.discovery.moves.remove import Remove
from reml_sae.discovery.own_noise import own_noises
from reml_sae.discovery.present import PresentFit
from reml_sae.discovery.record import SearchRecord
from reml_sae.discovery.settle import integrate_rows, settle
from reml_sae.discovery.structure import Structure
from reml_sae.discovery.topology import AUTO_TOPOLOGIES, TopologyChoice, choose_topology
from reml_sae.engine import reason
from reml_sae.errors import InnerConvergenceError
from reml_sae.families.noise import Factors, OneOf, best_noise, open_kinds
from reml_sae.manifolds import Manifold

logger = logging.getLogger("reml_sae")


def search(
    rows: MetricRows, structure: Structure, settings: Settings, rng: np.random.Generator,
    present: PresentFit | None = None,
) -> tuple[Fitted, SearchRecord]:
    """Fit an SAE-manifold to rows whose noise has no shape yet, or go on from a fit that there is.

    Then ``structure`` is that of the fit.
    """
    begun = time.perf_counter()
    table: Sequence[tuple[int, float]] = ()
    choices: Sequence[TopologyChoice] = ()
    records: list[MoveRecord] = []
    rival: Fitted | None = None
    X = working_scale(rows.Z, settings)
    settings = replace(settings, noise=open_kinds(settings.noise, X.T @ X / len(X), len(X)),
                       sizes_open=bool(np.any(structure.sizes))).with_chains(
        max(settings.policy.relaxation.joint.most_chains, settings.n_init))
    if present is not None:
        fitted = present.fit(rows, settings)
    elif structure.topology is None and structure.n_atoms == 1:
        choices = [choose_topology(X, AUTO_TOPOLOGIES, settings, rng)]
        fitted = fit_starts(rows, [choices[0].manifold], settings, rng)
    elif structure.n_atoms is None:
        fitted, table = choose_n_atoms(
            rows, structure.atoms, settings, structure.most_atoms, rng)
        if not fitted.result.interrupted:
            fitted, records = try_move(Remove(), fitted, Context(structure, settings, rng))
    else:
        fitted, rival = _begun(rows, structure.atoms(structure.n_atoms), settings, rng)
    tries = fitted.tries
    if isinstance(settings.noise, OneOf) and (
            leaves_nothing(fitted, settings) or _is_needless(fitted, settings)):
        settings = settings.plain()
    if structure.topology is None and not choices and not fitted.result.interrupted:
        fitted, choices = _shape(fitted, settings, rng)
    if not fitted.result.interrupted:
        fitted = replace(settle(fitted, settings), tries=fitted.tries)
        fitted = (follow_noise(fitted, settings) if present is not None
                  else _in_its_noise(fitted, rival, rows, settings, rng))
        tries = fitted.tries
        fitted, found = _improve(fitted, Context(structure, settings, rng, choices,
                                                  AUTO_TOPOLOGIES))
        records += found
        if any(item.accepted for item in found):
            fitted = follow_noise(fitted, settings)
    fitted = _finished(fitted, settings, rng)
    return fitted, SearchRecord(tuple(table), tuple(choices), tuple(records), settings.policy,
                                time.perf_counter() - begun, tries)


def _finished(fitted: Fitted, settings: Settings, rng: np.random.Generator) -> Fitted:
    """The fit with its rows integrated out, in noises of the atoms' own where V is lower."""
    own = own_noises(fitted, settings, rng) if settings.per_atom else fitted
    best = integrate_rows(own, settings)
    ahead = fitted.result.criterion - own.result.criterion
    if own.model is fitted.model or ahead > _out_of_reach(settings, len(fitted.model.Z)):
        return best
    # so near each other, integrals over the rows can turn the two round
    shared = integrate_rows(fitted, settings)
    return shared if shared.result.criterion < best.result.criterion else best


def _out_of_reach(settings: Settings, n_rows: int) -> float:
    """Nats by which a rough V is not lowered any more."""
    return settings.policy.move.within_per_row * n_rows


def _is_needless(fitted: Fitted, settings: Settings) -> bool:
    """Whether the rows' mean and noise without a shape are better beyond doubt.

    What atoms leave of such rows may have a shape, which is that of what they have taken.
    """
    X = fitted.rows.noise.colour(fitted.rows.Z)
    if best_noise(settings.noise, X.T @ X / len(X), len(X)).simpler() is not None:
        return False
    alone = least_flat(fitted, 0, settings)
    return np.isfinite(alone) and (
        fitted.result.criterion > alone + _out_of_reach(settings, len(X)))


def _begun(
    rows: MetricRows, atoms: Sequence[Manifold], settings: Settings, rng: np.random.Generator
) -> tuple[Fitted, Fitted | None]:
    """A rough fit without noise of a shape; where there is one beyond doubt, one with.

    What the first leaves has it, or its atoms have taken what noise alone explains better.
    Then the first comes second, as its rival. Where the number of factors is given, only the other.
    """
    if isinstance(settings.noise, Factors) or settings.noise == "isotropic":
        return fit_starts(rows, atoms, settings, rng), None

    def is_shaped(fitted: Fitted) -> bool:
        return not leaves_nothing(fitted, settings) and (
            better_noise(fitted, settings)[2] >= _out_of_reach(settings, len(rows.Z))
            or noise_alone_is_better(fitted.result.criterion, rows, settings))

    plain = fit_starts(rows, atoms, settings.plain(), rng, until=is_shaped)
    if plain.result.interrupted or not is_shaped(plain):
        return plain, None
    return fit_starts(rows, atoms, settings, rng, plain), plain


def _in_its_noise(
    fitted: Fitted, rival: Fitted | None, rows: MetricRows, settings: Settings,
    rng: np.random.Generator,
) -> Fitted:
    """The fit in the noise that it leaves, with no higher V than by isotropic noise.

    Where that has a shape, one that began without it competes with one whose starts expect it:
    noise that was chosen at rough curves can hold what better curves would explain.
    """
    found = replace(follow_noise(fitted, settings), tries=fitted.tries)
    if (found.result.interrupted or isinstance(settings.noise, Factors)
            or (rival is None and found.rows.noise.simpler() is None)):
        return found
    own = settings if fitted.rows.noise.simpler() is None else settings.plain()
    if rival is not None and rival.model.atoms == found.model.atoms:
        other = rival
    else:
        try:
            other = fit_starts(rows, fitted.model.atoms, own, rng,
                               fitted if own is settings else None)
        except InnerConvergenceError as error:
            logger.info("other starts were given up: %s", error)
            return found
    behind, tries = other.result.criterion - found.result.criterion, other.tries
    if behind < _out_of_reach(settings, len(rows.Z)) and not other.result.interrupted:
        other = settle(other, own)
        other = other if other.result.interrupted else follow_noise(other, settings)
    best = min(found, replace(other, tries=tries), key=lambda fit: fit.result.criterion)
    return stopped(best, other.result.status) if other.result.interrupted else best


def _shape(
    fitted: Fitted, settings: Settings, rng: np.random.Generator
) -> tuple[Fitted, Sequence[TopologyChoice]]:
    """Choose the topology of every atom of a joint fit, and fit again, until none changes."""
    choices: Sequence[TopologyChoice] = ()
    for _ in range(settings.policy.topology.rounds):
        # rows that the wrong shapes have drawn would spoil the choice of the others
        model = reassign(fitted.model, fitted.result.theta, fitted.result.rho,
                         settings.policy.encode)[0]
        fitted = rough_fit(model, settings, "rows reassigned") or fitted
        try:
            atoms, codes, choices = choose_topologies(fitted, settings, AUTO_TOPOLOGIES, rng)
        except KeyboardInterrupt as stop:
            return stopped(fitted, reason(stop)), choices
        if tuple(atoms) == fitted.model.atoms:
            break
        again = rough_fit(model_from_codes(fitted.rows, atoms, settings, codes), settings,
                          "atoms with chosen topologies")
        if again is None:
            break
        logger.info("topologies %s: V = %.4f, before %.4f", [atom.name for atom in atoms],
                    again.result.criterion, fitted.result.criterion)
        fitted = again
    return fitted, choices


def _improve(fitted: Fitted, context: Context) -> tuple[Fitted, list[MoveRecord]]:
    """Try all moves; where one has changed the fit, it is settled before the next is tried.

    Moves are judged against the present V, and an atom is begun anew where it is settled only.
    Where several atoms explain nothing, which a move names, none is asked whether a flat would do.
    """
    records: list[MoveRecord] = []
    for move in MOVES:
        if not fitted.result.interrupted and move.applies(fitted, context):
            context.settings.stages.enter(f"move: {move.kind}")
            before = fitted
            fitted, found = try_move(move, fitted, context)
            records += found
            if move.names_only and found and len(fitted.model.atoms) > 1:
                break
            if fitted is not before and not fitted.result.interrupted:
                fitted = settle(fitted, context.settings)
    return fitted, records
