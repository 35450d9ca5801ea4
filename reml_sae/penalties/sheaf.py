"""Consistency of stalks along the edges of a graph.

    P = (w / 2) sum over edges e = (u, v) of ||R_ue s_u - R_ve s_v||^2 = (w / 2) s^T L s
    log C = (r / 2) log 2 pi - (1 / 2) log |L|_+ - (r / 2) log w,   r = rank L

The sheaf Laplacian L is block diagonal over the connected components, so |L|_+ is found densely one
component at a time. Where every restriction is the same matrix R, L = L_graph (x) R^T R, and
    log |L|_+ = rank(R) log |L_graph|_+ + rank(L_graph) log |R^T R|_+
where the matrix-tree theorem gives |L_graph|_+ of a component as its size times the determinant
that is left when one row is struck out: one sparse factorisation, whatever the size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from scipy.sparse import csc_array
from scipy.sparse.linalg import splu

from reml_sae.errors import InputError
from reml_sae.penalties import _fields
from reml_sae.penalties._curvature import RowCurvature, RowInverse
from reml_sae.penalties._edges import (
    check_columns,
    component_means,
    components,
    induced_edges,
    node_count,
    sum_into,
)
from reml_sae.penalties._matrix import MatrixPenalty
from reml_sae.penalties._registry import register
from reml_sae.typing import Array, Curvature, Index

RANK_TOLERANCE = 1e-10
DENSE_LIMIT = 2000
"""Largest component, in entries, whose eigenvalues are taken densely."""
BATCH_ENTRIES = 2**23


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class SheafConsistencyPenalty(MatrixPenalty):
    """Squared disagreement of neighbours after restriction; target: stalks (n_nodes, d).

    Parameters
    ----------
    edges : (e, 2) array of int
        Pairs (u, v) of rows.
    restrictions_u, restrictions_v : (e, m, d) arrays
        R_u and R_v of every edge.
    n_nodes : int, optional
        Rows of the graph; by default the largest index in ``edges`` plus one.
    weight, weight_schedule, learnable
        See `Penalty`. Learnable where every component has at most 2000 entries or all
        restrictions are one matrix.
    """

    edges: Index
    restrictions_u: Array
    restrictions_v: Array
    n_nodes: int | None = None

    KIND_TAG: ClassVar[str] = "sheaf_consistency"
    PYTHON_WRAPPER: ClassVar[str] = "SheafConsistencyPenalty"
    FORMULA: ClassVar[str] = "w / 2 sum_{e = (u, v)} ||restrictions_u s_u - restrictions_v s_v||^2"

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", _fields.edge_list("edges", self.edges))
        for name in ("restrictions_u", "restrictions_v"):
            value = _fields.array(name, getattr(self, name), 3)
            if len(value) != len(self.edges) or not value.size:
                raise InputError(f"{name} must hold a matrix (m, d) for each of {len(self.edges)} "
                                 f"edges, got shape {value.shape}")
            object.__setattr__(self, name, value)
        if self.restrictions_v.shape != self.restrictions_u.shape:
            raise InputError(f"restrictions_v has shape {self.restrictions_v.shape}, "
                             f"restrictions_u {self.restrictions_u.shape}; they must agree")
        node_count(self.edges, self.n_nodes)
        if not self.is_normalised and self.learnable is not False:
            raise InputError(
                f"learnable: a component of the graph has more than {DENSE_LIMIT} entries and the "
                "restrictions differ, so its normaliser is not available; set learnable=False"
            )
        super().__post_init__()

    def width(self) -> int:
        """The dimension d of a stalk."""
        return self.restrictions_u.shape[2]

    def n_rows_expected(self) -> int:
        """Rows of the graph."""
        return node_count(self.edges, self.n_nodes)

    def restrict(self, index: Index, n_rows: int) -> Self:
        """The penalty on the subgraph of some rows."""
        edges, kept = induced_edges(self.edges, index, n_rows)
        return replace(self, edges=edges, n_nodes=len(index),
                       restrictions_u=self.restrictions_u[kept],
                       restrictions_v=self.restrictions_v[kept])

    @property
    def is_normalised(self) -> bool:
        """Where the pseudo-determinant can be had."""
        return self._uniform or int(self._components[1].max()) * self.width() <= DENSE_LIMIT

    @property
    def is_quadratic(self) -> bool:
        """True."""
        return True

    @cached_property
    def _uniform(self) -> bool:
        """Whether all restrictions are one matrix."""
        one = self.restrictions_u[0]
        return bool((self.restrictions_u == one).all() and (self.restrictions_v == one).all())

    @cached_property
    def _components(self) -> tuple[Index, Index]:
        return components(self.edges, self.n_rows_expected())

    @cached_property
    def _unit(self) -> RowCurvature:
        """L."""
        ru, rv, n = self.restrictions_u, self.restrictions_v, self.n_rows_expected()
        heads, tails = self.edges.T
        blocks = sum_into(heads, ru.transpose(0, 2, 1) @ ru, n)
        blocks += sum_into(tails, rv.transpose(0, 2, 1) @ rv, n)
        return RowCurvature(blocks, heads, tails, -ru.transpose(0, 2, 1) @ rv)

    # --- value and derivatives ---------------------------------------------------------------

    def _disagreement(self, target: Array) -> Array:
        s = self.rows(target)
        ends = s[self.edges]
        return (np.einsum("emd,ed->em", self.restrictions_u, ends[:, 0])
                - np.einsum("emd,ed->em", self.restrictions_v, ends[:, 1]))

    def value(self, target: Array, rho: Array) -> float:
        """P, strength folded in."""
        return 0.5 * self.strength(rho) * float((self._disagreement(target) ** 2).sum())

    def row_gradient(self, target: Array, rho: Array) -> Array:
        """W L s, (n, d)."""
        r, n = self.strength(rho) * self._disagreement(target), self.n_rows_expected()
        to_u = np.einsum("emd,em->ed", self.restrictions_u, r)
        to_v = np.einsum("emd,em->ed", self.restrictions_v, r)
        return sum_into(self.edges[:, 0], to_u, n) - sum_into(self.edges[:, 1], to_v, n)

    def curvature(self, target: Array, rho: Array, which: Curvature) -> RowCurvature:
        """W L; the majorizer is the Hessian."""
        w = self.strength(rho)
        return replace(self._unit, blocks=w * self._unit.blocks, edges=w * self._unit.edges)

    def curvature_vjp(
        self, target: Array, rho: Array, G: RowInverse, which: Curvature
    ) -> Array:
        """Zero: the Hessian is constant."""
        return np.zeros_like(self.rows(target))

    # --- normaliser --------------------------------------------------------------------------

    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array] | None:
        """Log of int exp(-P) over the range of L; the graph knows its rows."""
        if not self.is_normalised:
            return None
        rank, log_det = self._spectrum
        value = 0.5 * (rank * (np.log(2.0 * np.pi) - np.log(self.strength(rho))) - log_det)
        return value, np.full(self.rho_count(), -0.5 * rank)

    def null_space(self, n_rows: int) -> RowCurvature | None:
        """Projector on the global sections; the graph knows its rows."""
        return self._sections

    @cached_property
    def _sections(self) -> RowCurvature | None:
        n, d, (labels, sizes) = self.n_rows_expected(), self.width(), self._components
        if self._uniform:
            values, axes = np.linalg.eigh(self.restrictions_u[0].T @ self.restrictions_u[0])
            seen = values > RANK_TOLERANCE * values[-1]
            within = component_means(self.KIND_TAG, labels, axes[:, seen].T)
            unseen = axes[:, ~seen] @ axes[:, ~seen].T
            return replace(within, blocks=within.blocks + unseen)
        blocks = (sizes[labels] == 1)[:, None, None] * np.eye(d)
        columns = []
        for label in np.flatnonzero(sizes > 1):
            rows = np.flatnonzero(labels == label)
            values, vectors = np.linalg.eigh(self._dense(rows))
            for vector in vectors[:, values <= RANK_TOLERANCE * values[-1]].T:
                columns.append(np.zeros((n, d)))
                columns[-1][rows] = vector.reshape(len(rows), d)
                check_columns(self.KIND_TAG, len(columns), n * d)
        if not columns and not blocks.any():
            return None
        return RowCurvature(blocks, columns=np.reshape(columns, (len(columns), n, d)),
                            core=np.eye(len(columns)))

    def _dense(self, rows: Index) -> Array:
        """L of one component, (m d, m d)."""
        unit, place = self._unit, np.full(self.n_rows_expected(), -1)
        place[rows] = np.arange(len(rows))
        inside = np.flatnonzero(place[unit.heads] >= 0)
        return RowCurvature(unit.blocks[rows], place[unit.heads[inside]],
                            place[unit.tails[inside]], unit.edges[inside]).to_dense()

    @cached_property
    def _spectrum(self) -> tuple[int, float]:
        """Rank and log pseudo-determinant of L."""
        return self._uniform_spectrum() if self._uniform else self._dense_spectrum()

    def _uniform_spectrum(self) -> tuple[int, float]:
        n, (labels, sizes) = self.n_rows_expected(), self._components
        rank, log_det = _log_pseudo_determinant(self.restrictions_u[0].T @ self.restrictions_u[0])
        heads, tails = self.edges.T
        degree = np.bincount(self.edges.ravel(), minlength=n)
        laplacian = csc_array(
            (np.concatenate([degree, -np.ones(2 * len(heads))]),
             (np.concatenate([np.arange(n), heads, tails]),
              np.concatenate([np.arange(n), tails, heads]))), shape=(n, n))
        kept = np.ones(n, bool)
        kept[np.unique(labels, return_index=True)[1]] = False
        struck = laplacian[kept][:, kept].tocsc()
        # positive definite: no pivoting, and the diagonal of U holds the pivots
        factor = splu(struck, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0,
                      options={"SymmetricMode": True})
        graph = float(np.log(np.abs(factor.U.diagonal())).sum() + np.log(sizes).sum())
        graph_rank = n - len(sizes)
        return graph_rank * rank, rank * graph + graph_rank * log_det

    def _dense_spectrum(self) -> tuple[int, float]:
        (labels, sizes), unit, d = self._components, self._unit, self.width()
        order = np.argsort(labels, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rank, log_det = 0, 0.0
        for size in np.unique(sizes[sizes > 1]):
            alike = np.flatnonzero(sizes == size)
            batch = max(1, BATCH_ENTRIES // (int(size) * d) ** 2)
            for start in range(0, len(alike), batch):
                some = alike[start : start + batch]
                number = np.full(len(sizes), -1)
                number[some] = np.arange(len(some))
                dense = np.zeros((len(some), size, d, size, d))
                rows = np.flatnonzero(number[labels] >= 0)
                dense[number[labels[rows]], place[rows], :, place[rows], :] = unit.blocks[rows]
                inside = np.flatnonzero(number[labels[unit.heads]] >= 0)
                u, v = unit.heads[inside], unit.tails[inside]
                block = unit.edges[inside]
                dense[number[labels[u]], place[u], :, place[v], :] = block
                dense[number[labels[u]], place[v], :, place[u], :] = block.transpose(0, 2, 1)
                found = _log_pseudo_determinant(dense.reshape(len(some), size * d, size * d))
                rank, log_det = rank + found[0], log_det + found[1]
        return rank, log_det


def _log_pseudo_determinant(matrices: Array) -> tuple[int, float]:
    """Total rank and log pseudo-determinant of positive semidefinite matrices (..., k, k)."""
    values = np.linalg.eigvalsh(matrices)
    values = values[values > RANK_TOLERANCE * values[..., -1:]]
    return values.size, float(np.log(values).sum())
