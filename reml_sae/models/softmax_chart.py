"""The softmax chart of the simplex: K - 1 free logits, and the density that they carry.

The logits of a row are z = U zeta with U (K, K - 1) an orthonormal basis of the sum-zero
vectors. DESIGN A4 names the reference chart z_K = 0; the sum-zero chart spans the same quotient,
but restricts a diagonal majorizer to it without preferring one atom, so that log|H| does not
depend on the order of the atoms.

The prior lives on the simplex (DESIGN A1). Its pull-back to zeta adds to the objective

    J(z) = -sum_k log a_k + (K - 1) log tau - (1/2) log K         a = softmax(z / tau)

the last term being the volume of the sum-zero chart relative to (z_1 - z_K, .., z_{K-1} - z_K).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import helmert
from scipy.special import log_softmax

Array = NDArray[np.float64]


class SoftmaxChart:
    """Chart of the open simplex with ``n_atoms`` vertices.

    Parameters
    ----------
    n_atoms : int
        K, at least 1.
    temperature : float
        tau > 0 in a = softmax(z / tau).
    """

    def __init__(self, n_atoms: int, temperature: float = 1.0):
        self.n_atoms = n_atoms
        self.temperature = temperature
        self.basis: Array = helmert(n_atoms).T if n_atoms > 1 else np.zeros((1, 0))
        """U, (K, K - 1)."""

    @property
    def dim(self) -> int:
        """Free parameters of a row, K - 1."""
        return self.n_atoms - 1

    def logits(self, zeta: Array) -> Array:
        """Logits z (N, K) of the chart coordinates (N, K - 1)."""
        return zeta @ self.basis.T

    def coordinates(self, logits: Array) -> Array:
        """Chart coordinates (N, K - 1) of logits (N, K), whose row means are ignored."""
        return logits @ self.basis

    def log_assignments(self, logits: Array) -> Array:
        """Log a, (N, K), finite for all finite logits."""
        return log_softmax(logits / self.temperature, axis=1)

    def log_jacobian(self, log_a: Array) -> Array:
        """J(z) of every row, (N,)."""
        k, tau = self.n_atoms, self.temperature
        return -log_a.sum(1) + (k - 1) * np.log(tau) - 0.5 * np.log(k)

    def log_jacobian_gradient(self, a: Array) -> Array:
        """Gradient of J, (N, K): (K a - 1) / tau."""
        return (self.n_atoms * a - 1.0) / self.temperature

    def log_jacobian_hessian(self, a: Array) -> Array:
        """Hessian of J, (N, K, K): K (diag(a) - a a^T) / tau^2, positive semidefinite."""
        diagonal = a[:, :, None] * np.eye(self.n_atoms)
        return self.n_atoms * (diagonal - a[:, :, None] * a[:, None, :]) / self.temperature**2

    def log_jacobian_hessian_vjp(self, a: Array, weights: Array) -> Array:
        """Gradient in z of sum_jk W_jk Hess(J)_jk for fixed symmetric W (N, K, K): (N, K)."""
        # f(a) = K (sum_k W_kk a_k - a^T W a) / tau^2, then the chain rule through softmax
        scale = self.n_atoms / self.temperature**2
        h = scale * (np.einsum("nkk->nk", weights) - 2.0 * np.einsum("nkl,nl->nk", weights, a))
        return self.pull_back(a, h)

    def pull_back(self, a: Array, grad_a: Array) -> Array:
        """Chain rule: the gradient in z of a function with gradient ``grad_a`` in a, (N, K)."""
        mean = (a * grad_a).sum(1, keepdims=True)
        return a * (grad_a - mean) / self.temperature
