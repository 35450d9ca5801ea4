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
from reml_sae.families.noise._base import TINY, Noise, charged, floored
from reml_sae.families.noise._bingham import log_share, log_share_slope
from reml_sae.families.noise.isotropic import Isotropic
from reml_sae.typing import Array

LEAST_RATIO = 1.0 + 1e-9
PATIENCE = 5
"""Ranks in a row that do not fit better, after which no more are tried."""


def most_rank(n_columns: int, n_rows: int) -> int:
    """The largest number of factors: a direction more would leave no floor to tell them from."""
    return min(n_columns, n_rows) - 2


def _axes(second: Array) -> tuple[Array, Array]:
    """Variances (p,), the largest first, and their directions (p, p) in columns."""
    values, vectors = np.linalg.eigh(floored(second))
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
        axes = _axes(second)
        best, lowest, since = cls._leading(axes, 0), np.inf, 0
        for r in range(max(most_rank(len(second), n_rows), 0) + 1):
            noise = cls._leading(axes, r)
            value = charged(noise, second, n_rows)
            best, lowest, since = (noise, value, 0) if value < lowest else (best, lowest, since + 1)
            if since == PATIENCE:
                break
        return best

    @classmethod
    def of_rank(cls, second: Array, rank: int) -> Factor:
        """The leading directions of the second moment (p, p) of the noise."""
        return cls._leading(_axes(second), rank)

    @classmethod
    def _leading(cls, axes: tuple[Array, Array], rank: int) -> Factor:
        values, vectors = axes
        ratios = values[:rank] / values[rank:].mean()
        return cls(vectors[:, :rank], np.maximum(ratios, LEAST_RATIO))

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

    def _information(self, n_rows: int) -> tuple[Array, Array, Array]:
        """I of direction j towards k, (r, p), and its derivatives in e_j and in e_k."""
        r = self.rank
        e = np.append(self.ratios, np.ones(len(self.directions) - r))
        own = e[:r, None]
        return (n_rows * (own - e) ** 2 / (own * e), n_rows * (1.0 / e - e / own**2),
                n_rows * (1.0 / own - own / e**2))

    def _cost_ratios(self, n_rows: int) -> Array:
        """Derivative of the cost in the ratios, (r,)."""
        r, e = self.rank, self.ratios
        information, by_own, by_other = self._information(n_rows)
        weight = np.zeros_like(information)
        for j, row in enumerate(information):
            weight[j, j + 1:] = -0.5 * log_share_slope(0.5 * row[j + 1:])
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
        p, r = self.directions.shape
        information = self._information(n_rows)[0]
        directions = sum(log_share(0.5 * row[j + 1:]) for j, row in enumerate(information))
        # two factors have two orders where they can be told apart
        apart = np.tril(-np.expm1(-0.25 * information[:, :r]), -1)
        orders = np.log1p(apart.sum(axis=1)).sum()
        log_information = r * np.log(0.5 * n_rows) + np.log1p(-r / p)
        logs = np.log(self.ratios)
        above = log_ndtr(logs * np.sqrt(0.5 * n_rows)).sum()  # what of the normal has e > 1
        return float(logs.sum() + 0.5 * (log_information - r * LOG_2PI)
                     - directions - orders - above)
