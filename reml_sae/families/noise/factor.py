"""Noise that is stronger along some directions than across them.

Omega ~ I + U diag(e - 1) U^T with r orthonormal columns U, uniform on the Stiefel manifold, and
ratios e_j > 1 of a factor's variance to the floor, 1 / e_j uniform on (0, 1). The information about
log e is n / 2 (I - 1 1^T / p). A rotation of direction j towards k by an angle t changes the
log-likelihood by -I sin^2(t) / 2 with I = n (e_j - e_k)^2 / (e_j e_k) (Minka 2000). I goes to zero
where two factors are alike, or one and the floor, so the directions are integrated over the whole
sphere, one after the other: each is a normaliser of a Bingham density.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from scipy.special import log_ndtr

from reml_sae.families._special import LOG_2PI
from reml_sae.families.noise._base import LEAST_SHARE, TINY, Noise
from reml_sae.families.noise._bingham import log_share_slopes, log_shares
from reml_sae.families.noise.isotropic import Isotropic
from reml_sae.typing import Array

LEAST_RATIO = 1.0 + 1e-9
PATIENCE = 5
"""Ranks in a row that do not fit better, after which no more are tried."""


def most_rank(n_columns: int, n_rows: int) -> int:
    """The largest number of factors: a direction more would leave no floor to tell them from."""
    return min(n_columns, n_rows) - 2


def _axes(second: Array) -> tuple[Array, Array]:
    """Variances (p,), the largest first, and their directions (p, p) in columns.

    Directions that have hardly any noise get some.
    """
    floor = LEAST_SHARE * np.trace(second) / len(second)
    values, vectors = np.linalg.eigh(second + floor * np.eye(len(second)))
    return np.maximum(values[::-1], TINY), vectors[:, ::-1]


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

    @classmethod
    def best(cls, second: Array, n_rows: int) -> Factor:
        """By the rank that V chooses, of the leading directions of the second moment."""
        values, vectors = _axes(second)
        best, lowest, since = 0, np.inf, 0
        saddles = np.zeros(0)
        for r in range(max(most_rank(len(second), n_rows), 0) + 1):
            ratios = _ratios(values, r)
            cost, saddles = _cost(ratios, len(values), n_rows, saddles)
            # the best phi of these factors is the floor's variance over the floor of Omega
            log_phi = np.log(values[r:].mean()) + np.log(ratios).sum() / len(values)
            value = 0.5 * n_rows * len(values) * log_phi + cost
            best, lowest, since = (r, value, 0) if value < lowest else (best, lowest, since + 1)
            if since == PATIENCE:
                break
        return cls(vectors[:, :best], _ratios(values, best))

    @classmethod
    def of_rank(cls, second: Array, rank: int) -> Factor:
        """The leading directions of the second moment (p, p) of the noise."""
        values, vectors = _axes(second)
        return cls(vectors[:, :rank], _ratios(values, rank))

    @classmethod
    def of(cls, arrays: Mapping[str, Array], p: int) -> Self:
        """Made of ``directions`` (p, r) and ``ratios`` (r,)."""
        return cls(arrays["directions"], arrays["ratios"])

    def arrays(self) -> dict[str, Array]:
        """``directions`` (p, r) and ``ratios`` (r,)."""
        return {"directions": self.directions, "ratios": self.ratios}

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
        """Omega across all directions."""
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

    def parameters(self) -> Array:
        """The loadings U diag(e - 1)^(1/2), (p r,)."""
        return np.asarray(self.directions * np.sqrt(self.ratios - 1.0)).ravel()

    def at(self, parameters: Array) -> Self:
        """The noise of other loadings."""
        loadings = parameters.reshape(self.directions.shape)
        directions, lengths, _ = np.linalg.svd(loadings, full_matrices=False)
        return type(self)(directions, np.maximum(1.0 + lengths**2, LEAST_RATIO))

    def gradient(self, parameters: Array, slope: Array, n_rows: int) -> Array:
        """See `Noise.gradient`; with Omega = M / |M|^(1/p), M = I + L L^T at the loadings L."""
        p, r = self.directions.shape
        if not r:
            return np.zeros(0)
        axes = np.linalg.qr(np.append(self.directions, np.eye(p), axis=1))[0]
        axes[:, :r] = self.directions
        e = np.append(self.ratios, np.ones(p - r))
        root, stretch = np.sqrt(e), 1.0 / np.sqrt(self.floor)
        within = axes.T @ (0.5 * (slope + slope.T)) @ axes
        # divided differences of M^(-1/2), and what the determinant does
        turned = -stretch * within / (root[:, None] * root * (root[:, None] + root))
        size = float(np.diag(within) @ (stretch / root))
        turned[np.diag_indices(p)] += 0.5 * size / (p * e)
        turned[np.arange(r), np.arange(r)] += self._cost_ratios(n_rows)
        within = axes[:, :r].T @ parameters.reshape(p, r)
        return np.asarray(2.0 * axes @ (turned[:, :r] @ within)).ravel()

    def _cost_ratios(self, n_rows: int) -> Array:
        """Derivative of the cost in the ratios, (r,)."""
        r, e = self.rank, self.ratios
        counts, information = _turns(e, len(self.directions), n_rows)
        others, own = np.append(e, 1.0), e[:, None]
        by_own = n_rows * (1.0 / others - others / own**2)
        by_other = n_rows * (1.0 / own - own / others**2)
        weight = -0.5 * log_share_slopes(0.5 * information, counts)
        near = np.tril(np.exp(-0.25 * information[:, :r]), -1)
        met = 1.0 + np.tril(1.0 - near, -1).sum(axis=1)
        weight[:, :r] -= 0.25 * near / met[:, None]
        out = 1.0 / e + (weight * by_own).sum(axis=1) + (weight * by_other).sum(axis=0)[:r]
        root = np.sqrt(0.5 * n_rows)
        above = root * np.log(e)
        out -= root / e * np.exp(-0.5 * above**2 - 0.5 * LOG_2PI - log_ndtr(above))
        return np.asarray(out)

    def cost(self, n_rows: int) -> float:
        """Prior and information of directions and ratios; their orders are one model."""
        return _cost(self.ratios, len(self.directions), n_rows, np.zeros(0))[0]


def _ratios(values: Array, rank: int) -> Array:
    """Variances (p,) of the leading directions over the mean of the others, (rank,)."""
    return np.maximum(values[:rank] / values[rank:].mean(), LEAST_RATIO)


def _turns(ratios: Array, p: int, n_rows: int) -> tuple[Array, Array]:
    """Information about turns of direction j towards k < r and towards the floor, (r, r + 1).

    And how many such turns the integral over direction j has, when those before it are held.
    """
    r, others = len(ratios), np.append(ratios, 1.0)
    own = ratios[:, None]
    counts = np.triu(np.ones((r, r + 1)), 1)
    counts[:, r] = p - r
    return counts, n_rows * (own - others) ** 2 / (own * others)


def _cost(ratios: Array, p: int, n_rows: int, saddles: Array) -> tuple[float, Array]:
    """`Factor.cost`, and the saddlepoints (r,) of its integrals.

    Those (r - 1,) of a factor less, or none, are where they are looked for.
    """
    r = len(ratios)
    if not r:
        return 0.0, saddles
    counts, information = _turns(ratios, p, n_rows)
    start = np.concatenate([saddles, np.zeros(r - len(saddles))])
    shares, saddles = log_shares(0.5 * information, counts, start)
    # two factors have two orders where they can be told apart
    apart = np.tril(-np.expm1(-0.25 * information[:, :r]), -1)
    orders = np.log1p(apart.sum(axis=1)).sum()
    log_information = r * np.log(0.5 * n_rows) + np.log1p(-r / p)
    logs = np.log(ratios)
    above = log_ndtr(logs * np.sqrt(0.5 * n_rows)).sum()  # what of the normal has e > 1
    return float(logs.sum() + 0.5 * (log_information - r * LOG_2PI) - shares.sum() - orders
                 - above), saddles
