"""Gauge of latent means by a ridge regression on auxiliary variables (identifiable VAE).

    P = (w / 2) tr(T^T A T),   A = I - U (U^T U + ridge I)^-1 U^T

With the thin singular decomposition U = Q diag(s) V^T, A = I - Q diag(f) Q^T, f = s^2 / (s^2 +
ridge) < 1. So A is positive definite with log|A| = sum_j log(ridge / (s_j^2 + ridge)), and
    log C = d [(n / 2) log(2 pi / w) - (1 / 2) log|A|]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError
from reml_sae.penalties import _fields
from reml_sae.penalties._curvature import RowCurvature, RowInverse
from reml_sae.penalties._matrix import MatrixPenalty
from reml_sae.penalties._registry import register
from reml_sae.typing import Array, Curvature


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class IvaeRidgeMeanGauge(MatrixPenalty):
    """Gaussian prior that favours coordinates linear in auxiliary ones; target: (n, d).

    Parameters
    ----------
    latent_dim : int
        d >= 1.
    aux : (n, d_u) array
        U, a row for each row of the target.
    ridge : float
        Positive; the smaller, the freer the part that U explains.
    weight, weight_schedule, learnable
        See `Penalty`.
    """

    latent_dim: int
    aux: Array
    ridge: float = 1.0

    KIND_TAG: ClassVar[str] = "ivae_ridge_mean_gauge"
    PYTHON_WRAPPER: ClassVar[str] = "IvaeRidgeMeanGauge"
    FORMULA: ClassVar[str] = "w / 2 tr(T^T (I - U (U^T U + ridge I)^-1 U^T) T),  U = aux"

    def __post_init__(self) -> None:
        _fields.integer("latent_dim", self.latent_dim, 1)
        _fields.positive("ridge", self.ridge)
        object.__setattr__(self, "aux", _fields.array("aux", self.aux, 2))
        if not self.aux.size:
            raise InputError(f"aux must have rows and columns, got shape {self.aux.shape}")
        super().__post_init__()

    @property
    def is_quadratic(self) -> bool:
        """True."""
        return True

    def width(self) -> int:
        """The dimension d."""
        return self.latent_dim

    def n_rows_expected(self) -> int:
        """Rows of ``aux``."""
        return len(self.aux)

    def restrict(self, index: NDArray[np.intp], n_rows: int) -> Self:
        """The penalty with the auxiliary variables of some rows."""
        return replace(self, aux=self.aux[index])

    @cached_property
    def _range(self) -> tuple[Array, Array]:
        """Q (n, r) and 1 - f = ridge / (s^2 + ridge), (r,), where s > 0."""
        q, s, _ = np.linalg.svd(self.aux, full_matrices=False)
        used = s > 0.0
        return q[:, used], self.ridge / (s[used] ** 2 + self.ridge)

    def _apply(self, v: Array, rho: Array) -> Array:
        q, left = self._range
        return self.strength(rho) * (v - (q * (1.0 - left)) @ (q.T @ v))

    # --- value and derivatives ---------------------------------------------------------------

    def value(self, target: Array, rho: Array) -> float:
        """P, as the sum of what Q does not reach and what the ridge leaves of the rest."""
        t, (q, left) = self.rows(target), self._range
        within = q.T @ t
        total = ((t - q @ within) ** 2).sum() + (left @ within**2).sum()
        return 0.5 * self.strength(rho) * float(total)

    def row_gradient(self, target: Array, rho: Array) -> Array:
        """W A T, (n, d)."""
        return self._apply(self.rows(target), rho)

    def hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """W A V, flat."""
        return self._apply(self.rows(v), rho).ravel()

    def psd_majorizer_hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """W A V, flat: the majorizer is the Hessian."""
        return self.hvp(target, rho, v)

    def psd_majorizer_diag(self, target: Array, rho: Array) -> Array:
        """W times the diagonal of A for every axis, flat."""
        q, left = self._range
        return np.repeat(self.strength(rho) * (1.0 - q**2 @ (1.0 - left)), self.latent_dim)

    def curvature(self, target: Array, rho: Array, which: Curvature) -> RowCurvature:
        """Blocks w I; a column for each column of Q and each axis."""
        (q, left), d, w = self._range, self.latent_dim, self.strength(rho)
        columns = np.einsum("nj,ab->janb", q, np.eye(d)).reshape(-1, len(q), d)
        return RowCurvature(np.broadcast_to(w * np.eye(d), (len(q), d, d)), columns=columns,
                            core=np.diag(-w * np.repeat(1.0 - left, d)))

    def curvature_vjp(
        self, target: Array, rho: Array, G: RowInverse, which: Curvature
    ) -> Array:
        """Zero: the Hessian is constant."""
        return np.zeros_like(self.rows(target))

    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array]:
        """Log of int exp(-P); the number of rows is that of ``aux``."""
        size = len(self.aux) * self.latent_dim
        value = 0.5 * size * (np.log(2.0 * np.pi) - np.log(self.strength(rho)))
        value -= 0.5 * self.latent_dim * float(np.log(self._range[1]).sum())
        return float(value), np.full(self.rho_count(), -0.5 * size)
