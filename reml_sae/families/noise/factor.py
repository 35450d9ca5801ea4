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
from reml_sae.families.noise._bingham import log_share
from reml_sae.families.noise.isotropic import Isotropic
from reml_sae.typing import Array

LEAST_RATIO = 1.0 + 1e-9
PATIENCE = 5
"""Ranks in a row that do not fit better, after which no more are tried."""


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
        values, vectors = np.linalg.eigh(floored(second))
        values, vectors = np.maximum(values[::-1], TINY), vectors[:, ::-1]

        def leading(r: int) -> Factor:
            ratios = values[:r] / values[r:].mean()
            return Factor(vectors[:, :r], np.maximum(ratios, LEAST_RATIO))

        best, lowest, since = leading(0), np.inf, 0
        for r in range(max(min(len(second), n_rows) - 2, 0) + 1):
            noise = leading(r)
            value = charged(noise, second, n_rows)
            best, lowest, since = (noise, value, 0) if value < lowest else (best, lowest, since + 1)
            if since == PATIENCE:
                break
        return best

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

    def cost(self, n_rows: int) -> float:
        """Prior and information of directions and ratios; their orders are one model."""
        p, r = self.directions.shape
        e = np.append(self.ratios, np.ones(p - r))
        information = n_rows * (e[:r, None] - e) ** 2 / (e[:r, None] * e)
        later = np.arange(p) > np.arange(r)[:, None]
        directions = sum(log_share(0.5 * row[mask])
                         for row, mask in zip(information, later, strict=True))
        # two factors have two orders where they can be told apart
        apart = np.tril(-np.expm1(-0.25 * information[:, :r]), -1)
        orders = np.log1p(apart.sum(axis=1)).sum()
        log_information = r * np.log(0.5 * n_rows) + np.log1p(-r / p)
        logs = np.log(self.ratios)
        above = log_ndtr(logs * np.sqrt(0.5 * n_rows)).sum()  # what of the normal has e > 1
        return float(logs.sum() + 0.5 * (log_information - r * LOG_2PI)
                     - directions - orders - above)
