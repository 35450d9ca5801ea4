"""Ordered Beta-Bernoulli prior on gates.

    P = sum_k F_k(M_k),   M_k = sum_i z_ik,   z = sigmoid(l / tau),   alpha = weight exp(rho)
    F_k(M) = -ln a_k - lnGamma(M + a_k) - lnGamma(N - M + 1) + lnGamma(N + a_k + 1)
    a_k = mu_k / (1 - mu_k) = 1 / (e^x - 1),   mu_k = (alpha / (alpha + 1))^(k+1) = e^-x

exp(-P) is the probability of binary gates whose frequency in column k has a Beta(a_k, 1) prior, so
it sums to one over z in {0, 1}^(N x K) for every alpha: log C = 0, with no derivative. That is the
normaliser of the prior on gates. In logits the integral is infinite; a density there needs the
Jacobian of the gates, which belongs to the assignment chart as it does on the simplex.

Hessian in column k: F'' u u^T + diag(F' z''), u = dz/dl and z'' = z (1 - z)(1 - 2 z) / tau^2. F'' =
-psi'(M + a) - psi'(N - M + 1) < 0, so the first term is dropped from the majorizer
    B = diag(z (1 - z) / tau^2 S(y)),   y = F' (1 - 2 z),   S(y) = (y + sqrt(y^2 + delta^2)) / 2
which is smooth, and S(y) > max(y, 0). B depends on all rows through F'(M_k).

With m = M + a near 0, F' is near 1/m while z <= m: derivatives are kept as c F', c^2 F'', c^3 F'''
and z / c = z + z / m with c = m / (1 + m), all finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from scipy.special import digamma, expit, gammaln, log_expit, logsumexp, polygamma

from reml_sae.penalties import _fields
from reml_sae.penalties._curvature import RowCurvature, RowInverse
from reml_sae.penalties._matrix import MatrixPenalty
from reml_sae.penalties._registry import register
from reml_sae.typing import Array, Curvature

SMOOTHING = 0.1
"""delta of the majorizer, in nats, the unit of F'."""


class _State(NamedTuple):
    """Gates (N, K) and columns (K,) at a target; c as in the module's docstring."""

    z: Array
    over: Array
    """z / c."""
    rest: Array
    """1 - z."""
    a: Array
    log_ratio: Array
    """log(m / a)."""
    gamma: Array
    """d log a / d log alpha."""
    m: Array
    left: Array
    """N - M."""
    share: Array
    """a / m."""
    r: Array
    """1 / (1 + m) = c / m."""
    c: Array
    d1: Array
    """c F'."""
    d2: Array
    """c^2 F''."""


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class OrderedBetaBernoulliPenalty(MatrixPenalty):
    """Prior under which gates of later atoms open more rarely; target: logits (N, K).

    The strength, weight exp(rho), is alpha: about as many atoms are in common use. P is not linear
    in it.

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

    KIND_TAG: ClassVar[str] = "ordered_beta_bernoulli"
    PYTHON_WRAPPER: ClassVar[str] = "OrderedBetaBernoulliPenalty"
    ROW_BLOCK_DIAGONAL: ClassVar[bool] = True
    FORMULA: ClassVar[str] = (
        "sum_k [-ln a_k - lnGamma(M_k + a_k) - lnGamma(N - M_k + 1) + lnGamma(N + a_k + 1)],  "
        "M_k = sum_i sigmoid(l_ik / temperature),  a_k = mu_k / (1 - mu_k),  "
        "mu_k = (w / (w + 1))^(k + 1)"
    )

    def __post_init__(self) -> None:
        _fields.integer("k_atoms", self.k_atoms, 1)
        _fields.positive("temperature", self.temperature)
        super().__post_init__()

    def acts_on(self) -> str:
        """Logits of independent gates."""
        return "gate logits"

    def width(self) -> int:
        """K."""
        return self.k_atoms

    def _state(self, target: Array, rho: Array) -> _State:
        x = self.rows(target) / self.temperature
        alpha = self.strength(rho)
        order = np.arange(1.0, self.k_atoms + 1.0)
        decay = order * np.log1p(1.0 / alpha)  # -log mu
        log_a = -decay - np.log(-np.expm1(-decay))
        a = np.exp(log_a)
        log_z = log_expit(x)
        log_m = np.logaddexp(logsumexp(log_z, axis=0), log_a)
        z, rest, m = np.exp(log_z), expit(-x), np.exp(log_m)
        left = rest.sum(axis=0)
        r = 1.0 / (1.0 + m)
        c = m * r
        return _State(
            z=z, over=z + np.exp(log_z - log_m), rest=rest, a=a, log_ratio=log_m - log_a,
            gamma=order / ((alpha + 1.0) * -np.expm1(-decay)), m=m, left=left,
            share=np.exp(log_a - log_m), r=r, c=c,
            d1=r + c * (digamma(left + 1.0) - digamma(m + 1.0)),
            d2=-(r**2) - c**2 * (polygamma(1, m + 1.0) + polygamma(1, left + 1.0)),
        )

    def _slope(self, s: _State) -> Array:
        """U / c, (N, K)."""
        return s.over * s.rest / self.temperature

    # --- value and first derivatives ---------------------------------------------------------

    def value(self, target: Array, rho: Array) -> float:
        """P at alpha."""
        s = self._state(target, rho)
        # lnGamma(m) = lnGamma(m + 1) - ln m, and N + a = m + left
        return float((s.log_ratio - gammaln(s.left + 1.0) + _steps(s.m + 1.0, s.left)[0]).sum())

    def row_gradient(self, target: Array, rho: Array) -> Array:
        """F' u, (N, K)."""
        s = self._state(target, rho)
        return s.d1 * self._slope(s)

    def grad_rho(self, target: Array, rho: Array) -> Array:
        """Derivative of P in log alpha."""
        s = self._state(target, rho)
        terms = s.gamma * (s.share - 1.0 + s.a * _steps(s.m + 1.0, s.left)[1])
        return np.full(self.rho_count(), terms.sum())

    def _d1_rho(self, s: _State) -> Array:
        """Derivative of F' in log alpha, times c, (K,)."""
        return -s.gamma * (s.share * s.r + s.c * s.a * polygamma(1, s.m + 1.0))

    def grad_target_rho(self, target: Array, rho: Array) -> Array:
        """Derivative of the gradient in log alpha, (rho_count, N, K)."""
        s = self._state(target, rho)
        return np.repeat((self._d1_rho(s) * self._slope(s))[None], self.rho_count(), axis=0)

    def opening_cost(self, counts: Array, n_rows: int, rho: Array) -> Array:
        """Log odds (K,) against an open gate in one more row, given counts (K,) of open gates.

        The gate's frequency has the posterior Beta(M + a, n_rows - M + 1).
        """
        decay = np.arange(1.0, self.k_atoms + 1.0) * np.log1p(1.0 / self.strength(rho))
        a = np.exp(-decay - np.log(-np.expm1(-decay)))
        odds: Array = np.log(n_rows - counts + 1.0) - np.log(counts + a)
        return odds

    # --- curvature ---------------------------------------------------------------------------

    def _local(self, s: _State, which: Curvature) -> tuple[Array, Array]:
        """Diagonal of the row-local part, and its derivative in y over c; both (N, K)."""
        scale = self._slope(s) / self.temperature
        y = s.d1 * (s.rest - s.z)
        if which == "exact":
            return scale * y, scale
        root = np.hypot(y, s.c * SMOOTHING)
        return 0.5 * scale * (y + root), 0.5 * scale * (1.0 + y / root)

    def hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """Exact Hessian times a vector, flat, in O(N K)."""
        s, view = self._state(target, rho), self.rows(v)
        u = self._slope(s)
        return (self._local(s, "exact")[0] * view + u * (s.d2 * (u * view).sum(axis=0))).ravel()

    def psd_majorizer_diag(self, target: Array, rho: Array) -> Array:
        """Diagonal of the majorizer, flat."""
        return self._local(self._state(target, rho), "majorizer")[0].ravel()

    def psd_majorizer_hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """Majorizer times a vector, flat."""
        return self.psd_majorizer_diag(target, rho) * self.rows(v).ravel()

    def curvature(self, target: Array, rho: Array, which: Curvature) -> RowCurvature:
        """Diagonal blocks; the exact Hessian adds a column u / c of core c^2 F'' for each k."""
        s = self._state(target, rho)
        eye = np.eye(self.k_atoms)
        blocks = self._local(s, which)[0][:, :, None] * eye
        if which == "majorizer":
            return RowCurvature(blocks)
        columns = self._slope(s).T[:, :, None] * eye[:, None, :]
        return RowCurvature(blocks, columns=columns, core=np.diag(s.d2))

    def curvature_vjp(
        self, target: Array, rho: Array, G: RowInverse, which: Curvature
    ) -> Array:
        """Gradient (N, K) of <G, B>, through z and through M_k."""
        s, tau = self._state(target, rho), self.temperature
        g, u, lean = np.einsum("nkk->nk", G.blocks), self._slope(s), s.rest - s.z
        local, by_y = self._local(s, which)
        # z(1-z) has the derivative z(1-z)(1-2z) / tau, y has -2 F' dz/dl, and F' moves with M_k
        out = g * (local * lean / tau - 2.0 * by_y * s.d1 * s.c * u)
        out += u * s.d2 * (g * by_y * lean).sum(axis=0)
        if which == "exact":
            Gu = np.einsum("knk->nk", G.columns)
            d3 = 2.0 * s.r**3 + s.c**3 * (polygamma(2, s.left + 1.0) - polygamma(2, s.m + 1.0))
            out += u * (d3 * (u * Gu).sum(axis=0)) + 2.0 * s.d2 * Gu * u * lean / tau
        return out

    def curvature_rho(
        self, target: Array, rho: Array, G: RowInverse, which: Curvature
    ) -> Array:
        """Derivative of <G, B> in log alpha, (rho_count,)."""
        s = self._state(target, rho)
        by_d1 = self._local(s, which)[1] * (s.rest - s.z)
        total = (self._d1_rho(s) * (np.einsum("nkk->nk", G.blocks) * by_d1).sum(axis=0)).sum()
        if which == "exact":
            q = (self._slope(s) * np.einsum("knk->nk", G.columns)).sum(axis=0)
            d2_rho = s.gamma * (2.0 * s.share * s.r**2 - s.c**2 * s.a * polygamma(2, s.m + 1.0))
            total += (d2_rho * q).sum()
        return np.full(self.rho_count(), total)

    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array]:
        """Zero: exp(-P) sums to one over binary gates, whatever alpha."""
        self.strength(rho)
        return 0.0, np.zeros(self.rho_count())


def _steps(x: Array, y: Array) -> tuple[Array, Array]:
    """Differences between x + y and x of lnGamma and psi, y >= 0.

    Where x is large the differences cancel, and Stirling's series are subtracted term by term.
    """
    top, step = x + y, np.log1p(y / x)
    u, v = 1.0 / x, 1.0 / top
    log_gamma = (x - 0.5) * step + y * (np.log(top) - 1.0) + (v - u) / 12.0 - (v**3 - u**3) / 360.0
    psi = step - 0.5 * (v - u) - (v - u) * (v + u) / 12.0
    small = x < 1e3
    return (np.where(small, gammaln(top) - gammaln(x), log_gamma),
            np.where(small, digamma(top) - digamma(x), psi))
