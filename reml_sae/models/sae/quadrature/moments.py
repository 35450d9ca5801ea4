"""Rows integrated out by quadrature: value, gradient and curvature of their sum (DESIGN A8).

For a row with F_i(t, beta) = loss and density of its prior at nodes t_g,

    l_i      = -log sum_g exp(w_g - F_ig),            r_ig = exp(w_g - F_ig + l_i)
    dl_i     = E_i[g],                                 g = dF_i / dbeta = -phi (x) s
    d2l_i    = E_i[H] - Var_i[g],                      H = phi phi^T (x) diag(h)      (Louis 1982)

with s = -dl/deta and h = d2l/deta2 of the entries' loss l, E_i over the row's own posterior r_i.
Where the row has a scale of its own that is integrated out (`Family.tail`), H loses kappa g g^T.
With one node it is Laplace's arrow; with the exact posterior, its moments stand for D_i^-1.

The derivative of T = <G, sum_i d2l_i> at fixed G, which the gradient of log|d2L| needs, follows
from dr_ig = -r_ig (dF_ig - E_i[dF]) with c = <G, H> - (1 + kappa) g^T G g + 2 g^T G E_i[g]:

    dT = -sum_ig r_ig (c - E_i[c]) dF_ig
         + sum_ig r_ig ( 2 (G E_i[g] - (1 + kappa) G g)^T dg + <G, dH> - dkappa g^T G g ).

`row_nodes` sums over nodes that all rows share, `row_pairs` over nodes of each row's own, and
`row_parts` adds up rows of different atoms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reml_sae.families import Family
from reml_sae.models.sae.quadrature.lattice import Lattice, squares
from reml_sae.rows import RowMap, RowResult, SerialRows, gather_rows, row_slices
from reml_sae.typing import Array


@dataclass(frozen=True)
class QuadratureSums:
    """Sums over rows.

    Attributes
    ----------
    rows : (n,) l_i
    beta : (M, p) gradient in the decoders
    outer : (n_outer,) gradient in the outer parameters: the family's psi, and those of the prior
        of the nodes
    curvature : (M p, M p) second derivative in the decoders
    complete : (M p, M p) sum of E_i[H], what it would be at known coordinates
    energy : float
        E of half the deviance over the dispersion.
    edf : float
        Sum over rows of tr(W Var_i[eta]), what their coordinates spend.
    scores : (p, p) sum of E_i[s s^T / w], w the weight of the row
    """

    rows: Array
    beta: Array
    outer: Array
    curvature: Array
    complete: Array
    energy: float
    edf: float
    scores: Array


class RowQuadrature(ABC):
    """Rows of one atom at one decoder.

    Parameters
    ----------
    Z : (n, p) array
    lattice : Lattice
    beta : (M, p) array
    offset : (p,) array
    family : Family
    psi : (n_psi,) array
    row_map : RowMap, optional
        Executes the sums.
    """

    def __init__(self, Z: Array, lattice: Lattice, beta: Array, offset: Array, family: Family,
                 psi: Array, row_map: RowMap | None = None):
        self.Z, self.lattice, self.beta, self.offset = Z, lattice, beta, offset
        self.family, self.psi = family, psi
        self.row_map: RowMap = SerialRows() if row_map is None else row_map

    # --- posterior of the rows ---------------------------------------------------------------

    def _gather(self, task: Callable[[slice], RowResult]) -> RowResult:
        """The result of a task over rows whose whole lattice fits into memory."""
        return gather_rows(self.row_map, task, self._chunks)

    @cached_property
    def _chunks(self) -> list[slice]:
        wide = len(self.lattice) * (1 + self.lattice.n_linear)
        p = self.Z.shape[1]
        wide = max(wide * (1 if self.family.equal_weights else p), p * p, self.beta.size)
        return row_slices(len(self.Z), wide, self.row_map.elements)

    def _log_joint(self, Z: Array) -> tuple[Array, Array]:
        """w_g - F_ig (n, G) without the linear coordinates, and the means (n, G, m) of these."""
        family, lattice = self.family, self.lattice
        centre = self._centre
        n, size, phi = len(Z), len(centre), family.dispersion(self.psi)
        if family.has_row_scales:
            losses = family.row_losses(squares(Z, centre, phi), Z.shape[1], self.psi)[0]
            return lattice.log_weights - losses, np.zeros((n, size, 0))
        if not family.equal_weights:
            loss = family.loss(Z[:, None], np.broadcast_to(centre, (n, *centre.shape)), self.psi)
            return lattice.log_weights - loss.sum(axis=2), np.zeros((n, size, 0))
        out = self._gaussian(Z, squares(Z, centre, phi))
        m = lattice.n_linear
        if not m:
            return out, np.zeros((n, size, 0))
        lines, precision = self._lines
        pull = (Z @ lines.reshape(-1, lines.shape[2]).T).reshape(n, size, m)
        pull -= np.einsum("gmp,gp->gm", lines, centre)
        pull /= phi
        mean = np.einsum("gab,ngb->nga", np.linalg.inv(precision), pull)
        out += 0.5 * np.einsum("nga,nga->ng", pull, mean) - 0.5 * np.linalg.slogdet(precision)[1]
        return out, mean

    @cached_property
    def _centre(self) -> Array:
        """Predictor at the nodes, (G, p)."""
        return self.lattice.basis @ self.beta + self.offset

    def _gaussian(self, Z: Array, square: Array) -> Array:
        """w_g - F_ig (n, G) of Gaussian rows at these squared distances from the nodes."""
        return self.lattice.log_weights - 0.5 * square / self.family.dispersion(self.psi) - float(
            self.family.saturated_loss(Z[:1], self.psi).sum())

    @cached_property
    def _lines(self) -> tuple[Array, Array]:
        """X = d eta / dw (G, m, p), and the precision P of the linear coordinates (G, m, m)."""
        lines = self.lattice.slopes @ self.beta
        phi = self.family.dispersion(self.psi)
        return lines, np.eye(lines.shape[1]) + lines @ lines.transpose(0, 2, 1) / phi

    def row_values(self) -> Array:
        """l_i (n,), the negative log marginal density of every row given the decoders."""
        return self._gather(self._row_values).each[0]

    def _row_values(self, where: slice) -> RowResult:
        joint = self._log_joint(self.Z[where])[0]
        top = joint.max(axis=1, keepdims=True)
        return RowResult((-(top[:, 0] + np.log(np.exp(joint - top).sum(axis=1))),))

    @property
    @abstractmethod
    def sums(self) -> QuadratureSums:
        """Value, gradients and curvature, in one pass."""

    @abstractmethod
    def curvature_pullback(self, G: Array) -> tuple[Array, Array]:
        """Gradient in beta (M, p) and outer of <G, curvature> at symmetric G (M p, M p)."""

    @abstractmethod
    def gradient_outer_dot(self, u: Array) -> Array:
        """Inner products of u (M, p) with d gradient / d outer, (n_outer,)."""

    @abstractmethod
    def data_gradient(self, G: Array, u: Array) -> Array:
        """Gradient in Z (n, p) of sum l_i + <G, curvature> / 2 - <u, gradient>; Gaussian rows."""
