"""A robust prior of coordinates: quadratic near zero, linear far from it.

    P = w sum log cosh(t / s),  int cosh(t / s)^-w dt = s sqrt(pi) Gamma(w / 2) / Gamma((w + 1) / 2)

It is convex and smooth, and proper for every w > 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import digamma, gammaln

from reml_sae import penalties as pen
from reml_sae.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class LogCoshPenalty(pen.RowPenalty):
    """Log-cosh prior of coordinates; target: (n, d).

    Parameters
    ----------
    latent_dim : int
        d >= 1.
    scale : float
        s > 0, where the quadratic turns into the linear part.
    weight, weight_schedule, learnable, atom
        See `Penalty`.
    """

    latent_dim: int
    scale: float = 1.0

    KIND_TAG: ClassVar[str] = "log_cosh"
    PYTHON_WRAPPER: ClassVar[str] = "LogCoshPenalty"
    FORMULA: ClassVar[str] = "w sum log cosh(t / s)"

    def __post_init__(self):
        if not isinstance(self.latent_dim, int) or self.latent_dim < 1:
            raise InputError(f"latent_dim must be an integer >= 1, got {self.latent_dim!r}")
        if not isinstance(self.scale, (int, float)) or not 0 < self.scale < np.inf:
            raise InputError(f"scale must be a positive number, got {self.scale!r}")
        super().__post_init__()

    def width(self):
        """Columns of the target."""
        return self.latent_dim

    def row_values(self, target, rho):
        """P of every row, (n,)."""
        x = np.abs(self.rows(target)) / self.scale
        return self.strength(rho) * (x + np.log1p(np.exp(-2.0 * x)) - np.log(2.0)).sum(axis=1)

    def row_gradient(self, target, rho):
        """Gradient, (n, d)."""
        return self.strength(rho) / self.scale * np.tanh(self.rows(target) / self.scale)

    def row_blocks(self, target, rho):
        """Hessian blocks, (n, d, d); they are diagonal."""
        slope = 1.0 - np.tanh(self.rows(target) / self.scale) ** 2
        return self.strength(rho) / self.scale**2 * slope[:, :, None] * np.eye(self.latent_dim)

    def row_blocks_vjp(self, target, rho, weights):
        """Gradient (n, d) of sum_ab W_ab Hess_ab."""
        x = np.tanh(self.rows(target) / self.scale)
        third = -2.0 * self.strength(rho) / self.scale**3 * (1.0 - x**2) * x
        return third * np.einsum("naa->na", weights)

    def log_partition(self, rho, n_rows):
        """Log of the integral of exp(-P) over (n_rows, d), and its gradient in rho."""
        half = 0.5 * self.strength(rho)
        entries = n_rows * self.latent_dim
        value = np.log(self.scale) + 0.5 * np.log(np.pi) + gammaln(half) - gammaln(half + 0.5)
        slope = half * (digamma(half) - digamma(half + 0.5))
        return entries * value, np.full(self.rho_count(), entries * slope)
