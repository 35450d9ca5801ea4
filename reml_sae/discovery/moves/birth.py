"""Births: how many atoms a model has.

A model with one atom more is fitted from starts of its own, not from the present model, so the
numbers are compared by V of rough fits. The judge of moves has no part in it: what comes near to
the present model it fits on by REML, which would lower V of the larger number alone and lean
towards it; and its fits call no callbacks, while births are most of a search.

Contract. An interrupt returns the best fit so far.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from reml_sae.discovery.first_fit import fit_starts
from reml_sae.discovery.fitting import Fitted, Settings, stopped
from reml_sae.discovery.metric import MetricRows
from reml_sae.errors import InnerConvergenceError, InputError
from reml_sae.manifolds import Manifold

logger = logging.getLogger("reml_sae")


def choose_n_atoms(
    rows: MetricRows, topology_for: Callable[[int], Sequence[Manifold]], settings: Settings,
    most: int, rng: np.random.Generator,
) -> tuple[Fitted, list[tuple[int, float]]]:
    """Choose the number of atoms: more of them while V falls by the margin.

    Parameters
    ----------
    rows : MetricRows
    topology_for : callable
        Atoms of a model with K of them.
    settings : Settings
        Numbers of atoms that its assignment does not allow are passed over.
    most : int
        Largest number that is tried.
    rng : numpy.random.Generator

    Returns
    -------
    fitted : Fitted
        Rough; the caller fits it on.
    table : list of (K, V)
        V in nats of the best rough fit of every number tried; infinite where none was usable.

    Raises
    ------
    InnerConvergenceError
        Where no number of atoms leads to a usable state.
    """
    policy = settings.policy.move
    # those of one atom too many hardly ever agree
    tried = settings.with_chains(policy.birth_chains)
    best: Fitted | None = None
    table: list[tuple[int, float]] = []
    since = 0
    for n_atoms in range(_fewest(settings, most), min(most, len(rows.Z) - 1) + 1):
        settings.stages.enter(f"fit of {n_atoms} atoms")
        try:
            found = fit_starts(rows, topology_for(n_atoms), tried, rng)
        except InnerConvergenceError as error:
            logger.info("%d atoms were given up: %s", n_atoms, error)
            table.append((n_atoms, np.inf))
            since += 1
        else:
            table.append((n_atoms, found.result.criterion))
            lower = best is None or found.result.criterion < best.result.criterion - policy.margin
            best, since = (found, 0) if lower else (best, since + 1)
            if found.result.interrupted:
                return stopped(best or found, found.result.status), table
        if since == policy.patience:
            break
    if best is None:
        raise InnerConvergenceError(
            f"no fit with {', '.join(str(n) for n, _ in table)} atoms reached a usable state; name "
            "n_atoms, or try another topology"
        )
    return best, table


def _fewest(settings: Settings, most: int) -> int:
    """Smallest number of atoms that the assignment allows."""
    for n_atoms in range(1, most):
        try:
            settings.assign(n_atoms)
        except InputError:
            continue
        return n_atoms
    return most
