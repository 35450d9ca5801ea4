"""Where sweeps begin, and which atoms begin again at rows that are explained worst."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

import numpy as np

from reml_sae.manifolds import Manifold
from reml_sae.sweeps.backend import Backend, DeviceArray
from reml_sae.sweeps.policy import SweepPolicy
from reml_sae.sweeps.rows import RowCodes, SweepSums
from reml_sae.sweeps.seeds import Near, nearest_flats, seed_flats
from reml_sae.sweeps.state import SweepState, kinds_of_atoms
from reml_sae.sweeps.update import LEAST_NOISE

LEAST_NEAR = 6
SURE, BOLD = 0.5, 3.0
"""Nats that rows may need of an atom which is moved, over those that are lost at its new place."""


def begun(
    X: DeviceArray, atoms: Sequence[Manifold], near: Near, rng: np.random.Generator,
    policy: SweepPolicy, backend: Backend,
) -> SweepState:
    """A state at seeds."""
    square = backend.numpy(backend.xp.sum(X * X, axis=1)).astype(float)
    flats = seed_flats(X, [atom.linear_dim for atom in atoms], square, near, rng, policy, backend,
                       _n_near(len(X), len(atoms), policy))
    left = nearest_flats(X, flats, backend)[1]
    kinds = kinds_of_atoms(atoms)
    return SweepState(
        kinds, tuple(np.stack([flats[k].decoder(kind.manifold) for k in kind.atoms])
                     for kind in kinds),
        tuple(np.ones(len(kind.atoms)) for kind in kinds),
        max(float(left.mean()) / X.shape[1], LEAST_NOISE), float(np.exp(policy.log_amplitudes)))


def _n_near(n_rows: int, n_atoms: int, policy: SweepPolicy) -> int:
    """Rows through which a seed is laid."""
    return min(max(int(policy.seed_share * n_rows / n_atoms), LEAST_NEAR), n_rows)


def moved(
    X: DeviceArray, state: SweepState, sums: SweepSums, codes: RowCodes, most: int,
    bold: bool, shunned: Set[int], rng: np.random.Generator, policy: SweepPolicy, backend: Backend,
) -> tuple[SweepState, list[int]]:
    """The state with at most so many of the least needed atoms where rows are worst explained.

    Parameters
    ----------
    X : (n, p) rows on the device
    state, sums, codes
        Of these rows.
    most : int
    bold : bool
        Whether an atom may be moved that is needed more than what the place might gain: its rows
        may find others, as where two atoms have an arc of a curve each.
    shunned : set of int
        Atoms by whose rows nothing was gained.
    rng : numpy.random.Generator
    policy : SweepPolicy
    backend : Backend

    Returns
    -------
    The state, and the atoms by whose rows others begin again: none where every atom is needed too
    much for what another place might gain.
    """
    excess = np.maximum(codes.values - np.median(codes.values), 0.0)
    lost = np.bincount(codes.labels, weights=excess, minlength=state.n_atoms)
    kinds = [np.asarray(decoders).copy() for decoders in state.decoders]
    donors = np.argsort(sums.needs, kind="stable")
    worst = [int(k) for k in np.argsort(-lost, kind="stable") if k not in shunned]
    places: list[int] = []
    for donor, place in zip(donors[:most], worst, strict=False):
        rows = np.flatnonzero(codes.labels == place)
        needed = sums.needs[donor] > (BOLD if bold else SURE) * lost[place]
        if needed or donor == place or len(rows) < LEAST_NEAR:
            break
        number, kind = next((j, kind) for j, kind in enumerate(state.kinds) if donor in kind.atoms)
        near: Near = "angle" if len(places) % 2 == 0 else "distance"
        flat = seed_flats(X[rows], [kind.manifold.linear_dim], excess[rows], near, rng, policy,
                          backend, min(_n_near(len(X), state.n_atoms, policy), len(rows)))[0]
        kinds[number][np.flatnonzero(kind.atoms == donor)[0]] = flat.decoder(kind.manifold)
        places.append(place)
    return replace(state, decoders=tuple(kinds)), places
