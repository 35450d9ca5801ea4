"""Softmax assignment: the simplex in K - 1 free logits, and the density that they carry.

The logits of a row are z = U zeta with U (K, K - 1) an orthonormal basis of the sum-zero
vectors. DESIGN A4 names the reference chart z_K = 0; the sum-zero chart spans the same quotient,
but restricts a diagonal majorizer to it without preferring one atom, so that log|H| does not
depend on the order of the atoms.

A share s that the data press to zero has, in u = log s, the density exp(u - c exp(u)): that of a
Gamma variable of shape one, which Laplace's method takes for a Gaussian. Its integral is too small
by Stirling's error for 1!, 1 - (1/2) log 2 pi = .081 nats. The entropy penalty, lambda s log s,
bends the exponent: with kappa = lambda s at the mode the error falls to .068 at kappa = .2, about
where REML puts it, and is between these two below. V counts `SHUT_SHARE` for every such share.

The prior lives on the simplex (DESIGN A1). Its pull-back to zeta adds to the objective

    J(z) = -sum_k log a_k + (K - 1) log tau - (1/2) log K         a = softmax(z / tau)

the last term being the volume of the sum-zero chart relative to (z_1 - z_K, .., z_{K-1} - z_K).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from scipy.linalg import helmert
from scipy.special import log_softmax

from reml_sae.assignments._base import Amplitudes, Assignment
from reml_sae.penalties import Penalty, SoftmaxAssignmentSparsityPenalty
from reml_sae.typing import Array, Mask

LEAST_SHARE = 1e-300
NO_SHARE = 1e-12
SHUT_SHARE = 0.07
"""Nats by which the integral over a share near zero exceeds that of Laplace's method."""


@dataclass(frozen=True)
class SoftmaxChart(Assignment):
    """Chart of the open simplex with ``n_atoms`` vertices.

    Parameters
    ----------
    n_atoms : int
        K, at least 1.
    temperature : float
        tau > 0 in a = softmax(z / tau).
    """

    temperature: float = 1.0
    name: ClassVar[str] = "softmax"
    is_mixture: ClassVar[bool] = True
    has_intercept: ClassVar[bool] = False

    @cached_property
    def basis(self) -> Array:
        """U, (K, K - 1)."""
        return helmert(self.n_atoms).T if self.n_atoms > 1 else np.zeros((1, 0))

    @property
    def least_active(self) -> int:
        """1."""
        return 1

    @property
    def is_single(self) -> bool:
        """Whether there is one atom, whose share is one."""
        return self.n_atoms == 1

    def log_assignments(self, logits: Array) -> Array:
        """Log a, (N, K), finite for all finite logits."""
        return log_softmax(logits / self.temperature, axis=1)

    def amplitudes(self, logits: Array, is_open: Mask) -> SoftmaxAmplitudes:
        """Shares of the atoms; all are open."""
        return SoftmaxAmplitudes(self.log_assignments(logits), self.temperature)

    def start(self, support: Mask, amplitudes: Array) -> Array:
        """Chart coordinates of shares (N, K)."""
        return self.coordinates(self.temperature * np.log(np.maximum(amplitudes, LEAST_SHARE)))

    def centres(self, support: Mask) -> None:
        """None: an atom's constant goes with its share."""

    def leading(self, amplitudes: Array) -> Mask:
        """The first atom of every row."""
        first = np.zeros(amplitudes.shape, bool)
        first[np.arange(len(first)), amplitudes.argmax(axis=1)] = True
        return first

    def users(self, amplitudes: Array, support: Mask) -> Mask:
        """The rows whose first atom it is."""
        return self.leading(amplitudes)

    def normalised(self, amplitudes: Array) -> Array:
        """Shares of the sum, equal ones where there is none."""
        total = amplitudes.sum(axis=1, keepdims=True)
        return np.where(total > NO_SHARE, amplitudes / np.maximum(total, NO_SHARE),
                        1.0 / amplitudes.shape[1])

    def default_penalties(self) -> tuple[Penalty, ...]:
        """The entropy of several shares."""
        if self.n_atoms == 1:
            return ()
        return (SoftmaxAssignmentSparsityPenalty(
            k_atoms=self.n_atoms, temperature=self.temperature),)

    def objection(self, penalty: Penalty) -> str:
        """Entropies of other shares, and priors on gates."""
        if isinstance(penalty, SoftmaxAssignmentSparsityPenalty):
            if penalty.temperature == self.temperature:
                return ""
            return (f"{penalty.KIND_TAG} has temperature={penalty.temperature:g}, but the rows' "
                    f"shares have {self.temperature:g}: its normaliser would be that of other "
                    "shares; give both the same")
        return "" if penalty.acts_on() == "logits" else super().objection(penalty)

    def log_volume(self) -> float:
        """-log (K - 1)!, of the simplex."""
        return -float(np.sum(np.log(np.arange(1, self.n_atoms))))

    def shut_gain(self, support: Mask) -> Array:
        """Of shares near zero: a row's share is one where it lacks the atom's coordinate."""
        return SHUT_SHARE * np.minimum((~support).sum(axis=1), self.n_atoms - 1)


class SoftmaxAmplitudes(Amplitudes):
    """Shares a = softmax(z / tau); J = (diag(a) - a a^T) / tau.

    Parameters
    ----------
    log_a : (N, K) array
    temperature : float
    """

    def __init__(self, log_a: Array, temperature: float):
        self.log_a, self.a, self.temperature = log_a, np.exp(log_a), temperature

    def _over(self, like: Array) -> Array:
        return self.a.reshape(self.a.shape + (1,) * (like.ndim - 2))

    def push(self, v: Array) -> Array:
        """a (v - a . v) / tau."""
        a = self._over(v)
        return a * (v - (a * v).sum(1, keepdims=True)) / self.temperature

    def pull(self, g: Array) -> Array:
        """The same, as J is symmetric."""
        return self.push(g)

    def jacobian(self) -> Array:
        """J, (N, K, K)."""
        diagonal = self.a[:, :, None] * np.eye(self.a.shape[1])
        return (diagonal - self.a[:, :, None] * self.a[:, None, :]) / self.temperature

    def hessian(self, s: Array) -> Array:
        """With c = s - a . s: (diag(a c) - a_l a_m (c_l + c_m)) / tau^2."""
        a = self.a
        centred = s - (a * s).sum(1, keepdims=True)
        pair = -a[:, :, None] * a[:, None, :] * (centred[:, :, None] + centred[:, None, :])
        pair += (a * centred)[:, :, None] * np.eye(a.shape[1])
        return pair / self.temperature**2

    def contract_hessian(self, w: Array) -> Array:
        """a_k (W_kk - 2 (W a)_k + 2 a^T W a - sum_l W_ll a_l) / tau^2."""
        a, diagonal, wa = self.a, np.einsum("nkk->nk", w), np.einsum("nkl,nl->nk", w, self.a)
        common = (2.0 * a * wa - diagonal * a).sum(1, keepdims=True)
        return a * (diagonal - 2.0 * wa + common) / self.temperature**2

    def pull_jacobian(self, c: Array) -> Array:
        """J^T of the gradient in a of (sum_k C_kk a_k - a^T C a) / tau."""
        a = self.a
        both = np.einsum("nlk,nk->nl", c, a) + np.einsum("nlk,nl->nk", c, a)
        return self.pull((np.einsum("nkk->nk", c) - both) / self.temperature)

    def pull_hessian(self, s: Array, w: Array) -> Array:
        """J^T of the gradient in a of sum_lm W_lm (sum_k s_k A_klm)(a)."""
        a = self.a
        mean = (a * s).sum(1, keepdims=True)
        diagonal = np.einsum("nkk->nk", w)
        wa, wsa = np.einsum("nlm,nm->nl", w, a), np.einsum("nlm,nm->nl", w, a * s)
        u = (diagonal * a - 2.0 * a * wa).sum(1, keepdims=True)
        h = diagonal * s - mean * (diagonal - 4.0 * wa) - u * s - 2.0 * s * wa - 2.0 * wsa
        return self.pull(h / self.temperature**2)

    def log_jacobian(self) -> Array:
        """J(z) of every row, (N,)."""
        k, tau = self.a.shape[1], self.temperature
        return -self.log_a.sum(1) + (k - 1) * np.log(tau) - 0.5 * np.log(k)

    def log_jacobian_gradient(self) -> Array:
        """(K a - 1) / tau."""
        return (self.a.shape[1] * self.a - 1.0) / self.temperature

    def log_jacobian_hessian(self) -> Array:
        """K (diag(a) - a a^T) / tau^2, positive semidefinite."""
        k, a = self.a.shape[1], self.a
        return k * (a[:, :, None] * np.eye(k) - a[:, :, None] * a[:, None, :]) / self.temperature**2

    def log_jacobian_hessian_vjp(self, w: Array) -> Array:
        """J^T of the gradient in a of K (sum_k W_kk a_k - a^T W a) / tau^2."""
        scale = self.a.shape[1] / self.temperature**2
        wa = np.einsum("nkl,nl->nk", w, self.a)
        return self.pull(scale * (np.einsum("nkk->nk", w) - 2.0 * wa))
