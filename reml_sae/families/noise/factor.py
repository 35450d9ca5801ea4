"""Noise that is stronger along some directions than across them.

Omega ~ I + U diag(e - 1) U^T with r orthonormal columns U, uniform on the Stiefel manifold, and
ratios e_j > 1 of a factor's variance to the floor, 1 / e_j uniform on (0, 1). The information about
log e is n / 2 (I - 1 1^T / p). A rotation of direction j towards k by an angle t changes the
log-likelihood of rows with a second moment S by -I sin^2(t) / 2,

    I = n (1 / w_k - 1 / w_j) (s_j - s_k)    (Minka 2000)

with the variances s that S has along them, and those w that Omega gives them: e for a factor, which
is near its s, and one for all of the floor, whose own s differ. With the floor's variance for them,
as if infinitely many rows were seen, the last factors of a slope would be charged too little beside
the others. And with e for the s of a factor its directions would seem the less known the less
variance Omega gives them: where columns outnumber rows, V would be lowest at a ninth of it.
I goes to zero where two factors are alike, or one and the floor, so the directions are integrated
over the whole sphere, one after the other: each is a normaliser of a Bingham density.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from scipy.special import log_ndtr

from reml_sae.errors import InputError
from reml_sae.families._special import LOG_2PI
from reml_sae.families.noise._base import LEAST_SHARE, MARGIN, TINY, Noise
from reml_sae.families.noise._bingham import log_share_slopes, log_shares
from reml_sae.families.noise.isotropic import Isotropic
from reml_sae.typing import Array

LEAST_RATIO = 1.0 + 1e-9
PATIENCE = 5
"""Ranks in a row that do not fit better, after which no more are tried."""
TRACY_WIDOM = 3.2724
"""Quantile .999 of the law of Tracy and Widom of order one."""
SHOWN = 6
"""Ratios in the text that stands for a noise."""


def most_rank(n_columns: int, n_rows: int) -> int:
    """The largest number of factors: a direction more would leave no floor to tell them from."""
    return min(n_columns, n_rows) - 2


def _axes(second: Array) -> tuple[Array, Array]:
    """Variances (p,), the largest first, and their directions (p, p) in columns."""
    values, vectors = np.linalg.eigh(second)
    return np.maximum(values[::-1] + _least(second), TINY), vectors[:, ::-1]


def _least(second: Array) -> float:
    """Variance that is added in all directions, so that none has hardly any noise."""
    return LEAST_SHARE * float(np.trace(second)) / len(second)


@dataclass(frozen=True, eq=False)
class Factor(Noise):
    """Omega proportional to I + U diag(e - 1) U^T.

    Attributes
    ----------
    directions : (p, r) array
        U, orthonormal columns.
    ratios : (r,) array
        e > 1, the variance along each over that of the floor.
    along, across : (r,) and (p - r,) arrays
        Variances of the rows along the factors and across all of them, over the mean of these.
    """

    directions: Array
    ratios: Array
    along: Array
    across: Array
    kind: ClassVar[str] = "factor"

    @classmethod
    def best(cls, second: Array, n_rows: int) -> Self:
        """The leading directions of the second moment: the fewest that leave V at its lowest.

        To `MARGIN`: of a weak factor more V says hardly anything, whether there is one or not.
        """
        values, vectors = _axes(second)
        found: list[float] = []
        since, saddles = 0, np.zeros(0)
        for r in range(max(most_rank(len(second), n_rows), 0) + 1):
            ratios, across = _split(values, r)
            cost, saddles = _cost(ratios, ratios, across, n_rows, saddles)
            # the best phi of these factors is the floor's variance over the floor of Omega
            log_phi = np.log(values[r:].mean()) + np.log(ratios).sum() / len(values)
            value = 0.5 * n_rows * len(values) * log_phi + cost
            since = 0 if value < min(found, default=np.inf) else since + 1
            found.append(value)
            if since == PATIENCE:
                break
        best = int(np.flatnonzero(np.array(found) <= min(found) + MARGIN)[0])
        return cls._of_variances(vectors, values, best)

    @classmethod
    def of_rank(cls, second: Array, rank: int) -> Self:
        """The leading directions of the second moment (p, p) of the noise."""
        values, vectors = _axes(second)
        return cls._of_variances(vectors, values, rank)

    @classmethod
    def _of_variances(cls, vectors: Array, values: Array, rank: int) -> Self:
        ratios, across = _split(values, rank)
        return cls(vectors[:, :rank], ratios, ratios, across)

    @classmethod
    def of(cls, arrays: Mapping[str, Array], p: int) -> Self:
        """Made of ``directions`` (p, r), ``ratios``, ``along`` (r,) and ``across`` (p - r,)."""
        directions, ratios = arrays["directions"], arrays["ratios"]
        equal = np.ones(p - len(ratios))
        # not in a file from before V knew of them
        along, across = arrays.get("along", ratios), arrays.get("across", equal)
        if len(along) != len(ratios):
            raise InputError(f"along has {len(along)} variances, not one for each of the "
                             f"{len(ratios)} factors")
        if len(across) != len(equal):
            raise InputError(f"across has {len(across)} variances, not one for each of the "
                             f"{len(equal)} directions across {len(ratios)} factors")
        return cls(directions, ratios, along, across)

    def arrays(self) -> dict[str, Array]:
        """``directions`` (p, r), ``ratios``, ``along`` (r,) and ``across`` (p - r,)."""
        return {"directions": self.directions, "ratios": self.ratios, "along": self.along,
                "across": self.across}

    def ends_in_white_noise(self, n_rows: int) -> bool:
        """Whether the largest variance across the factors is one that white noise has in n rows.

        Of the second moment of rows that are centred and nothing else, by the law of Tracy and
        Widom as Johnstone (2001, Annals of Statistics) scales it. Where factors are half of what
        rows have, nothing is left to tell.
        """
        if 2 * (self.rank + 1) > n_rows:
            return False
        rows, columns = np.sqrt(n_rows - 1.0 - self.rank), np.sqrt(len(self.across))
        width = (rows + columns) * (1.0 / rows + 1.0 / columns)**(1.0 / 3.0)
        return bool(self.across.max() * rows**2 <= (rows + columns)**2 + TRACY_WIDOM * width)

    def __repr__(self) -> str:
        ratios = ", ".join(f"{ratio:.3g}" for ratio in self.ratios[:SHOWN])
        more = ", .." if self.rank > SHOWN else ""
        return f"Factor(rank={self.rank}, p={len(self.directions)}, ratios=[{ratios}{more}])"

    @property
    def rank(self) -> int:
        """Number of factors r."""
        return len(self.ratios)

    def simpler(self) -> Noise | None:
        """Without the weakest factor."""
        if self.rank <= 1:
            return Isotropic(len(self.directions)) if self.rank else None
        *kept, weakest = np.argsort(-self.ratios)
        across = np.append(self.along[weakest], self.across)
        floor = across.mean()
        return Factor(self.directions[:, kept],
                      np.maximum(self.ratios[kept] / floor, LEAST_RATIO),
                      self.along[kept] / floor, across / floor)

    @property
    def is_observed(self) -> bool:
        """Where there are factors, whose directions the rows tell from those across them."""
        return self.rank > 0

    def observed(self, moments: Array) -> Self:
        """With the variances that a second moment (1, p, p) has along and across the factors."""
        second = moments[0]
        along = np.einsum("pj,pq,qj->j", self.directions, second, self.directions, optimize=True)
        outside = second - self.directions @ (self.directions.T @ second)
        outside -= (outside @ self.directions) @ self.directions.T
        across = np.linalg.eigvalsh(0.5 * (outside + outside.T))[::-1][:len(self.across)]
        along, across = (np.maximum(own + _least(second), TINY) for own in (along, across))
        floor = across.mean()
        return replace(self, along=along / floor, across=across / floor)

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
        return replace(self, directions=directions,
                       ratios=np.maximum(1.0 + lengths**2, LEAST_RATIO))

    def scaled(self, steps: Array) -> Array:
        """See `Noise.scaled`: M^(1/2) times them, as the information is about M^(-1/2) L."""
        loadings = steps.reshape(self.directions.shape)
        stretch = np.sqrt(self.ratios)[:, None] - 1.0
        return np.asarray(loadings + self.directions @ (
            stretch * (self.directions.T @ loadings))).ravel()

    def gradient(self, parameters: Array, slope: Array, n_rows: int) -> Array:
        """See `Noise.gradient`; with Omega = M / |M|^(1/p), M = I + L L^T at the loadings L."""
        p, r = self.directions.shape
        if not r:
            return np.zeros(0)
        U, e, root, stretch = self.directions, self.ratios, np.sqrt(self.ratios), self.floor**-0.5
        turned = 0.5 * (slope + slope.T) @ U
        within = U.T @ turned
        size = stretch * float(np.diag(within) @ (1.0 / root - 1.0) + np.trace(slope))
        # divided differences of M^(-1/2), and what the determinant does
        turned = -stretch * (turned - U @ within) / (root * (1.0 + root))
        within *= -stretch / (root[:, None] * root * (root[:, None] + root))
        within[np.diag_indices(r)] += 0.5 * size / (p * e) + self._cost_ratios(n_rows)
        return np.asarray(2.0 * (turned + U @ within) @ (U.T @ parameters.reshape(p, r))).ravel()

    def _cost_ratios(self, n_rows: int) -> Array:
        """Derivative of the cost in the ratios, (r,)."""
        r, e = self.rank, self.ratios
        counts, information = _turns(e, self.along, self.across, n_rows)
        weight = -0.5 * log_share_slopes(0.5 * information, counts) * (information > 0.0)
        near = np.tril(np.exp(-0.25 * information[:, :r]), -1)
        met = 1.0 + np.tril(1.0 - near, -1).sum(axis=1)
        weight[:, :r] -= 0.25 * near * (information[:, :r] > 0.0) / met[:, None]
        turned = weight * n_rows * (self.along[:, None] - np.append(self.along, self.across))
        out = (1.0 + turned.sum(axis=1) / e - turned[:, :r].sum(axis=0) / e) / e
        root = np.sqrt(0.5 * n_rows)
        above = root * np.log(e)
        out -= root / e * np.exp(-0.5 * above**2 - 0.5 * LOG_2PI - log_ndtr(above))
        return np.asarray(out)

    def cost(self, n_rows: int) -> float:
        """Prior and information of directions and ratios; their orders are one model."""
        return _cost(self.ratios, self.along, self.across, n_rows, np.zeros(0))[0]


def _split(values: Array, rank: int) -> tuple[Array, Array]:
    """Variances (p,) of the leading directions and of the others, over the mean of the others."""
    values = values / values[rank:].mean()
    return np.maximum(values[:rank], LEAST_RATIO), values[rank:]


def _turns(ratios: Array, along: Array, across: Array, n_rows: int) -> tuple[Array, Array]:
    """Information about turns of direction j towards k, (r, p), the factors first.

    And which of these turns (r, p) the integral over direction j has, when those before it are
    held.
    """
    rates = np.append(1.0 / ratios, np.ones_like(across)) - 1.0 / ratios[:, None]
    information = n_rows * rates * (along[:, None] - np.append(along, across))
    return np.triu(np.ones_like(information), 1), np.maximum(information, 0.0)


def _cost(
    ratios: Array, along: Array, across: Array, n_rows: int, saddles: Array
) -> tuple[float, Array]:
    """`Factor.cost`, and the saddlepoints (r,) of its integrals.

    Those (r - 1,) of a factor less, or none, are where they are looked for.
    """
    r = len(ratios)
    if not r:
        return 0.0, saddles
    counts, information = _turns(ratios, along, across, n_rows)
    start = np.concatenate([saddles, np.zeros(r - len(saddles))])
    shares, saddles = log_shares(0.5 * information, counts, start)
    # two factors have two orders where they can be told apart
    apart = np.tril(-np.expm1(-0.25 * information[:, :r]), -1)
    orders = np.log1p(apart.sum(axis=1)).sum()
    log_information = r * np.log(0.5 * n_rows) + np.log1p(-r / (r + len(across)))
    logs = np.log(ratios)
    above = log_ndtr(logs * np.sqrt(0.5 * n_rows)).sum()  # what of the normal has e > 1
    return float(logs.sum() + 0.5 * (log_information - r * LOG_2PI) - shares.sum() - orders
                 - above), saddles
