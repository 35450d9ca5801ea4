"""No decoder is much wider than its prior: the volume where rows say less than nothing of it.

With the rows integrated out, L = l + prior need not curve upwards by as much as the prior P does:
of rows that no circle describes, l curves downwards at B = 0, and at some strengths the mode forks
there, where d2L is singular. Laplace's method would give V = -infinity at a fork, whatever the
data; the integral is finite, as the fourth order of L, or the prior, bounds its width. So where an
eigenvalue mu of H^-1 P, H = d2L (with that of g, `scale`), is above w = `WIDEST`,

    (1/2) log|H|  +  (1/2) sum_{mu > w} log cosh log(mu / w)

stands for half the log-determinant: the factor 1 / mu of the prior's curvature becomes
(1 + (w / mu)^2) / 2w, which joins it smoothly at mu = w and is 1 / 2w at a fork. With U^T H U = I,
U^T P U = diag(mu) and tau = tanh log(mu / w) its derivative is half of

    <H^-1 - U tau U^T, dH> + <U (tau / mu) U^T, dP>.

A planted sphere in 100 rows has two or three directions with mu from 1 to 6, where Laplace's method
is too high by .1 to .4 nats already; with w = 1 the bound would double that. Of posterior
covariances all is left away that is above the prior's, the part U (1 - 1/mu) U^T of H^-1, mu > 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import eigh, solve_triangular

from reml_sae.linalg import DenseCholesky
from reml_sae.typing import Array

WIDEST = 1.5
"""Variance of a decoder over its prior's, above which it is bounded."""


@dataclass(frozen=True)
class HeldByPrior:
    """A curvature of the decoders, and the directions in which their prior exceeds it.

    Attributes
    ----------
    factor : DenseCholesky
        Of H, (P, P).
    ratio : (k,) array
        The eigenvalues mu > 1 of H^-1 P.
    directions : (P, k) array
        U of these.
    """

    factor: DenseCholesky
    ratio: Array
    directions: Array

    @classmethod
    def of(cls, factor: DenseCholesky, prior: Array) -> HeldByPrior:
        """Find these directions for the factor of H and the curvature of the prior."""
        half = solve_triangular(factor.lower, prior, lower=True)
        relative = solve_triangular(factor.lower, half.T, lower=True)
        ratio, vectors = eigh(relative, subset_by_value=(1.0, np.inf))
        return cls(factor, ratio, solve_triangular(factor.lower, vectors, lower=True, trans="T"))

    def half_logdet(self) -> float:
        """Half the log-determinant, bounded."""
        bound = np.logaddexp(self._above, -self._above) - np.log(2.0)
        return 0.5 * (self.factor.logdet() + float(bound.sum()))

    @cached_property
    def _above(self) -> Array:
        return np.asarray(np.log(np.maximum(self.ratio / WIDEST, 1.0)))

    @cached_property
    def inverse(self) -> Array:
        """H^-1."""
        return self.factor.inverse()

    @cached_property
    def _tau(self) -> Array:
        return np.tanh(self._above)

    def _weighted(self, weights: Array) -> Array:
        return (self.directions * weights) @ self.directions.T

    @cached_property
    def by_curvature(self) -> Array:
        """Twice the derivative of `half_logdet` in H at fixed P."""
        return self.inverse - self._weighted(self._tau)

    @cached_property
    def by_prior(self) -> Array:
        """Twice the derivative of `half_logdet` in P, which is a part of H."""
        return self.by_curvature + self._weighted(self._tau / self.ratio)

    @cached_property
    def covariance(self) -> Array:
        """Posterior covariance, nowhere above P^-1."""
        return self.inverse - self._weighted(1.0 - 1.0 / self.ratio)
