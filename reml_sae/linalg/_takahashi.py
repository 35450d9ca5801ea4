"""Entries of A^-1 on the pattern of its sparse factor, P A P^T = L D L^T (Takahashi's recursion).

For Z = (P A P^T)^-1, column j of the factor with off-diagonal rows I:

    Z_Ij = -Z_II L_Ij,    Z_jj = 1/d_j - L_Ij^T Z_Ij

which needs Z on pairs of rows of I only, and those are in the pattern. The same for a supernode S,
consecutive columns that share their rows R below S:

    W = L_SS^-1,  G = L_RS W,    Z_RS = -Z_RR G,    Z_SS = W^T D_S^-1 W - G^T Z_RS

The front of S is Z on the rows S + R. R lies within the front of the parent, the supernode that
holds the first row of R, so Z_RR is gathered from there. The recursion runs from the roots down;
supernodes of one depth are independent, and those of one shape are batched. Fronts are kept for
one level, the parents'.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reml_sae.typing import Array

Index = NDArray[np.int64]

CHUNK_ELEMENTS = 4_000_000

SHARED_ROWS = 32
"""From this many rows on, supernodes with the same R are looked for, to gather Z_RR once."""


def closed_pattern(n: int, keys: Index) -> Index:
    """Add entries until the pattern is closed under elimination.

    Closed: the rows of a column below its first off-diagonal row p (its parent) are rows of
    column p. All pairs of rows of a column are in the pattern then.

    Parameters
    ----------
    n : int
        At least 1.
    keys : sorted int array
        column n + row for the entries of a lower triangle, with the whole diagonal. An entry of a
        factor may be missing where it is zero in floating point.
    """
    while True:
        column = keys // n
        start = np.searchsorted(keys, np.arange(n) * (n + 1))
        rank = np.arange(len(keys)) - start[column]
        parent = np.full(n, -1)
        parent[column[rank == 1]] = keys[rank == 1] % n
        below = rank > 1
        wanted = parent[column[below]] * n + keys[below] % n
        missing = wanted[~contains(keys, wanted)]
        if len(missing) == 0:
            return keys
        keys = merged(keys, missing)


def merged(keys: Index, more: Index) -> Index:
    """Union of two key arrays, sorted; a sort beats numpy's hashing of nearly sorted keys."""
    joined = np.sort(np.concatenate([keys, more]), kind="stable")
    return joined[np.append(True, joined[1:] != joined[:-1])]


def contains(keys: Index, wanted: Index) -> NDArray[np.bool_]:
    """Which of the wanted keys are among the sorted ones."""
    if len(keys) == 0:
        return np.zeros(len(wanted), dtype=bool)
    found: NDArray[np.bool_] = (
        keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted)
    return found


@dataclass(frozen=True)
class Batch:
    """Supernodes of one level and one shape.

    Attributes
    ----------
    nodes : (k,) array
    start : (k,) array
        Positions of their first diagonal entries.
    width, size : int
        Columns s and front size f = s + r.
    above : (k, r) array
        Places of their rows R in the front of the parent.
    is_parent : bool
        Whether their fronts are needed by the next level.
    shared : bool
        All have the same parent and the same R.
    """

    nodes: Index
    start: Index
    width: int
    size: int
    above: Index
    is_parent: bool
    shared: bool


class Schedule:
    """Symbolic part of the recursion, for one closed pattern.

    Parameters
    ----------
    n : int
        At least 1.
    keys : sorted int array
        A closed pattern.
    """

    def __init__(self, n: int, keys: Index):
        self.n, self.keys = n, keys
        start = np.searchsorted(keys, np.arange(n) * (n + 1))
        rows = keys % n
        count = np.diff(start, append=len(keys))
        parent = np.full(n, -1)
        parent[count > 1] = rows[start[count > 1] + 1]

        # a column joins the one before it where that one's rows are its own and itself
        joins = np.zeros(n, dtype=bool)
        joins[1:] = (parent[:-1] == np.arange(1, n)) & (count[:-1] == count[1:] + 1)
        first = np.flatnonzero(~joins)
        node_of = np.cumsum(~joins) - 1
        last = np.append(first[1:], n) - 1
        self._parent = np.where(parent[last] >= 0, node_of[parent[last]], -1)
        self._start, self._size = start[first], count[first]
        self._width = last - first + 1
        self._rows = rows
        # keys of the fronts, to place the rows of a child in the front of its parent
        self._front_keys, self._front_begin = _front_keys(rows, self._start, self._size, n)
        self.depth = depth(self._parent)
        self.levels: list[list[Batch]] = [
            list(self._batches(nodes)) for nodes in _split(self.depth)]

    def _batches(self, nodes: Index) -> Iterator[Batch]:
        """Batches of one level."""
        is_parent = np.zeros(len(self._parent), dtype=bool)
        is_parent[self._parent[self._parent >= 0]] = True
        shape = np.stack([self._width[nodes], self._size[nodes], is_parent[nodes]])
        for same in _split(np.unique(shape, axis=1, return_inverse=True)[1].ravel()):
            members = nodes[same]
            above = self._above(members)
            if above.shape[1] < SHARED_ROWS or len(members) == 1:
                yield self._batch(members, above, is_parent, False)
                continue
            whole = np.column_stack([self._parent[members], above])
            _, label, times = np.unique(whole, axis=0, return_inverse=True, return_counts=True)
            alone = times[label.ravel()] == 1
            if alone.any():
                yield self._batch(members[alone], above[alone], is_parent, False)
            for equal in _split(np.where(alone, -1, label.ravel())):
                if not alone[equal[0]]:
                    yield self._batch(members[equal], above[equal], is_parent, True)

    def _batch(self, nodes: Index, above: Index, is_parent: NDArray[np.bool_],
               shared: bool) -> Batch:
        one = nodes[0]
        return Batch(nodes, self._start[nodes], int(self._width[one]), int(self._size[one]),
                     above, bool(is_parent[one]), shared)

    def _above(self, nodes: Index) -> Index:
        """Places of the rows R of supernodes of one shape in their parents' fronts, (k, r)."""
        width, size = self._width[nodes[0]], self._size[nodes[0]]
        if size == width:
            return np.empty((len(nodes), 0), dtype=np.int64)
        rows = self._rows[self._start[nodes][:, None] + np.arange(width, size)]
        parent = self._parent[nodes]
        wanted = parent[:, None] * self.n + rows
        place: Index = np.searchsorted(self._front_keys, wanted)
        return place - self._front_begin[parent][:, None]

    def inverse(self, lower: Array, pivots: Array) -> Array:
        """Z on the pattern.

        Parameters
        ----------
        lower : (nnz,) array
            Unit lower factor on the pattern; its diagonal is not read.
        pivots : (n,) array
            D.

        Returns
        -------
        (nnz,) array
        """
        out = np.empty(len(self.keys))
        begin = np.zeros(len(self._parent), dtype=np.int64)  # of a front in its level's store
        store = np.empty(0)
        for level in self.levels:
            sizes = [len(b.nodes) * b.size**2 if b.is_parent else 0 for b in level]
            ends = np.cumsum(sizes)
            fresh = np.empty(int(ends[-1]))
            next_begin = begin.copy() if fresh.size else begin
            for batch, end, total in zip(level, ends, sizes, strict=True):
                fronts = fresh[end - total : end].reshape(-1, batch.size, batch.size)
                if batch.is_parent:
                    next_begin[batch.nodes] = end - total + np.arange(
                        len(batch.nodes)) * batch.size**2
                self._solve(batch, lower, pivots, store, begin, fronts, out)
            store, begin = fresh, next_begin
        return out

    def _solve(self, batch: Batch, lower: Array, pivots: Array, store: Array, begin: Index,
               fronts: Array, out: Array) -> None:
        """One batch: read Z_RR from the parents' fronts, write Z_SS and Z_RS."""
        s, f = batch.width, batch.size
        # the columns of a supernode lie one after the other, each from its diagonal down
        column, row = np.triu_indices(s, 0, f)
        identity = np.arange(s)
        step = max(1, CHUNK_ELEMENTS // (f * s if batch.shared else f * f))
        above_front = self._gather(batch, slice(0, 1), store, begin) if batch.shared else None
        for low in range(0, len(batch.nodes), step):
            where = slice(low, low + step)
            at = batch.start[where][:, None] + np.arange(len(row))
            panel = np.zeros((len(at), f, s))
            panel[:, row, column] = lower[at]
            panel[:, identity, identity] = 1.0
            head_inverse = np.linalg.inv(panel[:, :s]) if s > 1 else panel[:, :1]
            d = pivots[self._first(batch, where)[:, None] + identity]
            block = head_inverse.transpose(0, 2, 1) @ (head_inverse / d[:, :, None])
            if f > s:
                coupling = panel[:, s:] @ head_inverse
                parent = (self._gather(batch, where, store, begin) if above_front is None
                          else above_front)
                cross = -(parent @ coupling)
                block -= coupling.transpose(0, 2, 1) @ cross
                panel[:, s:] = cross
            panel[:, :s] = 0.5 * (block + block.transpose(0, 2, 1))
            out[at] = panel[:, row, column]
            if batch.is_parent:
                fronts[where, :, :s] = panel
                if f > s:
                    fronts[where, :s, s:] = cross.transpose(0, 2, 1)
                    fronts[where, s:, s:] = parent

    def _first(self, batch: Batch, where: slice) -> Index:
        """First columns of the supernodes."""
        return self.keys[batch.start[where]] // self.n

    def _gather(self, batch: Batch, where: slice, store: Array, begin: Index) -> Array:
        """Z_RR of the supernodes, (k, r, r)."""
        parent, above = self._parent[batch.nodes[where]], batch.above[where]
        line = begin[parent][:, None] + above * self._size[parent][:, None]
        return store[line[:, :, None] + above[:, None, :]]


def _front_keys(rows: Index, start: Index, size: Index, n: int) -> tuple[Index, Index]:
    """Keys node n + row of all rows of all fronts, and where every front begins among them."""
    begin = np.cumsum(size) - size
    place = np.arange(int(size.sum())) - np.repeat(begin - start, size)
    return np.repeat(np.arange(len(start)), size) * n + rows[place], begin


def depth(parent: Index) -> Index:
    """Depth of every node of a forest by pointer jumping; roots have 0 and parent -1."""
    jump = np.append(parent, -1)  # the last entry stands for "above a root"
    steps = (jump >= 0).astype(np.int64)
    while (jump >= 0).any():
        steps += steps[jump]
        jump = jump[jump]
    return steps[:-1]


def _split(labels: Index) -> list[Index]:
    """Positions of every label, in the order of the labels."""
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    return np.split(order, cuts)
