"""What Laplace's method misses where rows have scales of their own (DESIGN G2).

A row of p entries whose q parameters the data know is, with these integrated out, a t in the p - q
directions that are left. Laplace's integral of the t in all p about its mode is too small by

    m(q) = log Gamma(x - q / 2) - log Gamma(x) + q / 2 log x,      x = (nu + p) / 2

in its logarithm, whatever the row: 3 q / (4 (nu + p)) nats where x is large. And w_i / phi I is
more than the curvature of a row in its mean, by kappa s_i s_i^T, which has no Kronecker product.
As s_i points anywhere, the curvature is w_i / phi I / (1 + kappa) on average, and for the border's
Gram matrix A of the data and P of the priors half the log-determinant is too large by

    C = p / 2 (log|A + P| - log|A / (1 + kappa) + P|).

Both are exact for linear atoms and many rows. One circle in 60 rows, p = 3, nu = 4: V by Laplace's
method was 9.3 nats above that by quadrature, and is .3 without these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from reml_sae.models.sae.structure import SAEStructure
from reml_sae.typing import Array


def missing_rows(structure: SAEStructure, psi: Array) -> tuple[Array, Array]:
    """m of every row (N,), and the derivative of their sum in psi, (n_psi,)."""
    known = structure.active @ [atom.intrinsic_dim for atom in structure.atoms]
    if structure.assignment.chooses_support:  # on the simplex most rows' shares are at an end
        known = known + structure.assignment.carried(structure.active).sum(axis=1)
    values, by_psi = structure.family.laplace_excess(known, structure.shape[1], psi)
    return values, by_psi.sum(axis=1)


@dataclass(frozen=True)
class MissingScales:
    """What half the log-determinant has too much.

    Attributes
    ----------
    value : float
    data, prior : (M, M) arrays
        Derivatives of it in A and P.
    psi : (n_psi,) array
        In psi, at fixed A and P.
    """

    value: float
    data: Array
    prior: Array
    psi: Array

    @classmethod
    def of(cls, structure: SAEStructure, psi: Array, data: Array, prior: Array) -> Self:
        """Of rows and a border with the Gram matrices A and P (M, M)."""
        p = structure.shape[1]
        rows, by_psi = missing_rows(structure, psi)
        share = 1.0 / (1.0 + structure.family.tail(psi, p))
        less = share * data + prior
        own, other = np.linalg.inv(data + prior), np.linalg.inv(less)
        value = np.linalg.slogdet(data + prior)[1] - np.linalg.slogdet(less)[1]
        by_share = -0.5 * p * float(np.vdot(other, data))
        return cls(float(rows.sum() + 0.5 * p * value),
                   0.5 * p * (own - share * other), 0.5 * p * (own - other),
                   by_psi - by_share * share**2 * structure.family.tail_psi(psi, p))
