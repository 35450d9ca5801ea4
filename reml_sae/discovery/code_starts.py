"""Codes from which a fit starts: the linear relaxation, with coordinates for every topology.

Where a row uses one atom, `find_starts` clusters the rows by rings and flats; where it uses
several, `block_dictionary` finds a frame for every atom and each row's scores in it, or
`unmixed_blocks` where most rows use most atoms. A ring gives
the angle of a circle and a flat the scores of a Euclidean atom; the coordinates of every other
topology are found on the atom's own scores by `latent_grid_starts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reml_sae.assignments import Assignment
from reml_sae.discovery.encode import hard_shares
from reml_sae.discovery.pursuit import Candidate
from reml_sae.manifolds import Manifold
from reml_sae.relaxations.block_start import BlockStart, ring_amplitudes
from reml_sae.relaxations.dictionary import block_dictionary
from reml_sae.relaxations.latent_grid import latent_grid_starts, nearest_coordinates
from reml_sae.relaxations.loops import loop_angles
from reml_sae.relaxations.pieces import Start, find_starts
from reml_sae.relaxations.unmixing import unmixed_blocks
from reml_sae.typing import Array

LEAST_ROWS = 8
"""Fewer rows than this have no shape to look for."""
NEIGHBOUR_SHARES = (0.04, 0.2)
EXTRA_AXES = 4
SHELLS = {("circle", 2), ("sphere", 3)}
"""Topologies whose scores in so many dimensions have a length that varies little."""
WIDE = 5
"""A circle that spans more dimensions than this is looked for by all of them too."""


@dataclass(frozen=True)
class CodeStart:
    """One start.

    Attributes
    ----------
    codes : Candidate
        Support, amplitudes and coordinates of all rows.
    explained : float or None
        Share of the variance that the linear relaxation explains, comparable between starts; None
        for a start that must be ranked by the criterion alone.
    """

    codes: Candidate
    explained: float | None

    @property
    def labels(self) -> NDArray[np.intp]:
        """The atom (N,) that a row uses most."""
        return np.where(self.codes.support, self.codes.amplitudes, 0.0).argmax(axis=1)


def find_code_starts(
    Z: Array, atoms: Sequence[Manifold], assignment: Assignment, n_init: int,
    rng: np.random.Generator,
) -> list[CodeStart]:
    """Find starts for centred data (N, p) in units of their root mean square.

    At least one; the best explained first, then those that only the criterion can rank.
    """
    several = assignment.most_active
    if assignment.is_mixture or several == 1 or len(atoms) == 1:
        found = _partition_starts(Z, atoms, n_init, rng)
        if len(atoms) == 1:
            return found
        dims = [atom.linear_dim for atom in atoms]
        spans = [atom.basis_size - 1 if atom.name == "circle" else atom.linear_dim
                 for atom in atoms]
        blocks: list[CodeStart] = []
        if sum(dims) > Z.shape[1]:
            blocks = _block_starts(Z, atoms, dims, 1, True, n_init, rng)
        if max(spans) > WIDE and sum(spans) <= Z.shape[1]:
            # circles of many harmonics: the rings of their first one say little
            wide = _block_starts(Z, atoms, spans, 1, True, 1, rng)
            blocks += [replace(start, explained=None) for first in wide
                       for start in (first, *_along_loops(Z, atoms, spans, first, rng))]
        return found + [_with_shares(start) if assignment.is_mixture else start
                        for start in blocks]
    exact = assignment.least_active == several
    dims = [atom.linear_dim for atom in atoms]
    return _block_starts(Z, atoms, dims, several, exact, n_init, rng)


def _partition_starts(
    Z: Array, atoms: Sequence[Manifold], n_init: int, rng: np.random.Generator
) -> list[CodeStart]:
    starts = find_starts(
        Z, [atom.latent_dim for atom in atoms], [atom.linear_dim for atom in atoms],
        ["circle" if atom.name == "circle" else "euclidean" for atom in atoms], n_init, rng)
    if len(atoms) == 1 and not _is_simple(atoms[0]):
        grids = latent_grid_starts(leading_scores(Z, atoms[0])[0], atoms[0], n_init, rng)
        return [_single(start.coordinates, None) for start in grids]
    found = [_from_partition(Z, atoms, start, rng) for start in starts]
    if len(atoms) == 1 and atoms[0].name == "circle":
        angles = [loop_angles(Z, share, rng) for share in NEIGHBOUR_SHARES]
        found += [_single(t[:, None], None) for t in angles if t is not None]
    return found


def _single(coordinates: Array, explained: float | None) -> CodeStart:
    n = len(coordinates)
    return CodeStart(Candidate(np.ones((n, 1), bool), np.ones((n, 1)), coordinates), explained)


def _from_partition(
    Z: Array, atoms: Sequence[Manifold], start: Start, rng: np.random.Generator
) -> CodeStart:
    support = start.labels[:, None] == np.arange(len(atoms))
    coordinates = []
    for k, atom in enumerate(atoms):
        if _is_simple(atom):
            coordinates.append(start.coordinates[k])
        else:
            rows = np.flatnonzero(support[:, k])
            scores, axes, centre = leading_scores(Z[rows], atom)
            coordinates.append(_place(scores, (Z - centre) @ axes.T, rows, atom, rng))
    shares = hard_shares(start.labels, len(atoms))
    return CodeStart(Candidate(support, shares, np.concatenate(coordinates, axis=1)),
                     start.explained)


def _is_simple(atom: Manifold) -> bool:
    """Whether rings and flats give the coordinates themselves."""
    return atom.name in ("circle", "euclidean")


def leading_scores(Z: Array, atom: Manifold) -> tuple[Array, Array, Array]:
    """Scores (n, r) of rows on their leading axes (r, p), and their centre (p,)."""
    centre = Z.mean(axis=0) if len(Z) else np.zeros(Z.shape[1])
    _, _, axes = np.linalg.svd(Z - centre, full_matrices=False)
    axes = axes[: atom.linear_dim + EXTRA_AXES]
    return (Z - centre) @ axes.T, axes, centre


def _place(
    own: Array, everyone: Array, rows: NDArray[np.intp], atom: Manifold,
    rng: np.random.Generator,
) -> Array:
    """Coordinates (N, d) of all rows from the scores of the rows that use the atom."""
    if len(rows) < LEAST_ROWS:
        return np.repeat(atom.grid(1)[:1], len(everyone), axis=0)
    best = latent_grid_starts(own, atom, 1, rng)[0]
    coordinates = nearest_coordinates(everyone, atom, best.coefficients)[0]
    coordinates[rows] = best.coordinates
    return coordinates


def _block_starts(
    Z: Array, atoms: Sequence[Manifold], dims: Sequence[int], n_active: int, exact: bool,
    n_init: int, rng: np.random.Generator,
) -> list[CodeStart]:
    dims = [min(dim, Z.shape[1]) for dim in dims]
    shells = [(atom.name, dim) in SHELLS for atom, dim in zip(atoms, dims, strict=True)]
    complete = n_active > 1 and sum(dims) <= Z.shape[1]
    if complete and exact and 2 * n_active > len(atoms):
        found = unmixed_blocks(Z, dims, n_active, n_init, rng, exact=exact, shell=shells)
        return [_from_blocks(atoms, start, rng) for start in found]
    found = block_dictionary(Z, dims, n_active, n_init, rng, exact=exact, shell=shells)
    starts = [_from_blocks(atoms, start, rng) for start in found]
    if complete and not exact:
        # it can beat the dictionary where many rows use most atoms, but explains a little less
        found = unmixed_blocks(Z, dims, n_active, 1, rng, exact=exact, shell=shells)
        starts += [replace(_from_blocks(atoms, start, rng), explained=None) for start in found]
    return starts


def _from_blocks(
    atoms: Sequence[Manifold], start: BlockStart, rng: np.random.Generator
) -> CodeStart:
    amplitudes, angles = ring_amplitudes(start)
    amplitudes = np.where(start.support, amplitudes, 0.0)
    coordinates = []
    for k, atom in enumerate(atoms):
        rows = np.flatnonzero(start.support[:, k])
        scores = start.scores[k]
        if atom.name == "circle" and scores.shape[1] == 2:
            coordinates.append(angles[k][:, None])
        elif atom.name == "euclidean":
            scale = np.sqrt((scores[rows] ** 2).mean(0)) if len(rows) else 1.0
            t = scores / np.maximum(scale, 1e-12)
            coordinates.append(t[:, : atom.latent_dim])
            amplitudes[rows, k] = 1.0
        else:
            coordinates.append(_place(scores[rows], scores, rows, atom, rng))
            amplitudes[rows, k] = 1.0
    return CodeStart(Candidate(start.support, amplitudes, np.concatenate(coordinates, axis=1)),
                     start.explained)


def _along_loops(
    Z: Array, atoms: Sequence[Manifold], spans: Sequence[int], start: CodeStart,
    rng: np.random.Generator,
) -> list[CodeStart]:
    """The start with the angles of its wide circles read off the neighbours of their own rows."""
    found = []
    for share in NEIGHBOUR_SHARES:
        coordinates, column = start.codes.coordinates.copy(), 0
        for k, (atom, span) in enumerate(zip(atoms, spans, strict=True)):
            rows = np.flatnonzero(start.codes.support[:, k])
            if atom.name == "circle" and span > WIDE and len(rows) >= LEAST_ROWS:
                angles = loop_angles(Z[rows], share, rng)
                if angles is not None:
                    coordinates[rows, column] = angles
            column += atom.latent_dim
        found.append(replace(start, codes=replace(start.codes, coordinates=coordinates)))
    return found


def _with_shares(start: CodeStart) -> CodeStart:
    """The same start with shares of the most used atom for amplitudes."""
    shares = hard_shares(start.labels, start.codes.support.shape[1])
    return replace(start, codes=replace(start.codes, amplitudes=shares))
