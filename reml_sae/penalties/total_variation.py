"""Smoothed total variation along a sequence or a graph.

    P = w sum over edges (u, v) and axes of [s(t_v - t_u) - eps],   s(x) = sqrt(x^2 + eps^2)

With e edges and no cycle, the differences D t are free coordinates, D the (e, n) incidence
matrix. On the complement of the constants of each component dt = d(D t) / sqrt(|D D^T|); by the
matrix-tree theorem |D D^T| is the product of the components' sizes (one spanning tree each), so

    log C = e d log(2 eps K_1(w eps) e^(w eps)) - (d / 2) sum over components of log(size)

A graph with a cycle constrains its differences; its normaliser is not known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np

from reml_sae.errors import InputError
from reml_sae.penalties import _fields
from reml_sae.penalties._curvature import RowCurvature
from reml_sae.penalties._edges import (
    EdgePenalty,
    component_means,
    components,
    induced_edges,
    node_count,
)
from reml_sae.penalties._elementwise import smooth_abs
from reml_sae.penalties._registry import register
from reml_sae.penalties._smooth_l1 import log_centred_partition
from reml_sae.typing import Array, Index


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class TotalVariationPenalty(EdgePenalty):
    """Smooth L1 norm of differences between rows; target: coordinates (n, d).

    Parameters
    ----------
    latent_dim : int
        d >= 1.
    eps : float
        Differences well below it are penalised as squares.
    difference : {"forward_1d", "graph_edges"}
        Between consecutive rows, or along ``edges``.
    edges : (e, 2) array of int, optional
        Pairs of rows, for ``graph_edges`` alone.
    n_nodes : int, optional
        Rows of the graph; by default the largest index in ``edges`` plus one.
    weight, weight_schedule, learnable
        See `Penalty`. Learnable where the graph has no cycle.
    """

    eps: float = 1e-3
    difference: str = "forward_1d"
    edges: Index | None = None
    n_nodes: int | None = None

    KIND_TAG: ClassVar[str] = "total_variation"
    PYTHON_WRAPPER: ClassVar[str] = "TotalVariationPenalty"
    FORMULA: ClassVar[str] = (
        "w sum_edges sum_axes [s(t_v - t_u) - eps],  s(x) = sqrt(x^2 + eps^2);  edges: consecutive "
        "rows (forward_1d) or given (graph_edges)"
    )

    def __post_init__(self) -> None:
        _fields.positive("eps", self.eps)
        _fields.choice("difference", self.difference, ("forward_1d", "graph_edges"))
        if self.difference == "graph_edges":
            if self.edges is None:
                raise InputError("edges are needed where difference is 'graph_edges'")
            object.__setattr__(self, "edges", _fields.edge_list("edges", self.edges))
            node_count(self._pairs, self.n_nodes)
        elif self.edges is not None or self.n_nodes is not None:
            name = "n_nodes" if self.edges is None else "edges"
            raise InputError(f"{name}: only difference='graph_edges' takes them; 'forward_1d' "
                             "is the chain of the target's rows")
        super().__post_init__()

    @property
    def _pairs(self) -> Index:
        """The edges of a graph."""
        assert self.edges is not None
        return self.edges

    @cached_property
    def _components(self) -> tuple[Index, Index]:
        """Component of every row of the graph, and the size of every component."""
        return components(self._pairs, node_count(self._pairs, self.n_nodes))

    @property
    def _sizes(self) -> Index:
        return self._components[1]

    @property
    def is_normalised(self) -> bool:
        """Where there is no cycle: a chain, a tree or a forest."""
        return self.edges is None or len(self.edges) == (self._sizes - 1).sum()

    def null_space(self, n_rows: int) -> RowCurvature:
        """Projector on what is constant within components."""
        labels = np.zeros(n_rows, np.intp) if self.edges is None else self._components[0]
        return component_means(self.KIND_TAG, labels, np.eye(self.latent_dim))

    def n_rows_expected(self) -> int | None:
        """Rows of the graph; None along a sequence."""
        return None if self.edges is None else node_count(self.edges, self.n_nodes)

    def restrict(self, index: Index, n_rows: int) -> Self:
        """The penalty on the subgraph of some rows; a sequence closes up."""
        if self.edges is None:
            return self
        edges, _ = induced_edges(self.edges, index, n_rows)
        return replace(self, edges=edges, n_nodes=len(index))

    def ends(self, n: int) -> tuple[Index, Index]:
        """Rows u and v of the edges."""
        return super().ends(n) if self.edges is None else (self.edges[:, 0], self.edges[:, 1])

    def profile(self, x: Array, order: int) -> Array:
        """s(x) - eps, without cancellation, and its derivatives."""
        if order == 0:
            return x * (x / (np.hypot(x, self.eps) + self.eps))
        return smooth_abs(x, self.eps, order)

    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array] | None:
        """Log of int exp(-P) on the complement of the constants of each component."""
        if not self.is_normalised:
            return None
        sizes = np.array([n_rows]) if self.edges is None else self._sizes
        n_differences = self.latent_dim * int((sizes - 1).sum())
        value, slope = map(float, log_centred_partition(np.array(self.strength(rho)), self.eps))
        total = n_differences * value - 0.5 * self.latent_dim * float(np.log(sizes).sum())
        return total, np.full(self.rho_count(), n_differences * slope)
