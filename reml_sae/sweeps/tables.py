"""A state on the device: what is computed once a sweep, before any row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reml_sae.sweeps.backend import Backend, DeviceArray
from reml_sae.sweeps.nodes import (
    Fineness,
    amplitude_rule,
    check_nodes,
    coordinate_rule,
    sharp_spacing,
)
from reml_sae.sweeps.state import SweepKind, SweepState
from reml_sae.typing import Array, Index

SHARPEST = 32.0
"""Twice the squared distance, in standard deviations, at which a row of a flat may lie: the density
of its log amplitude is as sharp as that of a row on a curve of this squared length over phi."""


@dataclass(frozen=True, eq=False)
class Nodes:
    """Nodes of the atoms of a kind.

    Attributes
    ----------
    points : (G, d) coordinates, on the host
    curve : (G, M - 1) basis without its constant
    logs : (G,) log weights
    lengths : (k, G) squared lengths |y|^2 over phi
    """

    points: Array
    curve: DeviceArray
    logs: DeviceArray
    lengths: DeviceArray


@dataclass(frozen=True, eq=False)
class KindTables:
    """The atoms of a kind.

    Attributes
    ----------
    atoms : (k,) numbers among all atoms, on the host
    decoders : (k, M, p)
    squares : (k,) |c|^2 over phi
    crossed : (k, M - 1) products of curve and constant
    fine, coarse : Nodes
    """

    atoms: Index
    decoders: DeviceArray
    squares: DeviceArray
    crossed: DeviceArray
    fine: Nodes
    coarse: Nodes

    @property
    def latent_dim(self) -> int:
        """Coordinates of an atom."""
        return self.fine.points.shape[1]

    @property
    def sum_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of what is summed of a row: the mass on the nodes times a, and times a^2."""
        return (len(self.fine.logs),), (len(self.fine.logs),)

    def expected(self, first: Array, second: Array, crossed: Array, backend: Backend
                 ) -> tuple[Array, Array, Array]:
        """Sums of E[a phi] (k, M - 1), E[a^2 phi phi^T] and x E[f]^T, from those over nodes."""
        curve = backend.numpy(self.fine.curve).astype(float)
        squares = np.einsum("gm,kg,gl->kml", curve, second, curve, optimize=True)
        return first @ curve, np.asarray(squares), crossed


@dataclass(frozen=True, eq=False)
class FlatTables:
    """The flats of a kind, whose coordinates are integrated in closed form.

    Attributes
    ----------
    atoms : (k,) numbers among all atoms, on the host
    decoders : (k, q + 1, p)
        The constant, and axes that are turned so that they are orthogonal.
    squares : (k,) |c|^2 over phi
    crossed : (k, q) products of axes and constant
    lengths : (k, q) squared lengths of the axes over phi
    turns : (k, q, q) array, on the host
        Coordinates on the atoms' own axes are these matrices times those on the orthogonal ones.
    """

    atoms: Index
    decoders: DeviceArray
    squares: DeviceArray
    crossed: DeviceArray
    lengths: DeviceArray
    turns: Array

    @property
    def latent_dim(self) -> int:
        """Coordinates of an atom."""
        return self.turns.shape[1]

    @property
    def sum_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of what is summed of a row: E[a t], and E[a^2 t t^T]."""
        q = self.latent_dim
        return (q,), (q, q)

    def expected(self, first: Array, second: Array, crossed: Array, backend: Backend
                 ) -> tuple[Array, Array, Array]:
        """Sums of E[a t] (k, q), E[a^2 t t^T] and x E[f]^T, from those on the orthogonal axes."""
        back = self.turns.transpose(0, 2, 1)
        turned = np.concatenate([crossed[:, :, :1], crossed[:, :, 1:] @ back], axis=2)
        return (self.turns @ first[:, :, None])[:, :, 0], self.turns @ second @ back, turned


@dataclass(frozen=True, eq=False)
class SweepTables:
    """All atoms.

    Attributes
    ----------
    kinds : list of KindTables or FlatTables
    kind_of, place_of : (K,) kind of an atom and its place in it, on the device
    u, u_logs : (U,) log amplitudes and log weights, on the host
    precision, alpha : float
        1 / phi, and the prior precision of log amplitudes.
    """

    kinds: list[KindTables | FlatTables]
    kind_of: DeviceArray
    place_of: DeviceArray
    u: Array
    u_logs: Array
    precision: float
    alpha: float


def make_tables(
    state: SweepState, backend: Backend, fineness: Fineness, longest: float
) -> SweepTables:
    """Tables of a state, for rows of at most this length.

    Raises
    ------
    InputError
        Where the coordinates of an atom have no nodes.
    """
    kind_of, place_of = np.zeros((2, state.n_atoms), np.int64)
    kinds, most, least = list[KindTables | FlatTables](), 0.0, np.inf
    for number, kind in enumerate(state.kinds):
        kind_of[kind.atoms], place_of[kind.atoms] = number, np.arange(len(kind.atoms))
        if kind.is_flat:
            kinds.append(_flat_tables(kind, state, number, backend))
            most = max(most, SHARPEST)
            continue
        check_nodes(kind.manifold)
        own, peaks = _kind_tables(kind, state, number, backend, fineness)
        kinds.append(own)
        most, least = max(most, peaks.max()), min(least, peaks.min())
    reach = longest / np.sqrt(state.dispersion * max(least, 1e-12)) + 1.0
    if any(kind.manifold.gaussian_axes for kind in state.kinds):
        reach = np.inf  # a coordinate near that of the centre makes up for any amplitude
    u, u_logs = amplitude_rule(state, most, reach, fineness)
    return SweepTables(kinds, backend.array(kind_of, backend.xp.int64),
                       backend.array(place_of, backend.xp.int64), u, u_logs,
                       1.0 / state.dispersion, state.amplitude_precision)


def _flat_tables(
    kind: SweepKind, state: SweepState, number: int, backend: Backend
) -> FlatTables:
    B, phi = state.decoders[number], state.dispersion
    axes = B[:, 1:]
    lengths, turns = np.linalg.eigh(axes @ axes.transpose(0, 2, 1))
    turned = np.concatenate([B[:, :1], turns.transpose(0, 2, 1) @ axes], axis=1)
    crossed = np.einsum("kqp,kp->kq", turned[:, 1:], B[:, 0])
    turned, squares, crossed, lengths = map(backend.array, (
        turned, (B[:, 0] ** 2).sum(axis=1) / phi, crossed, np.maximum(lengths, 0.0) / phi))
    return FlatTables(kind.atoms, turned, squares, crossed, lengths, turns)


def _kind_tables(
    kind: SweepKind, state: SweepState, number: int, backend: Backend, fineness: Fineness
) -> tuple[KindTables, Array]:
    B, manifold, phi = state.decoders[number], kind.manifold, state.dispersion
    spacing = sharp_spacing(kind, state, number, fineness)
    grams = B @ B.transpose(0, 2, 1)
    nodes = []
    for most in (fineness.most(manifold), fineness.fewest(manifold)):
        points, logs = coordinate_rule(manifold, spacing, most)
        curve = manifold.basis(points)[:, 1:]
        lengths = np.einsum("gm,kml,gl->kg", curve, grams[:, 1:, 1:], curve, optimize=True) / phi
        nodes.append(Nodes(points, *map(backend.array, (curve, logs, lengths))))
    peaks = np.asarray(backend.numpy(nodes[0].lengths).max(axis=1), float)
    own = map(backend.array, (B, grams[:, 0, 0] / phi, grams[:, 0, 1:]))
    return KindTables(kind.atoms, *own, *nodes), peaks
