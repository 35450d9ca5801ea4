"""Covariance of the noise of Gaussian rows, and what V charges for it (DESIGN G1).

    z_i | eta_i ~ N(eta_i, phi Omega),    |Omega| = 1,    W = Omega^(-1/2).

The rows z_i W have isotropic noise of variance phi, and since |W| = 1 the density of the data is
that of the rows in this metric: an engine that knows isotropic noise alone fits Z W. What is left
is the evidence of Omega itself, whose parameters are as many as those of a decoder, so that V must
integrate them out:

    V = V(Z W) + cost(Omega),    cost = -log prior(Omega) + 1/2 log|information / 2 pi|

with the expected information of n rows about Omega at a known phi, which is in rho.

- ``diagonal``: Omega = diag(exp(d)), d ~ N(0, s^2) on sum(d) = 0, the spread s chosen by V. The
  information about d is n / 2 in every direction.
- ``factor``: Omega ~ I + U diag(e - 1) U^T with r orthonormal columns U, uniform on the Stiefel
  manifold, and ratios e_j > 1 of a factor's variance to the floor, 1 / e_j uniform on (0, 1). The
  information about log e is n / 2 (I - 1 1^T / p). A rotation of direction j towards k by an angle
  t changes the log-likelihood by -I sin^2(t) / 2 with I = n (e_j - e_k)^2 / (e_j e_k) (Minka 2000).
  I goes to zero where two factors are alike, or one and the floor, so the directions are integrated
  over the whole sphere, one after the other: each is a normaliser of a Bingham density, by its
  saddlepoint approximation (Kume and Wood 2005).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import gammaln, log_ndtr

from reml_sae.errors import InputError
from reml_sae.typing import Array

LOG_2PI = float(np.log(2.0 * np.pi))
LARGEST_SPREAD = 10.0
"""Of log variances of columns, as a standard deviation."""
LEAST_RATIO = 1.0 + 1e-9
LEAST_SHARE = 1e-8
"""Share of the mean variance below which the noise of a direction is rounding: of data without any
noise in one, V would have no minimum."""
TINY = float(np.finfo(float).tiny)
PATIENCE = 5
"""Ranks in a row that do not fit better, after which no more are tried."""
MARGIN = 3.0
"""Nats by which another noise must beat the isotropic one, and each kind those before it: a spread
that V chooses is positive half of the time where there is none."""


class Noise(ABC):
    """Shape Omega of the covariance of the noise, of determinant 1.

    Attributes
    ----------
    kind : str
        Name that the ``noise`` argument of an estimator knows.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def shape(self) -> Array:
        """Omega, (p, p)."""

    @property
    def mean_variance(self) -> float:
        """Mean variance of the columns over phi, tr(Omega) / p."""
        return float(np.trace(self.shape)) / len(self.shape)

    def simpler(self) -> Noise | None:
        """The noise nested in it that has the least less; None where there is none."""
        return None

    @abstractmethod
    def whiten(self, Z: Array) -> Array:
        """Z Omega^(-1/2) for rows (n, p)."""

    @abstractmethod
    def colour(self, Z: Array) -> Array:
        """Z Omega^(1/2) for rows (n, p), the inverse of `whiten`."""

    def dispersion(self, second: Array) -> float:
        """The best phi for noise with a second moment S (p, p), tr(Omega^-1 S) / p."""
        return float(np.trace(self.whiten(self.whiten(second).T))) / len(second)

    def colour_variances(self, covariances: Array) -> Array:
        """Covariances (p, ..) of independent columns of rows, of the columns of `colour` of them.

        The columns of these are dependent; what is returned are the blocks on the diagonal.
        """
        squares = self.colour(np.eye(len(covariances))) ** 2
        return np.tensordot(squares, covariances, axes=([0], [0]))

    @abstractmethod
    def cost(self, n_rows: int) -> float:
        """Nats that V charges for Omega with the information of so many rows."""


@dataclass(frozen=True)
class Isotropic(Noise):
    """Omega = I.

    Attributes
    ----------
    p : int
        Columns.
    """

    p: int
    kind: ClassVar[str] = "isotropic"

    @property
    def shape(self) -> Array:
        """The identity, (p, p)."""
        return np.eye(self.p)

    def whiten(self, Z: Array) -> Array:
        """The rows as they are."""
        return Z

    def colour(self, Z: Array) -> Array:
        """The rows as they are."""
        return Z

    def colour_variances(self, covariances: Array) -> Array:
        """The covariances as they are."""
        return covariances

    def cost(self, n_rows: int) -> float:
        """Nothing."""
        return 0.0


@dataclass(frozen=True, eq=False)
class Diagonal(Noise):
    """Omega = diag(exp(d)).

    Attributes
    ----------
    log_variances : (p,) array
        d, of sum zero.
    spread : float
        Prior standard deviation s of d; 0 where all are zero.
    """

    log_variances: Array
    spread: float
    kind: ClassVar[str] = "diagonal"

    @property
    def shape(self) -> Array:
        """Omega, (p, p)."""
        return np.diag(np.exp(self.log_variances))

    def simpler(self) -> Noise | None:
        """The isotropic one."""
        return Isotropic(len(self.log_variances))

    def whiten(self, Z: Array) -> Array:
        """Columns divided by their own scale."""
        return np.asarray(Z * np.exp(-0.5 * self.log_variances))

    def colour(self, Z: Array) -> Array:
        """Columns times their own scale."""
        return np.asarray(Z * np.exp(0.5 * self.log_variances))

    def cost(self, n_rows: int) -> float:
        """Prior and Laplace's term of d."""
        if self.spread == 0.0:
            return 0.0
        square, free = self.spread**2, len(self.log_variances) - 1
        return float(0.5 * (self.log_variances @ self.log_variances) / square
                     + 0.5 * free * np.log1p(0.5 * n_rows * square))


@dataclass(frozen=True, eq=False)
class Factor(Noise):
    """Omega proportional to I + U diag(e - 1) U^T.

    Attributes
    ----------
    directions : (p, r) array
        U, orthonormal columns.
    ratios : (r,) array
        e > 1, the variance along each over that of the floor.
    """

    directions: Array
    ratios: Array
    kind: ClassVar[str] = "factor"

    @property
    def rank(self) -> int:
        """Number of factors r."""
        return len(self.ratios)

    def simpler(self) -> Noise | None:
        """Without the weakest factor."""
        if self.rank <= 1:
            return Isotropic(len(self.directions)) if self.rank else None
        kept = np.argsort(-self.ratios)[:-1]
        return Factor(self.directions[:, kept], self.ratios[kept])

    @property
    def floor(self) -> float:
        """Omega across all factors."""
        return float(np.exp(-np.log(self.ratios).sum() / len(self.directions)))

    def _powered(self, Z: Array, power: float) -> Array:
        along = Z @ self.directions
        stretch = self.ratios**power - 1.0
        return np.asarray(self.floor**power * (Z + (along * stretch) @ self.directions.T))

    @property
    def shape(self) -> Array:
        """Omega, (p, p)."""
        return self._powered(np.eye(len(self.directions)), 1.0)

    def whiten(self, Z: Array) -> Array:
        """Rows shrunk along the factors, stretched across them."""
        return self._powered(Z, -0.5)

    def colour(self, Z: Array) -> Array:
        """Rows stretched along the factors, shrunk across them."""
        return self._powered(Z, 0.5)

    def cost(self, n_rows: int) -> float:
        """Prior and information of directions and ratios; their orders are one model."""
        p, r = self.directions.shape
        e = np.append(self.ratios, np.ones(p - r))
        information = n_rows * (e[:r, None] - e) ** 2 / (e[:r, None] * e)
        later = np.arange(p) > np.arange(r)[:, None]
        directions = sum(_log_share(0.5 * row[mask])
                         for row, mask in zip(information, later, strict=True))
        # two factors have two orders where they can be told apart
        apart = np.tril(-np.expm1(-0.25 * information[:, :r]), -1)
        orders = np.log1p(apart.sum(axis=1)).sum()
        log_information = r * np.log(0.5 * n_rows) + np.log1p(-r / p)
        logs = np.log(self.ratios)
        above = log_ndtr(logs * np.sqrt(0.5 * n_rows)).sum()  # what of the normal has e > 1
        return float(logs.sum() + 0.5 * (log_information - r * LOG_2PI)
                     - directions - orders - above)


def _log_share(rates: Array) -> float:
    """Log mean of exp(-sum_k rates_k x_k^2) over the unit sphere of x in d + 1 dimensions, d rates.

    Saddlepoint approximation of second order: with K(t) = -1/2 sum log(rate - t) over the rates and
    a zero, at the root of K'(t) = 1.
    """
    rates = np.append(0.0, rates)
    size, s = len(rates), 0.5  # s = -t, to the left of the root of a convex function
    for _ in range(100):
        inverse = 1.0 / (rates + s)
        step = (0.5 * inverse.sum() - 1.0) / (0.5 * (inverse**2).sum())
        s += step
        if step < 1e-12 * s:
            break
    inverse = 1.0 / (rates + s)
    second, third, fourth = (factorial * (inverse**order).sum()
                             for order, factorial in ((2, 0.5), (3, 1.0), (4, 3.0)))
    correction = fourth / second**2 / 8.0 - 5.0 * third**2 / second**3 / 24.0
    log_integral = (0.5 * np.log(2.0) + 0.5 * (size - 1) * np.log(np.pi) - 0.5 * np.log(second)
                    + 0.5 * np.log(inverse).sum() + s + correction)
    log_area = np.log(2.0) + 0.5 * size * np.log(np.pi) - gammaln(0.5 * size)
    return float(min(log_integral - log_area, 0.0))


def nats(noise: Noise, second: Array, n_rows: int) -> float:
    """What n rows whose noise has the second moment (p, p) lose under Omega, at its best phi.

    n p / 2 log phi: the part of V that Omega moves, less its cost.
    """
    return 0.5 * n_rows * len(second) * float(np.log(max(noise.dispersion(second), TINY)))


def charged(noise: Noise, second: Array, n_rows: int) -> float:
    """The part of V that Omega moves: `nats` and the cost of its own parameters."""
    return nats(noise, second, n_rows) + noise.cost(n_rows)


def _floored(second: Array) -> Array:
    """A second moment (p, p) without directions that have hardly any noise."""
    return second + LEAST_SHARE * np.trace(second) / len(second) * np.eye(len(second))


def isotropic(second: Array, n_rows: int) -> Isotropic:
    """The noise that does not look at its second moment (p, p)."""
    return Isotropic(len(second))


def diagonal(second: Array, n_rows: int) -> Diagonal:
    """The best diagonal noise of n rows for the second moment (p, p) of their noise."""
    second = _floored(second)
    logs = np.log(np.maximum(np.diag(second), TINY))

    def at(log_spread: float) -> Diagonal:
        spread = float(np.exp(log_spread))
        d = _shrunk(logs, n_rows, spread)
        return Diagonal(d, spread)

    def value(log_spread: float) -> float:
        return charged(at(log_spread), second, n_rows)

    top = float(np.log(LARGEST_SPREAD))
    bottom = 0.5 * float(np.log(1e-4 / n_rows))
    grid = np.linspace(bottom, top, 12)
    best = int(np.argmin([value(u) for u in grid]))
    if best == 0:
        return Diagonal(np.zeros(len(second)), 0.0)
    bracket = grid[best - 1], grid[min(best + 1, len(grid) - 1)]
    return at(float(minimize_scalar(value, bounds=bracket, method="bounded").x))


def _shrunk(logs: Array, n_rows: int, spread: float) -> Array:
    """Mode of d under its prior at the best phi, (p,), from the log variances of the columns.

    Newton's method on n / 2 sum_o (d_o + exp(l_o - d_o) / phi) + |d|^2 / (2 s^2); the mean of d
    is phi's, and taken out.
    """
    d = logs - logs.mean()
    for _ in range(100):
        ratio = np.exp(logs - d)
        phi = ratio.mean()
        gradient = 0.5 * n_rows * (1.0 - ratio / phi) + d / spread**2
        gradient -= gradient.mean()
        step = gradient / (0.5 * n_rows * np.maximum(ratio / phi, 1.0) + 1.0 / spread**2)
        step -= step.mean()
        d = d - step
        if np.abs(step).max(initial=0.0) < 1e-12:
            break
    return d


def factor(second: Array, n_rows: int) -> Factor:
    """The best factor noise of n rows for the second moment (p, p) of their noise, by its rank."""
    values, vectors = np.linalg.eigh(_floored(second))
    values, vectors = np.maximum(values[::-1], TINY), vectors[:, ::-1]
    best, lowest, since = _leading(values, vectors, 0), np.inf, 0
    for r in range(max(min(len(second), n_rows) - 2, 0) + 1):
        noise = _leading(values, vectors, r)
        value = charged(noise, second, n_rows)
        best, lowest, since = (noise, value, 0) if value < lowest else (best, lowest, since + 1)
        if since == PATIENCE:
            break
    return best


def _leading(values: Array, vectors: Array, r: int) -> Factor:
    ratios = values[:r] / values[r:].mean()
    return Factor(vectors[:, :r], np.maximum(ratios, LEAST_RATIO))


STEPS = {"isotropic": isotropic, "diagonal": diagonal, "factor": factor}
"""From the second moment (p, p) of the noise of n rows to the best noise of a kind."""
KINDS = (*STEPS, "auto")


def best_noise(kind: str, second: Array, n_rows: int) -> Noise:
    """The noise of a kind that fits a second moment best; of all kinds where it is "auto".

    Parameters
    ----------
    kind : str
    second : (p, p) array
        Second moment of the noise, what is uncertain about the mean included.
    n_rows : int

    Raises
    ------
    InputError
        Where the kind is unknown.
    """
    if kind not in KINDS:
        raise InputError(f"noise={kind!r} is unknown; allowed: {', '.join(KINDS)}")
    if not np.trace(second) > TINY / LEAST_SHARE:
        return Isotropic(len(second))
    best: Noise | None = None
    lowest = np.inf
    for name, step in STEPS.items():
        if kind in (name, "auto"):
            noise = step(second, n_rows)
            value = charged(noise, second, n_rows)
            if best is None or value < lowest - MARGIN:
                best, lowest = noise, value
    assert best is not None
    return best
