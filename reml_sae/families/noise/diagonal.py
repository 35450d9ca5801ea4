"""Noise with a variance for each column.

Omega = diag(exp(d)), d ~ N(0, s^2) on sum(d) = 0, the spread s chosen by V. The information about d
is n / 2 in every direction. A column that does not vary would have the lowest V without any noise:
it has no variance of its own, but the geometric mean of the others, d = 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from scipy.optimize import minimize_scalar

from reml_sae.families.noise._base import LEAST_SHARE, TINY, Noise, charged
from reml_sae.families.noise.isotropic import Isotropic
from reml_sae.typing import Array, Mask

LARGEST_SPREAD, LARGEST_LOG = 10.0, 50.0
"""Of log variances of columns, as a standard deviation, and of one in size."""
DAMPED_ABOVE = 0.5
"""Step of a log variance from which Newton's method is damped."""


@dataclass(frozen=True, eq=False)
class Diagonal(Noise):
    """Omega = diag(exp(d)).

    Attributes
    ----------
    log_variances : (p,) array
        d, of sum zero; exactly zero of a column without a variance of its own.
    spread : float
        Prior standard deviation s of d; 0 where all are zero.
    """

    log_variances: Array
    spread: float
    kind: ClassVar[str] = "diagonal"

    @classmethod
    def best(cls, second: Array, n_rows: int) -> Diagonal:
        """By the spread that V chooses."""
        variances = np.diag(second)
        own = variances > LEAST_SHARE * variances.mean()
        if own.sum() < 2:
            return Diagonal(np.zeros(len(second)), 0.0)
        logs = np.log(np.maximum(variances[own], TINY))

        def at(log_spreads: Array) -> list[Diagonal]:
            d = np.zeros((len(log_spreads), len(second)))
            d[:, own] = _shrunk(logs, n_rows * len(second) / own.sum(), np.exp(log_spreads))
            return [Diagonal(mode, float(np.exp(u)) if mode.any() else 0.0)
                    for mode, u in zip(d, log_spreads, strict=True)]

        def value(log_spread: float) -> float:
            return charged(at(np.array([log_spread]))[0], second, n_rows)

        top = float(np.log(LARGEST_SPREAD))
        bottom = 0.5 * float(np.log(1e-4 / n_rows))
        grid = np.linspace(bottom, top, 12)
        best = int(np.argmin([charged(noise, second, n_rows) for noise in at(grid)]))
        if best == 0:
            return Diagonal(np.zeros(len(second)), 0.0)
        bracket = grid[best - 1], grid[min(best + 1, len(grid) - 1)]
        return at(np.array([minimize_scalar(value, bounds=bracket, method="bounded").x]))[0]

    @classmethod
    def of(cls, arrays: Mapping[str, Array], p: int) -> Self:
        """Made of ``log_variances`` (p,) and ``spread`` (1,)."""
        return cls(arrays["log_variances"], arrays["spread"].item())

    def arrays(self) -> dict[str, Array]:
        """``log_variances`` (p,) and ``spread`` (1,)."""
        return {"log_variances": self.log_variances, "spread": np.array([self.spread])}

    def __repr__(self) -> str:
        least, most = np.exp([self.log_variances.min(), self.log_variances.max()])
        return f"Diagonal(p={len(self.log_variances)}, variances={least:.3g} .. {most:.3g})"

    @property
    def shape(self) -> Array:
        """Omega, (p, p)."""
        return np.diag(np.exp(self.log_variances))

    def simpler(self) -> Noise | None:
        """The isotropic one."""
        return Isotropic(len(self.log_variances))

    def dispersion(self, second: Array) -> float:
        """See `Noise.dispersion`; it needs the variances of S alone."""
        return float((np.diag(second) * np.exp(-self.log_variances)).mean())

    def whiten(self, Z: Array) -> Array:
        """Columns divided by their own scale."""
        return np.asarray(Z * np.exp(-0.5 * self.log_variances))

    def colour(self, Z: Array) -> Array:
        """Columns times their own scale."""
        return np.asarray(Z * np.exp(0.5 * self.log_variances))

    @property
    def _own(self) -> Mask:
        """Columns (p,) that have a variance of their own."""
        return np.asarray(self.log_variances != 0.0)

    def parameters(self) -> Array:
        """d of the columns that have their own, whose mean is of no account, and log s."""
        if not self.spread:
            return np.zeros(0)
        return np.append(self.log_variances[self._own], np.log(self.spread))

    def at(self, parameters: Array) -> Self:
        """The noise of other d and log s."""
        if not self.spread:
            return self
        log_spread = np.clip(parameters[-1], -LARGEST_LOG, np.log(LARGEST_SPREAD))
        d = np.zeros_like(self.log_variances)
        d[self._own] = np.clip(parameters[:-1] - parameters[:-1].mean(), -LARGEST_LOG, LARGEST_LOG)
        return type(self)(d, float(np.exp(log_spread)))

    def gradient(self, parameters: Array, slope: Array, n_rows: int) -> Array:
        """See `Noise.gradient`."""
        if not self.spread:
            return np.zeros(0)
        square, own = self.spread**2, self._own
        d, free = self.log_variances[own], int(own.sum()) - 1
        along = -0.5 * np.exp(-0.5 * d) * np.diag(slope)[own] + d / square
        information = 0.5 * n_rows * square
        spread = free * information / (1.0 + information)
        spread -= float(d @ d) / square
        return np.append(along - along.mean(), spread)

    def cost(self, n_rows: int) -> float:
        """Prior and Laplace's term of d."""
        if self.spread == 0.0:
            return 0.0
        square, free = self.spread**2, int(self._own.sum()) - 1
        return float(0.5 * (self.log_variances @ self.log_variances) / square
                     + 0.5 * free * np.log1p(0.5 * n_rows * square))


def _shrunk(logs: Array, n_rows: float, spreads: Array) -> Array:
    """Modes of d under priors (S,) at the best phi, (S, p), from the log variances of the columns.

    Newton's method on n / 2 (sum_o d_o + p log phi) + |d|^2 / (2 s^2), phi the mean of
    exp(l_o - d_o); the mean of d is phi's, and taken out. Far from the mode, where exponentials are
    unlike their series, the curvature of each is bounded from below, and phi held.
    """
    half, prior = 0.5 * n_rows, spreads[:, None] ** -2.0
    d = np.tile(logs - logs.mean(), (len(spreads), 1))
    for _ in range(100):
        share = np.exp(logs - d)
        share /= share.mean(axis=1, keepdims=True)
        gradient = half * (1.0 - share) + prior * d
        gradient -= gradient.mean(axis=1, keepdims=True)
        bounded = gradient / (half * np.maximum(share, 1.0) + prior)
        own = half * share + prior
        step, along = gradient / own, share / own
        step += along * ((share * step).sum(axis=1, keepdims=True)
                         / (len(logs) / half - (share * along).sum(axis=1, keepdims=True)))
        step = np.where(np.abs(bounded).max(axis=1, keepdims=True) > DAMPED_ABOVE, bounded, step)
        step -= step.mean(axis=1, keepdims=True)
        d -= step
        if np.abs(step).max(initial=0.0) < 1e-12:
            break
    return d
