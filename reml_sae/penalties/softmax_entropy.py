"""Entropy of softmax assignments (DESIGN A6).

    P = lambda sum_i H(a_i),  a = softmax(z / tau),  H(a) = -sum_k a_k log a_k

With L_k = log a_k + 1, m = sum_r a_r L_r and scale = lambda / tau^2, per row
    dP/dz_k = (lambda / tau) a_k (m - L_k)
    H_kj    = scale a_k [delta_kj (m - L_k - 1) + a_j (L_k + L_j + 1 - 2 m)],      H 1 = 0
    D       = diag(sum_j |H_kj|): D - H is diagonally dominant, so D majorizes H and is PSD
    G       = scale (diag(a) - a a^T): PSD and smooth but *not* a majorizer

D is the majorizer of the contract. Its derivative jumps where an H_kj changes sign. There log|D|
has a sharp minimum, in which a search stalls. Without jumps is

    S_kk = sum_j sqrt(H_kj^2 + delta^2 G_kj^2),      delta = 0.1

Every root is between |H_kj| and |H_kj| + delta |G_kj|, and the rows of |G| sum to twice its
diagonal, so D <= S <= D + 2 delta diag(G), whatever K. Where a row is nearly hard H exceeds G by
the log of the small share, and S is D to a few parts in a thousand.

A diagonal is far from H, though, where H itself is positive: log|D| of a row of three atoms is half
a nat too large, and so would V be, for every row. The engine (`row_majorizer`, behind `curvature`)
therefore takes the positive part of H, in the scale of S and without the kink at zero:

    T = R f(R^-1 H R^-1) R,      R^2 = S,      f(m) = (m + sqrt(m^2 + epsilon^2)) / 2

As H - S and -H - S are negative semidefinite the eigenvalues m lie in [-1, 1], and f >= max(m, 0)
with an excess of epsilon / 2 at most: T >= H, T >= 0 and T <= H_+ + (epsilon / 2) S, where H_+ is
the positive part in the same scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from reml_sae.errors import InputError
from reml_sae.penalties import _fields
from reml_sae.penalties._matrix import RowPenalty
from reml_sae.penalties._registry import register
from reml_sae.penalties._simplex import log_simplex_partition
from reml_sae.typing import Array

SMOOTHING = 0.1
"""delta of the smooth majorizer."""
ROUNDING = 0.05
"""epsilon of the tight majorizer."""
LEAST_ENTRY = 1e-200
"""Of S at scale 1; a share below it is zero to the tight majorizer."""
LEAST_LOG_SHARE = -800.0
"""Log of a share whose exponential is zero: below it only the share matters."""


@register
@dataclass(frozen=True, eq=False)
class SoftmaxAssignmentSparsityPenalty(RowPenalty):
    """Penalty on the entropy of each row's assignment; target: logits (N, K).

    The methods that take ``row_logits`` and ``scale`` are the same formulas for single rows: one
    row (K,) gives one array, n rows (n, K) give n of them. ``scale`` is lambda / tau^2, and ``w``
    the index of the logit to differentiate by.

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

    ZERO_WEIGHT: ClassVar[bool] = True
    KIND_TAG: ClassVar[str] = "softmax_assignment_sparsity"
    PYTHON_WRAPPER: ClassVar[str] = "SoftmaxAssignmentSparsityPenalty"
    FORMULA: ClassVar[str] = "w sum_i H(a_i),  a = softmax(z / tau),  H(a) = -sum_k a_k log a_k"

    def __post_init__(self) -> None:
        _fields.integer("k_atoms", self.k_atoms, 1)
        _fields.positive("temperature", self.temperature)
        super().__post_init__()

    @classmethod
    def new(cls, k_atoms: int, temperature: float) -> Self:
        """The penalty at weight 1."""
        return cls(k_atoms, temperature)

    def acts_on(self) -> str:
        """Logits."""
        return "logits"

    def width(self) -> int:
        """K."""
        return self.k_atoms

    def _softmax(self, rows: Array) -> tuple[Array, Array, Array]:
        """a, ell = L - m (so that sum_k a_k ell_k = 0), and the entropy 1 - m of rows (n, K)."""
        with np.errstate(over="ignore"):  # a difference of logits may be infinite: its share is 0
            z = (rows - rows.max(1, keepdims=True)) / self.temperature
        log_a = np.maximum(z - np.log(np.exp(z).sum(1, keepdims=True)), LEAST_LOG_SHARE)
        a = np.exp(log_a)
        mean = (a * log_a).sum(1, keepdims=True)
        return a, log_a - mean, -mean[:, 0]

    def _scale(self, rho: Array) -> float:
        return self.strength(rho) / self.temperature**2

    # --- one row, or n of them -----------------------------------------------------------------

    def psd_majorizer_abs_row_sums(self, row: Array, scale: float) -> Array:
        """Diagonal of D, sum_j |H_kj|: (K,) or (n, K)."""
        return np.abs(self.row_dense_hessian(row, scale)).sum(-1)

    def row_dense_hessian(self, row_logits: Array, scale: float) -> Array:
        """H, (K, K) or (n, K, K)."""
        a, ell, scale, shape = self._state(row_logits, scale)
        pair = a[:, :, None] * a[:, None, :] * (ell[:, :, None] + ell[:, None, :] + 1.0)
        return (scale * (pair - self._diagonal(a * (ell + 1.0)))).reshape(shape)

    def row_dense_hessian_logit_derivative(self, row_logits: Array, scale: float, w: int) -> Array:
        """dH/dz_w, (K, K) or (n, K, K)."""
        a, ell, scale, shape = self._state(row_logits, scale)
        da, e_w = self._share_derivative(a, w)
        # d ell_k = (e_k - a)_w - dm,  dm = a_w ell_w, all in units of 1 / tau
        dell = e_w - (a * (1.0 + ell))[:, [w]]
        out = _symmetric(da, a) * (ell[:, :, None] + ell[:, None, :] + 1.0)
        out += a[:, :, None] * a[:, None, :] * (dell[:, :, None] + dell[:, None, :])
        out -= self._diagonal(da * (ell + 1.0) + a * dell)
        return (scale / self.temperature * out).reshape(shape)

    def row_psd_majorizer(self, row_logits: Array, scale: float) -> Array:
        """D, diagonal (K, K) or (n, K, K)."""
        return self._diagonal(self.psd_majorizer_abs_row_sums(row_logits, scale))

    def row_psd_majorizer_logit_derivative(self, row_logits: Array, scale: float, w: int) -> Array:
        """dD/dz_w = diag(sum_j sign(H_kj) dH_kj/dz_w), sign(0) = 0: (K, K) or (n, K, K)."""
        sign = np.sign(self.row_dense_hessian(row_logits, scale))
        slope = self.row_dense_hessian_logit_derivative(row_logits, scale, w)
        return self._diagonal((sign * slope).sum(-1))

    def row_smooth_majorizer(self, row_logits: Array, scale: float) -> Array:
        """S, diagonal (K, K) or (n, K, K): D <= S <= D + 2 `SMOOTHING` diag(G), without jumps."""
        H, G = (matrix(row_logits, scale) for matrix in (self.row_dense_hessian,
                                                         self.row_fisher_metric))
        return self._diagonal(_smooth_sums(H, G))

    def row_tight_majorizer(self, row_logits: Array, scale: float) -> Array:
        """T, the smooth positive part of H in the scale of S: (K, K) or (n, K, K)."""
        scale = _fields.non_negative("scale", scale)
        return scale * self._tight(row_logits).matrix

    def _tight(self, row_logits: Array) -> _Tight:
        H = self.row_dense_hessian(row_logits, 1.0)
        return _Tight(H, _smooth_sums(H, self.row_fisher_metric(row_logits, 1.0)))

    def row_fisher_metric(self, row_logits: Array, scale: float) -> Array:
        """G, (K, K) or (n, K, K): a conditioning reference, not a majorizer."""
        a, _, scale, shape = self._state(row_logits, scale)
        return (scale * (self._diagonal(a) - a[:, :, None] * a[:, None, :])).reshape(shape)

    def row_fisher_metric_logit_derivative(self, row_logits: Array, scale: float, w: int) -> Array:
        """dG/dz_w, (K, K) or (n, K, K)."""
        a, _, scale, shape = self._state(row_logits, scale)
        da, _ = self._share_derivative(a, w)
        return (scale / self.temperature * (self._diagonal(da) - _symmetric(da, a))).reshape(shape)

    def _state(
        self, row_logits: Array, scale: float
    ) -> tuple[Array, Array, float, tuple[int, ...]]:
        """a and ell (n, K), the scale, and the shape of a matrix a row.

        Raises
        ------
        InputError
            Where the logits are not (K,) or (n, K), or not finite, or the scale is negative.
        """
        logits, k = np.asarray(row_logits, float), self.k_atoms
        if logits.ndim not in (1, 2) or logits.shape[-1] != k:
            raise InputError(f"row_logits must be ({k},) or (n, {k}), got shape {logits.shape}")
        if not np.isfinite(logits).all():
            raise InputError("row_logits must be finite; remove NaN and inf")
        scale = _fields.non_negative("scale", scale)
        a, ell, _ = self._softmax(logits.reshape(-1, k))
        return a, ell, scale, (*logits.shape, k)

    def _share_derivative(self, a: Array, w: int) -> tuple[Array, Array]:
        """da/dz_w (n, K) in units of 1 / tau, and the unit vector e_w (K,)."""
        if _fields.integer("w", w, 0) >= self.k_atoms:
            raise InputError(f"w must be below k_atoms = {self.k_atoms}, got {w}")
        e_w = np.eye(self.k_atoms)[w]
        return a * (e_w - a[:, [w]]), e_w

    def _diagonal(self, entries: Array) -> Array:
        """Diagonal matrices (.., K, K) of entries (.., K)."""
        return np.eye(self.k_atoms) * entries[..., None]

    # --- the contract --------------------------------------------------------------------------

    def row_values(self, target: Array, rho: Array) -> Array:
        """Lambda H(a), (n,)."""
        return self.strength(rho) * self._softmax(self.rows(target))[2]

    def row_gradient(self, target: Array, rho: Array) -> Array:
        """Gradient, (n, K)."""
        a, ell, _ = self._softmax(self.rows(target))
        return -(self.strength(rho) / self.temperature) * a * ell

    def hessian_diag(self, target: Array, rho: Array) -> Array:
        """Exact diagonal of H, flat, though H couples the logits of a row."""
        a, ell, _ = self._softmax(self.rows(target))
        return (self._scale(rho) * a * (a * (2.0 * ell + 1.0) - (ell + 1.0))).ravel()

    def psd_majorizer_diag(self, target: Array, rho: Array) -> Array:
        """Diagonal of D, flat."""
        return self.psd_majorizer_abs_row_sums(self.rows(target), self._scale(rho)).ravel()

    def psd_majorizer_hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """D times a flat vector."""
        return self.psd_majorizer_diag(target, rho) * self.rows(v).ravel()

    # --- engine ------------------------------------------------------------------------------

    def row_blocks(self, target: Array, rho: Array) -> Array:
        """H, (n, K, K)."""
        return self.row_dense_hessian(self.rows(target), self._scale(rho))

    def row_majorizer(self, target: Array, rho: Array) -> Array:
        """The tight majorizer T, (n, K, K)."""
        return self.row_tight_majorizer(self.rows(target), self._scale(rho))

    def row_blocks_vjp(self, target: Array, rho: Array, weights: Array) -> Array:
        """Gradient (n, K) of sum_kj W_kj H_kj, for W that need not be symmetric."""
        a, ell, _ = self._softmax(self.rows(target))
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
        """Gradient (n, K) of <W, T>, for W that need not be symmetric."""
        by_h, by_s = self._tight(self.rows(target)).pull_back(
            0.5 * (weights + weights.transpose(0, 2, 1)))
        return self.row_blocks_vjp(target, rho, by_h) + self._smooth_vjp(target, rho, by_s)

    def _smooth_vjp(self, target: Array, rho: Array, weights: Array) -> Array:
        """Gradient (n, K) of sum_k w_k S_kk at weights (n, K)."""
        rows, scale = self.rows(target), self._scale(rho)
        H, G = self.row_dense_hessian(rows, scale), self.row_fisher_metric(rows, scale)
        root = np.hypot(H, SMOOTHING * G)
        # ratios of at most one and ten first: a root may be far too small to divide a weight by
        root = np.where(root > 0.0, root, 1.0)
        by_h = weights[:, :, None] * (H / root)
        by_g = weights[:, :, None] * (SMOOTHING**2 * (G / root))
        # G = scale (diag(a) - a a^T), and da_k = a_k (e_k - a) dz / tau
        a = self._softmax(rows)[0]
        by_a = np.einsum("nkk->nk", by_g) - np.einsum("nkj,nj->nk",
                                                      by_g + by_g.transpose(0, 2, 1), a)
        moved = a * (by_a - (a * by_a).sum(1, keepdims=True))
        return self.row_blocks_vjp(target, rho, by_h) + scale / self.temperature * moved

    def majorizer_slack(self, target: Array, rho: Array) -> Array:
        """`SMOOTHING` times the row sums of |G|, flat."""
        G = self.row_fisher_metric(self.rows(target), self._scale(rho))
        return SMOOTHING * np.abs(G).sum(-1).ravel()

    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array]:
        """N_rows log Z_K(lambda) on the simplex, and its gradient in rho."""
        value, slope = log_simplex_partition(self.k_atoms, self.strength(rho))
        return n_rows * value, np.full(self.rho_count(), n_rows * slope)


class _Tight:
    """T of Hessians H, (n, K, K) or (K, K), and the diagonals s of S."""

    def __init__(self, H: Array, s: Array):
        self._safe = np.where(s > LEAST_ENTRY, s, 1.0)
        self._r = np.sqrt(s)
        self._inverse = np.where(s > LEAST_ENTRY, 1.0 / np.sqrt(self._safe), 0.0)
        self._m = _scaled(H, self._inverse)
        self._values, self._vectors = np.linalg.eigh(self._m)
        self._roots = np.hypot(self._values, ROUNDING)

    @property
    def matrix(self) -> Array:
        """T."""
        part = self._vectors * (0.5 * (self._values + self._roots))[..., None, :]
        return _scaled(part @ np.swapaxes(self._vectors, -1, -2), self._r)

    def pull_back(self, W: Array) -> tuple[Array, Array]:
        """Gradients of <W, T>, W symmetric, in H and in the diagonal of S.

        d<A, f(M)> = <V (V^T A V o F) V^T, dM> with the divided differences F of f (Daleckii and
        Krein), and R enters on both sides of f and of H.
        """
        V, values, roots = self._vectors, self._values, self._roots
        sums, distances = (x[..., :, None] + x[..., None, :] for x in (values, roots))
        turned = np.swapaxes(V, -1, -2) @ _scaled(W, self._r) @ V
        by_m = V @ (turned * 0.5 * (1.0 + sums / distances)) @ np.swapaxes(V, -1, -2)
        by_s = ((W * self.matrix).sum(-1) - (by_m * self._m).sum(-1)) / self._safe
        return _scaled(by_m, self._inverse), by_s


def _smooth_sums(H: Array, G: Array) -> Array:
    """Diagonal of S."""
    return np.asarray(np.hypot(H, SMOOTHING * G).sum(-1), np.float64)


def _scaled(matrix: Array, x: Array) -> Array:
    """diag(x) matrix diag(x) of every row, one side after the other: products stay in range."""
    return np.asarray(matrix * x[..., :, None] * x[..., None, :], np.float64)


def _symmetric(x: Array, y: Array) -> Array:
    """x y^T + y x^T of every row, (n, K, K)."""
    outer = x[:, :, None] * y[:, None, :]
    return outer + outer.transpose(0, 2, 1)
