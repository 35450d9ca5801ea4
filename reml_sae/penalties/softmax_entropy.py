"""Entropy of softmax assignments (DESIGN A6).

    P = lambda sum_i H(a_i),  a = softmax(z / tau),  H(a) = -sum_k a_k log a_k

With L_k = log a_k + 1, m = sum_r a_r L_r and scale = lambda / tau^2, per row
    dP/dz_k = (lambda / tau) a_k (m - L_k)
    H_kj    = scale a_k [delta_kj (m - L_k - 1) + a_j (L_k + L_j + 1 - 2 m)],      H 1 = 0
    D       = diag(sum_j |H_kj|): D - H is diagonally dominant, so D majorizes H and is PSD
    G       = scale (diag(a) - a a^T): PSD and smooth but *not* a majorizer

The methods named row_psd_* keep the hard absolute values. The engine uses the smooth majorizer
D_kk = sum_j sqrt(H_kj^2 + delta^2 ||H_k.||^2) >= sum_j |H_kj|, whose derivative has no jumps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from reml_sae.penalties import _fields
from reml_sae.penalties._matrix import RowPenalty
from reml_sae.penalties._registry import register
from reml_sae.penalties._simplex import log_simplex_partition

Array = NDArray[np.float64]

SMOOTHING = 1e-4
"""delta of the smooth majorizer; it inflates D by at most K delta, relatively."""


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class SoftmaxAssignmentSparsityPenalty(RowPenalty):
    """Penalty on the entropy of each row's assignment; target: logits (N, K).

    Parameters
    ----------
    k_atoms : int
        K >= 1; checked against the target.
    temperature : float
        tau > 0.
    weight, weight_schedule, learnable
        See `Penalty`.
    """

    k_atoms: int
    temperature: float = 1.0

    KIND_TAG: ClassVar[str] = "softmax_assignment_sparsity"
    PYTHON_WRAPPER: ClassVar[str] = "SoftmaxAssignmentSparsityPenalty"
    FORMULA: ClassVar[str] = "w sum_i H(a_i),  a = softmax(z / tau),  H(a) = -sum_k a_k log a_k"

    def __post_init__(self) -> None:
        _fields.integer("k_atoms", self.k_atoms, 1)
        _fields.positive("temperature", self.temperature)
        super().__post_init__()

    def acts_on(self) -> str:
        """Logits."""
        return "logits"

    def width(self) -> int:
        """K."""
        return self.k_atoms

    def _softmax(self, target: Array) -> tuple[Array, Array, Array]:
        """a, ell = L - m (so that sum_k a_k ell_k = 0), and the entropy 1 - m of every row."""
        log_a = log_softmax(self.rows(target) / self.temperature, axis=1)
        a = np.exp(log_a)
        mean = (a * log_a).sum(1, keepdims=True)
        return a, log_a - mean, -mean[:, 0]

    # --- value and exact derivatives ---------------------------------------------------------

    def row_values(self, target: Array, rho: Array) -> Array:
        """Lambda H(a), (n,)."""
        return self.strength(rho) * self._softmax(target)[2]

    def row_gradient(self, target: Array, rho: Array) -> Array:
        """Gradient, (n, K)."""
        a, ell, _ = self._softmax(target)
        return -(self.strength(rho) / self.temperature) * a * ell

    def row_dense_hessian(self, target: Array, rho: Array) -> Array:
        """H of every row, (n, K, K)."""
        a, ell, _ = self._softmax(target)
        pair = a[:, :, None] * a[:, None, :] * (ell[:, :, None] + ell[:, None, :] + 1.0)
        return self._scale(rho) * (pair - np.eye(self.k_atoms) * (a * (ell + 1.0))[:, :, None])

    def _scale(self, rho: Array) -> float:
        return self.strength(rho) / self.temperature**2

    def row_dense_hessian_logit_derivative(self, target: Array, rho: Array) -> Array:
        """d H_kj / d z_w, (n, K, K, K) with w last."""
        a, ell, _ = self._softmax(target)
        eye = np.eye(self.k_atoms)
        da = a[:, :, None] * (eye - a[:, None, :])
        # d ell_k = (e_k - a)_w - d m, d m/dz_w = a_w ell_w (all in units of 1 / tau)
        dell = eye - a[:, None, :] - (a * ell)[:, None, :]
        level = ell[:, :, None] + ell[:, None, :] + 1.0
        out = (da[:, :, None, :] * a[:, None, :, None] + a[:, :, None, None] * da[:, None, :, :])
        out = out * level[:, :, :, None]
        out += (a[:, :, None] * a[:, None, :])[..., None] * (
            dell[:, :, None, :] + dell[:, None, :, :])
        diagonal = da * (ell + 1.0)[:, :, None] + a[:, :, None] * dell
        out -= eye[None, :, :, None] * diagonal[:, :, None, :]
        return self._scale(rho) / self.temperature * out

    # --- majorizer and metric ----------------------------------------------------------------

    def psd_majorizer_abs_row_sums(self, target: Array, rho: Array) -> Array:
        """Hard Gershgorin diagonal, flat."""
        return self.row_psd_majorizer(target, rho).ravel()

    def row_psd_majorizer(self, target: Array, rho: Array) -> Array:
        """Hard Gershgorin diagonal sum_j |H_kj|, (n, K)."""
        return np.abs(self.row_dense_hessian(target, rho)).sum(2)

    def row_psd_majorizer_logit_derivative(self, target: Array, rho: Array) -> Array:
        """d D_kk / d z_w, (n, K, K), with sign(0) = 0."""
        sign = np.sign(self.row_dense_hessian(target, rho))
        return np.einsum("nkj,nkjw->nkw", sign,
                         self.row_dense_hessian_logit_derivative(target, rho))

    def row_fisher_metric(self, target: Array, rho: Array) -> Array:
        """Scale (diag(a) - a a^T), (n, K, K): a conditioning reference, not a majorizer."""
        a = self._softmax(target)[0]
        return self._scale(rho) * (np.eye(self.k_atoms) * a[:, :, None]
                                   - a[:, :, None] * a[:, None, :])

    def row_fisher_metric_logit_derivative(self, target: Array, rho: Array) -> Array:
        """d G_kj / d z_w, (n, K, K, K)."""
        a = self._softmax(target)[0]
        eye = np.eye(self.k_atoms)
        da = a[:, :, None] * (eye - a[:, None, :])
        out = eye[None, :, :, None] * da[:, :, None, :]
        out = out - da[:, :, None, :] * a[:, None, :, None] - a[:, :, None, None] * da[:, None]
        return self._scale(rho) / self.temperature * out

    # --- engine ------------------------------------------------------------------------------

    def hessian_diag(self, target: Array, rho: Array) -> None:
        """None: the Hessian couples the logits of a row."""
        return

    def row_blocks(self, target: Array, rho: Array) -> Array:
        """H, (n, K, K)."""
        return self.row_dense_hessian(target, rho)

    def row_majorizer(self, target: Array, rho: Array) -> Array:
        """Smooth Gershgorin majorizer, diagonal blocks (n, K, K)."""
        return np.eye(self.k_atoms) * self._smooth(target, rho)[0][:, :, None]

    def _smooth(self, target: Array, rho: Array) -> tuple[Array, Array]:
        """Diagonal D (n, K), and E (n, K, K) with dD_kk = sum_j E_kj dH_kj."""
        h = self.row_dense_hessian(target, rho)
        floor = np.finfo(float).tiny
        square = (h**2).sum(2, keepdims=True)
        root = np.sqrt(h**2 + SMOOTHING**2 * square + floor)
        diagonal = root.sum(2)
        jacobian = h / root + SMOOTHING**2 * h * (1.0 / root).sum(2, keepdims=True)
        return diagonal, jacobian

    def row_blocks_vjp(self, target: Array, rho: Array, weights: Array) -> Array:
        """Gradient (n, K) of sum_kj W_kj H_kj, for W that need not be symmetric."""
        a, ell, _ = self._softmax(target)
        total = weights + weights.transpose(0, 2, 1)
        diagonal = np.einsum("nkk->nk", weights)
        # f / scale = sum_kj W_kj a_k a_j (ell_k + ell_j + 1) - sum_k W_kk a_k (ell_k + 1)
        first = np.einsum("nkj,nj->nk", total, a)
        second = np.einsum("nkj,nj->nk", total, a * ell)
        by_a = (ell + 1.0) * first + second - diagonal * (ell + 1.0)
        by_ell = a * (first - diagonal)
        # chain: da_k = a_k (e_k - a) dz, dell_k = (e_k - a - a ell) dz
        grad = a * (by_a - (a * by_a).sum(1, keepdims=True))
        grad += by_ell - a * (1.0 + ell) * by_ell.sum(1, keepdims=True)
        return self._scale(rho) / self.temperature * grad

    def row_majorizer_vjp(self, target: Array, rho: Array, weights: Array) -> Array:
        """Gradient (n, K) of sum_k W_kk D_kk."""
        jacobian = self._smooth(target, rho)[1]
        return self.row_blocks_vjp(target, rho,
                                   np.einsum("nkk->nk", weights)[:, :, None] * jacobian)

    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array]:
        """N_rows log Z_K(lambda) on the simplex, and its gradient in rho."""
        value, slope = log_simplex_partition(self.k_atoms, self.strength(rho))
        return n_rows * value, np.full(self.rho_count(), n_rows * slope)
