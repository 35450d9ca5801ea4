"""One sweep: rows find their atoms, and leave sums for every atom.

With x = z - b_0, a = exp(u) and the curve y_g = B'^T phi_g of an atom without its constant c, the
negative log joint density of a row at a node is

    (|x|^2 - 2 x.c + |c|^2) / 2 phi - a y_g.(x - c) / phi + a^2 |y_g|^2 / 2 phi + prior

so a row meets the decoder once, in B x (K M p for a row); the nodes read y_g.(x - c) from that.
All atoms are scored on a coarse grid with the amplitude integrated as if Gaussian about one, the
best few on all nodes in the same way, and the best of these has the sum over nodes and amplitudes
as the prior has it. With r the posterior of the row on these

    sum E[f f^T], sum E[f] x^T, f = (1, a phi_g),  and  sum log int exp(-F)

say all that an M step and the gradient of L(beta) = -sum_i log int exp(-F_i) need. Coordinates on
flats are Gaussian and need no nodes (`flat_rows`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reml_sae.rows import RowMap, RowResult, SerialRows, gather_rows
from reml_sae.sweeps.backend import Backend, DeviceArray
from reml_sae.sweeps.curve_rows import coarse_curve, curve_posterior, log_gaussian
from reml_sae.sweeps.flat_rows import cloud_evidence, coarse_cloud, flat_posterior
from reml_sae.sweeps.nodes import Fineness
from reml_sae.sweeps.state import SweepState
from reml_sae.sweeps.tables import FlatTables, KindTables, SweepTables, make_tables
from reml_sae.typing import Array, Index

CHUNK_ROWS = 1 << 14
"""Rows that are sorted by atom together: enough for products of some size with each decoder."""
TILE, LEAST_TILE = 64, 4
"""Rows of an atom that meet its decoder at once: as many as atoms have, within these."""


@dataclass(frozen=True, eq=False)
class SweepSums:
    """Sums over rows at a state.

    Attributes
    ----------
    value : float
        Sum of l_i = -log int exp(-F_i).
    square : float
        Sum of |x|^2.
    grams : list of (k, M, M) sums of E[f f^T], by kind
    crossed : list of (k, p, M) sums of x E[f]^T
    needs : (K,) nats that rows would lose without an atom, by the next best of their candidates
    shifts : list of (k,) sums of E[u], by kind
    amplitude : (2,) sums of E[u]^2 and of E[u^2]
    n_rows : int
    """

    value: float
    square: float
    grams: list[Array]
    crossed: list[Array]
    needs: Array
    shifts: list[Array]
    amplitude: Array
    n_rows: int

    def counts(self) -> list[Array]:
        """Rows (k,) of every atom, by kind."""
        return [gram[:, 0, 0] for gram in self.grams]


@dataclass(frozen=True, eq=False)
class RowCodes:
    """What a sweep says of every row.

    Attributes
    ----------
    labels : (N,) atom
    values : (N,) l_i
    points : (N, d) its best node, or its mean on a flat; zero beyond the atom's own coordinates
    amplitudes : (N,) E[a]
    candidates : (N, C) atoms that were compared, the label first
    """

    labels: Index
    values: Array
    points: Array
    amplitudes: Array
    candidates: Index


def sweep(
    Z: Array | DeviceArray, state: SweepState, backend: Backend, *, offset: Array | None = None,
    n_candidates: int = 2, fineness: Fineness | None = None, candidates: Index | None = None,
    reroute: bool = False, longest: float | None = None, row_map: RowMap | None = None,
) -> tuple[SweepSums, RowCodes]:
    """One pass over rows.

    Parameters
    ----------
    Z : (N, p) array of NumPy or of the backend, or what gives rows as such by slices
    state : SweepState
    backend : Backend
    offset : (p,) array, optional
        The intercept b_0; zero by default.
    n_candidates : int
        Atoms of a row whose evidence is compared.
    fineness : Fineness, optional
        Of the nodes.
    candidates : (N, C) int array, optional
        Atoms among which rows choose, that of the row first; all by default.
    reroute : bool
        Whether rows look at all atoms all the same, beside their own.
    longest : float, optional
        `longest_row`, where it is known.
    row_map : RowMap, optional
        Executes the sums.

    Returns
    -------
    SweepSums and RowCodes
    """
    shift = backend.array(np.zeros(Z.shape[1]) if offset is None else offset)
    if longest is None:
        longest = longest_row(Z, backend, offset)
    tables = make_tables(state, backend, fineness or Fineness(), longest)
    kernel = _Kernel(tables, backend, Z, shift, candidates, reroute,
                     min(n_candidates, state.n_atoms))
    rows = max(CHUNK_ROWS, min(backend.elements // state.n_atoms, 16 * CHUNK_ROWS))
    with backend.turn:
        found = gather_rows(SerialRows() if row_map is None else row_map, kernel,
                            _slices(len(Z), rows))
    value, square, needs, amplitude, *parts = map(backend.numpy, found.sums)
    grams, crossed, shifts = [], [], []
    for kind, (count, shift, first, second, cross) in zip(
            tables.kinds, zip(*[iter(parts)] * 5, strict=True), strict=True):
        means, squares, cross = kind.expected(first, second, cross, backend)
        gram = np.empty((len(count), *(1 + means.shape[1],) * 2))
        gram[:, 0, 0] = count
        gram[:, 0, 1:] = gram[:, 1:, 0] = means
        gram[:, 1:, 1:] = squares
        grams.append(gram)
        crossed.append(cross)
        shifts.append(shift)
    value = float(value) + 0.5 * Z.shape[1] * len(Z) * float(
        np.log(2.0 * np.pi * state.dispersion))
    labels, values, points, amplitudes, kept = found.each
    values = values + 0.5 * Z.shape[1] * np.log(2.0 * np.pi * state.dispersion)
    return (SweepSums(value, float(square), grams, crossed, needs, shifts, amplitude,
                      len(Z)),
            RowCodes(labels.astype(np.intp), values, points, amplitudes, kept.astype(np.intp)))


def longest_row(Z: Array | DeviceArray, backend: Backend, offset: Array | None = None) -> float:
    """Length of the longest row about an offset (p,), by a pass over all of them."""
    shift = backend.array(np.zeros(Z.shape[1]) if offset is None else offset)
    return max(float(backend.xp.amax(_lengths(backend.array(Z[own]) - shift, backend)))
               for own in _slices(len(Z), CHUNK_ROWS)) ** 0.5


def _slices(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _lengths(X: DeviceArray, backend: Backend) -> DeviceArray:
    return backend.xp.sum(X * X, axis=1)


@dataclass(frozen=True, eq=False)
class _Tiles:
    """Rows of the atoms of a kind, sorted by atom, and cut into tiles of one atom each.

    So products of rows with their own decoders are one batched product, whatever the number of
    atoms. The last tile of an atom is filled up with its last row.

    Attributes
    ----------
    number : int
        Of the kind.
    kind : KindTables
    rows : (n,) rows in the chunk
    place : (n,) places of their atoms in the kind
    used : (k,) places of the atoms that have rows, on the host
    counts : (k,) how many
    index : (t, s) rows of every tile, by their number among ``rows``
    own : (t, s) whether a row is not there to fill up
    of_tile : (t,) places of the atoms of the tiles
    n_tiles : (k,) tiles of every atom that is used, on the host
    """

    number: int
    kind: KindTables | FlatTables
    rows: DeviceArray
    place: DeviceArray
    used: Index
    counts: Index
    index: DeviceArray
    own: DeviceArray
    of_tile: DeviceArray
    n_tiles: Index

    @classmethod
    def of(
        cls, number: int, kind: KindTables | FlatTables, rows: DeviceArray, place: DeviceArray,
        backend: Backend,
    ) -> _Tiles:
        """Of rows, with the places of their atoms."""
        xp = backend.xp
        order = backend.order(place)
        rows, place = rows[order], place[order]
        counts = np.bincount(backend.numpy(place), minlength=len(kind.squares))
        used = np.flatnonzero(counts)
        counts = counts[used]
        size = int(min(max(len(place) // len(used), LEAST_TILE), TILE))
        n_tiles = -(-counts // size)
        ends = np.repeat(np.cumsum(counts), n_tiles)
        turn = np.arange(len(ends)) - np.repeat(np.cumsum(n_tiles) - n_tiles, n_tiles)
        starts = np.repeat(np.cumsum(counts) - counts, n_tiles) + size * turn
        index = backend.array(starts, xp.int64)[:, None] + backend.places(size)
        last = backend.array(ends - 1, xp.int64)[:, None]
        return cls(number, kind, rows, place, used, counts, xp.minimum(index, last), index <= last,
                   backend.array(np.repeat(used, n_tiles), xp.int64), n_tiles)

    def project(self, X: DeviceArray) -> DeviceArray:
        """B x (n, M) of the rows with their decoders."""
        c = X[self.rows[self.index]] @ self.kind.decoders[self.of_tile].swapaxes(1, 2)
        return c[self.own]

    def crossed(self, X: DeviceArray, f: DeviceArray, backend: Backend) -> DeviceArray:
        """sum x f^T (k, p, M) over the rows of every atom that is used."""
        parts = f[self.index] * backend.cast(self.own, f.dtype)[:, :, None]
        products = X[self.rows[self.index]].swapaxes(1, 2) @ parts
        return backend.segment_sums(products, self.n_tiles)


@dataclass(frozen=True, eq=False)
class _Kernel:
    """What a sweep does to a chunk of rows."""

    tables: SweepTables
    backend: Backend
    Z: Array | DeviceArray
    shift: DeviceArray
    candidates: Index | None
    reroute: bool
    n_candidates: int

    def __call__(self, where: slice) -> RowResult:
        backend, tables, xp = self.backend, self.tables, self.backend.xp
        X = backend.array(self.Z[where]) - self.shift
        square = backend.cast(_lengths(X, backend), backend.wide)
        known = (None if self.candidates is None else
                 backend.array(self.candidates[where], xp.int64))
        kept = (backend.largest(self._scores(X), self.n_candidates)
                if known is None or self.reroute else known)
        scores = xp.stack([self._evidence(X, kept[:, j]) for j in range(kept.shape[1])], 1)
        if known is not None and self.reroute:
            self._keep(X, known[:, 0], kept, scores)
        best = xp.argmax(scores, axis=1)
        n = backend.places(len(X))
        labels = kept[n, best]
        kept[n, best], kept[:, 0] = kept[:, 0] + 0, labels
        scores[n, best], scores[:, 0] = scores[:, 0] + 0.0, scores[n, best]
        needs = backend.zeros((len(tables.kind_of),), backend.wide)
        if kept.shape[1] > 1:
            gap = backend.cast(scores[:, 0] - xp.amax(scores[:, 1:], 1), backend.wide)
        else:
            gap = backend.zeros((len(X),), backend.wide)
        values, points, amplitudes, amplitude, parts = self._posteriors(X, labels, gap, needs)
        values = values + 0.5 * square * tables.precision
        sums = xp.sum(values), xp.sum(square), needs, amplitude, *parts
        labels, values, amplitudes, kept = map(backend.numpy, (labels, values, amplitudes, kept))
        return RowResult((labels, values, points, amplitudes, kept), sums)

    def _keep(
        self, X: DeviceArray, own: DeviceArray, kept: DeviceArray, scores: DeviceArray
    ) -> None:
        """Put the rows' own atoms (n,) in the place of the worst of others that are not better."""
        xp = self.backend.xp
        left = xp.where(~(kept == own[:, None]).any(1))[0]
        if not len(left):
            return
        least, score = xp.argmin(scores[left], 1), self._evidence(X[left], own[left])
        better = score > scores[left, least]
        left, least = left[better], least[better]
        kept[left, least], scores[left, least] = own[left], score[better]

    def _scores(self, X: DeviceArray) -> DeviceArray:
        """Coarse log evidence (n, K) of all atoms, up to what is the row's own."""
        backend, tables = self.backend, self.tables
        out = backend.zeros((len(X), len(tables.kind_of)), backend.narrow)
        for kind in tables.kinds:
            size, M, p = kind.decoders.shape
            widest = M if isinstance(kind, FlatTables) else max(len(kind.coarse.logs), M)
            step = max(1, backend.elements // (len(X) * widest))
            for own in _slices(size, step):
                c = backend.rough_product(kind.decoders[own].reshape(-1, p), X.T)
                c = c.reshape(-1, M, len(X))
                pull = c[:, 1:] - kind.crossed[own][:, :, None]
                if isinstance(kind, FlatTables):
                    gain = coarse_cloud(pull * tables.precision, kind.lengths[own][:, :, None],
                                        tables.alpha, 1, backend)
                else:
                    gain = coarse_curve(pull, kind, own, tables, backend)
                score = gain + c[:, 0] * tables.precision - 0.5 * kind.squares[own][:, None]
                out[:, kind.atoms[own]] = score.T
        return out

    def _tiles(self, labels: DeviceArray) -> Iterator[_Tiles]:
        """Rows by the kinds of their atoms."""
        backend, tables, xp = self.backend, self.tables, self.backend.xp
        kind_of = tables.kind_of[labels]
        for number, kind in enumerate(tables.kinds):
            rows = xp.where(kind_of == number)[0]
            if len(rows):
                yield _Tiles.of(number, kind, rows, tables.place_of[labels[rows]], backend)

    def _projected(self, X: DeviceArray, tiles: _Tiles) -> tuple[DeviceArray, DeviceArray]:
        """y.(x - c) / phi, at the nodes or for the axes, and what the constant adds."""
        kind, place, precision = tiles.kind, tiles.place, self.tables.precision
        c = tiles.project(X)
        pull = (c[:, 1:] - kind.crossed[place]) * precision
        if isinstance(kind, KindTables):
            pull = pull @ kind.fine.curve.T
        return pull, c[:, 0] * precision - 0.5 * kind.squares[place]

    def _evidence(self, X: DeviceArray, labels: DeviceArray) -> DeviceArray:
        """Log evidence (n,) of one atom for every row, amplitudes on curves as if Gaussian."""
        backend, xp = self.backend, self.backend.xp
        out = backend.zeros((len(X),), backend.narrow)
        for tiles in self._tiles(labels):
            kind = tiles.kind
            pull, constant = self._projected(X, tiles)
            if isinstance(kind, FlatTables):
                own = cloud_evidence(pull, kind.lengths[tiles.place], self.tables, backend)
                out[tiles.rows] = own + constant
                continue
            gain = log_gaussian(pull, kind.fine.lengths[tiles.place], self.tables.alpha, backend)
            gain = gain + kind.fine.logs
            top = xp.amax(gain, 1)
            out[tiles.rows] = top + constant + xp.log(xp.sum(xp.exp(gain - top[:, None]), axis=1))
        return out

    def _posteriors(
        self, X: DeviceArray, labels: DeviceArray, gap: DeviceArray, needs: DeviceArray
    ) -> tuple[DeviceArray, Array, DeviceArray, DeviceArray, list[DeviceArray]]:
        """l_i but for |x|^2, coordinates, E[a], sums of u, and the sums of every kind."""
        backend, tables, xp = self.backend, self.tables, self.backend.xp
        values, amplitudes = backend.zeros((2, len(X)), backend.wide)
        points = np.zeros((len(X), max(kind.latent_dim for kind in tables.kinds)))
        amplitude, parts = backend.zeros((2,), backend.wide), list[DeviceArray]()
        for kind in tables.kinds:
            size, M, p = kind.decoders.shape
            parts += [backend.zeros(shape, backend.wide) for shape in (
                (size,), (size,), *((size, *shape) for shape in kind.sum_shapes), (size, p, M))]
        for tiles in self._tiles(labels):
            kind, rows, counts = tiles.kind, tiles.rows, tiles.counts
            pull, constant = self._projected(X, tiles)
            own = (flat_posterior(pull, kind, tiles.place, tables, backend)
                   if isinstance(kind, FlatTables)
                   else curve_posterior(pull, kind, tiles.place, tables, backend))
            values[rows] = -backend.cast(own.evidence + constant, backend.wide)
            amplitude += backend.cast(xp.stack([xp.sum(own.u * own.u), xp.sum(own.u2)]),
                                      backend.wide)
            points[backend.numpy(rows), :kind.latent_dim] = own.points
            amplitudes[rows] = backend.cast(own.amplitude, backend.wide)
            f = xp.concatenate([xp.ones_like(own.mean[:, :1]), own.mean], 1)
            count, shift, first, second, crossed = parts[5 * tiles.number:5 * tiles.number + 5]
            at = backend.array(tiles.used, xp.int64)
            count[at] += backend.array(counts, backend.wide)
            shift[at] += backend.segment_sums(own.u, counts)
            first[at] += backend.segment_sums(own.first, counts)
            second[at] += backend.segment_sums(own.second, counts)
            needs[backend.array(kind.atoms[tiles.used], xp.int64)] += backend.segment_sums(
                gap[rows], counts)
            crossed[at] += tiles.crossed(X, f, backend)
        return values, points, amplitudes, amplitude, parts
