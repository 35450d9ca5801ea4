"""Penalties on the differences of rows along the edges of a graph, and the graph's own counts.

    P = w sum over edges (u, v) and axes a of f(t_va - t_ua)

With delta the differences, f' goes to v with plus and to u with minus; f''(delta) stands in the
diagonal blocks of both ends and, negated, in the edge's block. So d <G, B> / d delta = w f''' (G_uu
+ G_vv - 2 G_uv)_aa. Where f is convex, B is the exact Hessian.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from reml_sae.errors import InputError
from reml_sae.penalties import _fields
from reml_sae.penalties._curvature import RowCurvature, RowInverse
from reml_sae.penalties._matrix import MatrixPenalty
from reml_sae.typing import Array, Curvature, Index

MOST_ENTRIES = 50_000_000
"""Numbers that the columns of a null space may hold."""


def sum_into(index: Index, values: Array, n: int) -> Array:
    """Sums (n, ...) of the values (e, ...) whose index is 0 .. n-1."""
    e, shape = len(index), values.shape[1:]
    place = csr_array((np.ones(e), (index, np.arange(e))), shape=(n, e))
    return (place @ values.reshape(e, int(np.prod(shape)))).reshape(n, *shape)


def node_count(edges: Index, n_nodes: int | None) -> int:
    """Rows of the graph: ``n_nodes``, or as many as the edges name."""
    named = int(edges.max()) + 1
    if n_nodes is None:
        return named
    if _fields.integer("n_nodes", n_nodes, 1) < named:
        raise InputError(f"n_nodes = {n_nodes}, but edges name row {named - 1}")
    return n_nodes


def components(edges: Index, n: int) -> tuple[Index, Index]:
    """Component of every row, (n,), and the size of every component."""
    graph = csr_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n))
    count, labels = connected_components(graph, directed=False)
    return labels.astype(np.intp), np.bincount(labels, minlength=count)


def induced_edges(edges: Index, index: Index, n: int) -> tuple[Index, Index]:
    """Edges between the rows of ``index``, in the places of that list, and which edges they are.

    Raises
    ------
    InputError
        Where there are none.
    """
    place = np.full(n, -1, np.intp)
    place[index] = np.arange(len(index))
    inside = place[edges]
    kept = np.flatnonzero((inside >= 0).all(axis=1))
    if not kept.size:
        raise InputError("edges: none of them lies within the chosen rows")
    return inside[kept], kept


def component_means(kind: str, labels: Index, axes: Array) -> RowCurvature:
    """Projector on rows that are the same within components, along orthonormal axes (k, d).

    Raises
    ------
    InputError
        Where there are too many components.
    """
    n, (k, d) = len(labels), axes.shape
    sizes = np.bincount(labels)
    alone = sizes[labels] == 1
    blocks = alone[:, None, None] * (axes.T @ axes)
    several = np.flatnonzero(sizes > 1)
    check_columns(kind, len(several) * k, n * d)
    columns = np.zeros((len(several), k, n, d))
    for out, label in zip(columns, several, strict=True):
        out[:, labels == label] = axes[:, None] / np.sqrt(sizes[label])
    return RowCurvature(blocks, columns=columns.reshape(len(several) * k, n, d),
                        core=np.eye(len(several) * k))


def check_columns(kind: str, count: int, size: int) -> None:
    """Refuse a null space that couples rows in too many directions.

    Raises
    ------
    InputError
        Naming the kind.
    """
    if count * size > MOST_ENTRIES:
        raise InputError(
            f"{kind} leaves {count} directions of the coordinates free, and the prior of these "
            f"couples rows with {count * size} numbers, the limit is {MOST_ENTRIES}; use fewer "
            "rows, or join the parts of the graph")


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgePenalty(MatrixPenalty):
    """A sum of one convex function f over differences; a subclass gives `profile`.

    The edges are the chain 0-1-..-(n-1) unless a subclass overrides `ends`.
    """

    latent_dim: int

    def __post_init__(self) -> None:
        _fields.integer("latent_dim", self.latent_dim, 1)
        super().__post_init__()

    def width(self) -> int:
        """The dimension d."""
        return self.latent_dim

    @abstractmethod
    def profile(self, x: Array, order: int) -> Array:
        """Derivative of f at x, of order 0 to 3."""

    def ends(self, n: int) -> tuple[Index, Index]:
        """Rows u and v of the edges of a target with n rows."""
        return np.arange(n - 1), np.arange(1, n)

    def _profile(self, target: Array, rho: Array, order: int) -> tuple[Array, Index, Index, int]:
        """W times the derivative of f on the edges (e, d), the ends of the edges, and n."""
        t = self.rows(target)
        heads, tails = self.ends(len(t))
        f = self.strength(rho) * self.profile(t[tails] - t[heads], order)
        return f, heads, tails, len(t)

    def value(self, target: Array, rho: Array) -> float:
        """P, strength folded in."""
        return float(self._profile(target, rho, 0)[0].sum())

    def row_gradient(self, target: Array, rho: Array) -> Array:
        """Gradient, (n, d)."""
        slope, heads, tails, n = self._profile(target, rho, 1)
        return sum_into(tails, slope, n) - sum_into(heads, slope, n)

    def curvature(self, target: Array, rho: Array, which: Curvature) -> RowCurvature:
        """Diagonal blocks and edges; the majorizer is the Hessian."""
        bend, heads, tails, n = self._profile(target, rho, 2)
        eye = np.eye(self.latent_dim)
        diagonal = sum_into(tails, bend, n) + sum_into(heads, bend, n)
        return RowCurvature(diagonal[:, :, None] * eye, heads, tails, -bend[:, :, None] * eye)

    def curvature_vjp(
        self, target: Array, rho: Array, G: RowInverse, which: Curvature
    ) -> Array:
        """Gradient (n, d) of <G, B> in the target."""
        third, heads, tails, n = self._profile(target, rho, 3)
        local = np.einsum("naa->na", G.blocks)
        third = third * (local[heads] + local[tails] - 2.0 * np.einsum("eaa->ea", G.edges))
        return sum_into(tails, third, n) - sum_into(heads, third, n)
