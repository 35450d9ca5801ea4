"""Rows integrated out by quadrature, by the atom that they use: sums over rows of all atoms.

Without gates all rows use the one atom there is. Under hard gates every row uses one atom or none,
and has that atom's coordinates and log amplitude; what it adds to the sums is in the decoder of
that atom and the intercept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from reml_sae.models.sae.quadrature.lattice import Lattice, amplitude_lattice, lattice, no_atom
from reml_sae.models.sae.quadrature.moments import QuadratureSums, RowQuadrature
from reml_sae.models.sae.quadrature.nodes import RowNodes
from reml_sae.models.sae.quadrature.pairs import RowPairs
from reml_sae.models.sae.structure import SAEStructure
from reml_sae.typing import Array, Index


@dataclass(frozen=True)
class Part:
    """Rows of one atom.

    Attributes
    ----------
    rows : (n,) rows
    decoder : (M_k,) rows of beta that their predictor has
    border : (M_k p,) their places in the flat beta
    outer : (n_outer,) places in rho of the outer parameters that they have
    quadrature : RowQuadrature
        Their sums.
    """

    rows: Index
    decoder: Index
    border: Index
    outer: Index
    quadrature: RowQuadrature


class RowParts:
    """Rows of a model at one decoder; outer parameters are all of rho.

    Parameters
    ----------
    structure : SAEStructure
        Has a quadrature.
    beta : (M, p) array
    rho : (n_rho,) array

    Raises
    ------
    InnerConvergenceError
        Where the noise is so small that the nodes are too many.
    """

    def __init__(self, structure: SAEStructure, beta: Array, rho: Array):
        self.beta, self.rho = beta, rho.copy()
        self._shape, self._n_outer, self._n_rows = beta.shape, len(rho), len(structure.Z)
        self.parts = _open_gates(structure, beta, rho) if structure.assignment.dim else [
            _ungated(structure, beta, rho)]

    @property
    def n_pairs(self) -> int:
        """Rows times nodes, over all parts."""
        return sum(len(part.rows) * len(part.quadrature.lattice) for part in self.parts)

    @property
    def n_nodes(self) -> int:
        """Nodes of the finest lattice."""
        return max(len(part.quadrature.lattice) for part in self.parts)

    @property
    def has_linear(self) -> bool:
        """Whether there are coordinates beside those of the nodes, integrated in closed form."""
        return any(part.quadrature.lattice.n_linear for part in self.parts)

    def row_values(self) -> Array:
        """l_i (N,), the negative log marginal density of every row given the decoders."""
        out = np.empty(self._n_rows)
        for part in self.parts:
            out[part.rows] = part.quadrature.row_values()
        return out

    @cached_property
    def sums(self) -> QuadratureSums:
        """Value, gradients and curvature, over all rows."""
        size = int(np.prod(self._shape))
        rows, beta, outer = np.empty(self._n_rows), np.zeros(self._shape), np.zeros(self._n_outer)
        curvature, complete = np.zeros((size, size)), np.zeros((size, size))
        energy, edf, scores = 0.0, 0.0, np.zeros((self._shape[1],) * 2)
        for part in self.parts:
            own, square = part.quadrature.sums, np.ix_(part.border, part.border)
            rows[part.rows] = own.rows
            beta[part.decoder] += own.beta
            outer[part.outer] += own.outer
            curvature[square] += own.curvature
            complete[square] += own.complete
            energy += own.energy
            edf += own.edf
            scores += own.scores
        return QuadratureSums(rows, beta, outer, curvature, complete, energy, edf, scores)

    def curvature_pullback(self, G: Array) -> tuple[Array, Array]:
        """Gradient in beta (M, p) and rho of <G, curvature> at symmetric G (M p, M p)."""
        beta, outer = np.zeros(self._shape), np.zeros(self._n_outer)
        for part in self.parts:
            own = part.quadrature.curvature_pullback(G[np.ix_(part.border, part.border)])
            beta[part.decoder] += own[0]
            outer[part.outer] += own[1]
        return beta, outer

    def gradient_outer_dot(self, u: Array) -> Array:
        """Inner products of u (M, p) with d gradient / d rho, (n_rho,)."""
        out = np.zeros(self._n_outer)
        for part in self.parts:
            out[part.outer] += part.quadrature.gradient_outer_dot(u[part.decoder])
        return out

    def score_moments(self, n_metrics: int, metrics: Index) -> Array:
        """Sums of E_i[s s^T / w] over the rows in each metric, (G, p, p)."""
        out = np.zeros((n_metrics, self._shape[1], self._shape[1]))
        for part in self.parts:
            out[metrics[part.rows[0]]] += part.quadrature.sums.scores
        return out

    def data_gradient(self, G: Array, u: Array) -> Array:
        """Gradient in Z (N, p) of sum l_i + <G, curvature> / 2 - <u, gradient>."""
        out = np.empty((self._n_rows, self._shape[1]))
        for part in self.parts:
            out[part.rows] = part.quadrature.data_gradient(
                G[np.ix_(part.border, part.border)], u[part.decoder])
        return out


def _ungated(structure: SAEStructure, beta: Array, rho: Array) -> Part:
    psi = rho[structure.outer.psi]
    nodes = lattice(structure.atoms[0], beta, structure.family, psi, structure.Z, structure.offset)
    everything = np.arange(len(beta))
    return _part(structure, beta, rho, np.arange(len(structure.Z)), everything, nodes,
                 np.zeros(0, np.intp))


def _open_gates(structure: SAEStructure, beta: Array, rho: Array) -> list[Part]:
    parts, psi, last = [], rho[structure.outer.psi], len(beta) - 1
    places = structure.layout.basis_slices
    for k, (atom, where) in enumerate(zip(structure.atoms, places, strict=True)):
        rows = np.flatnonzero(structure.active[:, k])
        if len(rows):
            alpha, place = _amplitude_precision(structure, k, rho)
            decoder = np.append(np.arange(where.start, where.stop), last)
            nodes = amplitude_lattice(atom, beta[decoder], structure.family, psi, structure.Z[rows],
                                      structure.offset, alpha)
            parts.append(_part(structure, beta, rho, rows, decoder, nodes, place))
    rows = np.flatnonzero(~structure.active.any(axis=1))
    if len(rows):
        none = np.zeros(0, np.intp)
        parts.append(_part(structure, beta, rho, rows, np.array([last]), no_atom(), none))
    return parts


def _amplitude_precision(structure: SAEStructure, k: int, rho: Array) -> tuple[float, Index]:
    """Prior precision of the log amplitudes of an atom, and its place in rho, if it has one."""
    term = next(term for term in structure.terms
                if term.target == "amplitudes" and term.atom in (-1, k))
    return (float(term.penalty.strengths(term.rho(rho))[0]),
            np.arange(len(rho))[term.where])


def _part(
    structure: SAEStructure, beta: Array, rho: Array, rows: Index, decoder: Index, nodes: Lattice,
    prior: Index,
) -> Part:
    p, psi = beta.shape[1], rho[structure.outer.psi]
    places = np.concatenate([np.arange(len(rho))[structure.outer.psi], prior])
    if len(prior) < len(nodes.prior_slopes):  # the strength is known
        nodes = replace(nodes, prior_slopes=nodes.prior_slopes[:0])
    shared = structure.family.equal_weights and not nodes.n_linear
    quadrature = (RowNodes if shared else RowPairs)(
        structure.Z[rows], nodes, beta[decoder], structure.offset, structure.family, psi,
        structure.row_map)
    border = (decoder[:, None] * p + np.arange(p)).ravel()
    return Part(rows, decoder, border, places, quadrature)
