"""Candidate codes of rows that use several atoms: a pursuit over the atoms' curves.

The dictionary is a grid of points of every atom at the present decoders, in the metric of the
columns' weights; `encode` refines the candidates and compares them by their evidence. Where atoms
have noises of their own, squares in different metrics say nothing of each other: every metric has
its own candidates, of its own atoms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.policy import EncodePolicy
from reml_sae.engine import Theta
from reml_sae.manifolds import Manifold
from reml_sae.models import SAEManifoldModel
from reml_sae.models.sae.start import column_weights
from reml_sae.relaxations.pursuit import AmplitudePrior, CurveDictionary, pursue_rows
from reml_sae.typing import Array, Index

CHUNK_ELEMENTS = 4_000_000
"""Rows times grid points that are held at once: memory, not a choice."""


def atom_grid(atom: Manifold, policy: EncodePolicy) -> Array:
    """Coordinates (n, d) that cover an atom."""
    return atom.grid(policy.grid_curve if atom.latent_dim == 1 else policy.grid_surface)


def pursue(
    model: SAEManifoldModel, theta: Theta, rho: Array, policy: EncodePolicy
) -> list[Candidate]:
    """Candidates of every number of atoms that a row may use; the best two of the largest."""
    groups = model.noise.atom_metrics(len(model.atoms))
    out: list[Candidate] = []
    for metric in range(model.noise.n_metrics):
        rows = model if model.noise.n_metrics == 1 else model.in_metric(metric)
        out += _pursued(rows, theta, rho, policy, np.flatnonzero(groups == metric))
    return out


def _pursued(
    model: SAEManifoldModel, theta: Theta, rho: Array, policy: EncodePolicy, chosen: Index
) -> list[Candidate]:
    """Candidates of rows in one metric, of the chosen atoms."""
    grids = [atom_grid(atom, policy) for atom in model.atoms]
    weights = np.sqrt(column_weights(model, theta, rho))
    dictionary = _dictionary(model, theta, rho, grids, weights, policy, chosen)
    n, n_atoms = model.active.shape
    intercept = theta.beta[-1] if model.layout.has_intercept else 0.0
    target = (model.working - intercept) * weights
    least, most = model.assignment.least_active, model.assignment.most_active
    luck = float(np.log(n * n_atoms))
    step = max(1, CHUNK_ELEMENTS // max(1, len(dictionary.points)))
    chunks = []
    for start in range(0, n, step):
        slots = pursue_rows(dictionary, target[start : start + step], least, most, luck,
                            policy.pursuit)
        chunks.append([_candidate(model, grids, chosen, dictionary.first, *part)
                       for part in slots])
    return _joined(chunks)


def _dictionary(
    model: SAEManifoldModel, theta: Theta, rho: Array, grids: Sequence[Array], weights: Array,
    policy: EncodePolicy, chosen: Index,
) -> CurveDictionary:
    """Points of the chosen atoms in the metric of the columns' weights (p,)."""
    slices = [model.layout.basis_slices[k] for k in chosen]
    atoms = [model.atoms[k] for k in chosen]
    centres = weights * np.stack([theta.beta[where.start] for where in slices])
    points = [atom.basis(grids[k]) @ theta.beta[where] * weights - centre for k, atom, where, centre
              in zip(chosen, atoms, slices, centres, strict=True)]
    lowest, highest = _amplitude_range(model, rho, policy.amplitude_width)
    prior = AmplitudePrior(lowest, highest, _amplitude_precision(model, rho),
                           model.opening_costs(rho)[chosen])
    return CurveDictionary(points, model.assignment.whole_constants(centres),
                           [atom.linear_dim for atom in atoms], prior)


def _amplitude_precision(model: SAEManifoldModel, rho: Array) -> float:
    """Precision of log a; of z under threshold gates, taken where a is near one."""
    for term in model.terms:
        if term.target == "amplitudes":
            return float(np.mean(term.penalty.strengths(term.rho(rho))))
    return 0.0


def _amplitude_range(
    model: SAEManifoldModel, rho: Array, width: float
) -> tuple[float, float]:
    spread = width / np.sqrt(max(_amplitude_precision(model, rho), 1e-12))
    if not model.assignment.is_log_normal:
        return float(np.log(0.5)), 3.0
    return max(-spread, -5.0), min(spread, 5.0)


def _joined(chunks: list[list[Candidate]]) -> list[Candidate]:
    """Candidates of all rows; a chunk with fewer of them than another repeats its last."""
    out = []
    for number in range(max(map(len, chunks))):
        parts = [chunk[min(number, len(chunk) - 1)] for chunk in chunks]
        out.append(Candidate(np.concatenate([part.support for part in parts]),
                             np.concatenate([part.amplitudes for part in parts]),
                             np.concatenate([part.coordinates for part in parts])))
    return out


def _candidate(
    model: SAEManifoldModel, grids: Sequence[Array], chosen: Index, first: Index, slots: Index,
    places: Index, amplitudes: Array,
) -> Candidate:
    n, atoms = len(slots), chosen[slots]
    support = np.zeros((n, len(grids)), bool)
    np.put_along_axis(support, atoms, True, 1)
    full = np.zeros((n, len(grids)))
    np.put_along_axis(full, atoms, amplitudes, 1)
    coordinates = np.zeros((n, model.layout.n_coordinates))
    for k, where in enumerate(model.layout.coordinate_slices):
        coordinates[:, where] = grids[k][0]
    for slot in range(atoms.shape[1]):
        for k, where in enumerate(model.layout.coordinate_slices):
            rows = np.flatnonzero(atoms[:, slot] == k)
            coordinates[rows, where] = grids[k][(places - first[slots])[rows, slot]]
    return Candidate(support, full, coordinates)
