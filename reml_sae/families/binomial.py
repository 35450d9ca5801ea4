"""The binomial family with logit link: z successes out of n trials, p = 1 / (1 + exp(-eta)).

    loss = z softplus(-eta) + (n - z) softplus(eta) - log C(n, z)
    deviance = 2 [z log(y / p) + (n - z) log((1 - y) / (1 - p))],        y = z / n

With d = eta - logit(y) the deviance is 2 [n log(1 + y (e^d - 1)) - z d], which is used near the
saturated fit. In the tails softplus(x) = max(x, 0) + log(1 + e^-|x|) never overflows. Derivatives
are products of expit(eta) and expit(-eta), so 1 - p keeps its digits where p is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, xlogy

from reml_sae.errors import InputError
from reml_sae.families._base import Family
from reml_sae.families._checks import check_counts, check_order, refuse
from reml_sae.families._special import LOG_2PI, stirling_error
from reml_sae.typing import Array


@dataclass(frozen=True, eq=False)
class Binomial(Family):
    """Counts of successes out of known numbers of trials; see `Family`.

    Data are counts; proportions must be multiplied by their numbers of trials.

    Parameters
    ----------
    n_trials : positive integer, or array of them that broadcasts to the data
        1 for binary data.
    """

    n_trials: Any = 1

    name: ClassVar[str] = "binomial"
    link: ClassVar[str] = "logit"

    def __post_init__(self) -> None:
        try:
            trials = np.array(self.n_trials, float)
        except (TypeError, ValueError) as error:
            raise InputError(f"n_trials must be numbers, got {self.n_trials!r}") from error
        bad = ~(np.isfinite(trials) & (trials >= 1.0)) | (trials != np.round(trials))
        refuse(bad, trials, "numbers of trials must be positive integers", name="n_trials")
        trials.flags.writeable = False
        object.__setattr__(self, "n_trials", trials)

    def check(self, z: Array) -> None:
        """Refuse entries that are not integers from 0 to the number of trials."""
        z = np.asarray(z)
        try:
            trials = np.broadcast_to(self.n_trials, z.shape)
        except ValueError as error:
            raise InputError(f"n_trials has shape {self.n_trials.shape}, which does not broadcast "
                             f"to the data's {z.shape}; give one number for each entry") from error
        check_counts(z, "binomial", "; multiply proportions by n_trials")
        bad = z > trials
        if bad.any():
            first = trials[tuple(np.argwhere(bad)[0])]
            refuse(bad, z, f"binomial data must not exceed n_trials, {first:g} for this entry")

    def restrict(self, rows: NDArray[np.intp], shape: tuple[int, ...]) -> Self:
        """The family for the given rows of data of this shape."""
        if self.n_trials.ndim == 0:
            return self
        return type(self)(np.broadcast_to(self.n_trials, shape)[rows])

    def saturated_loss(self, z: Array, psi: Array) -> Array:
        """-log C(n, z) less the entropy part z log y + (n - z) log(1 - y); 0 at z = 0 and n."""
        z, n = np.broadcast_arrays(np.asarray(z, float), self.n_trials)
        inside, out = (z > 0.0) & (z < n), np.zeros(z.shape)
        z, n = z[inside], n[inside]
        value = stirling_error(z) + stirling_error(n - z) - stirling_error(n)
        out[inside] = value + 0.5 * (LOG_2PI + np.log(z * ((n - z) / n)))
        return out

    def deviance(self, z: Array, eta: Array, psi: Array) -> Array:
        """2 [z log(y / p) + (n - z) log((1 - y) / (1 - p))]."""
        z, eta, n = np.broadcast_arrays(np.asarray(z, float), eta, self.n_trials)
        out = np.asarray(n * np.log1p(np.exp(-np.abs(eta))))
        out += z * np.maximum(-eta, 0.0) + (n - z) * np.maximum(eta, 0.0)
        inside = (z > 0.0) & (z < n)
        z, eta, n = z[inside], eta[inside], n[inside]
        y = z / n
        d = eta - logit(y)
        near = np.clip(d, -1.0, 1.0)
        near = n * np.log1p(y * np.expm1(near)) - z * near
        far = out[inside] + xlogy(z, y) + xlogy(n - z, (n - z) / n)
        out[inside] = np.where(np.abs(d) < 1.0, near, far)
        return 2.0 * np.maximum(out, 0.0)

    def loss_eta(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """n p - z, then n p (1 - p), then n p (1 - p) (1 - 2 p)."""
        check_order("loss_eta", order, (1, 2, 3))
        if order == 1:
            return (self.n_trials - z) * expit(eta) - z * expit(np.negative(eta))
        return self.weight(z, eta, psi, order - 2)

    def open_side(self, z: Array) -> NDArray[np.int8]:
        """Down at z = 0, up at z = n."""
        z = np.asarray(z)
        return np.where(z == 0, -1, np.where(z == self.n_trials, 1, 0)).astype(np.int8)

    def weight(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """n p (1 - p), and its derivative."""
        check_order("weight", order, (0, 1))
        value = self.n_trials * expit(eta) * expit(np.negative(eta)) + np.zeros(np.shape(z))
        return -value * np.tanh(0.5 * np.asarray(eta)) if order else value

    def mean(self, eta: Array) -> Array:
        """Expected count n p."""
        return self.n_trials * expit(eta)

    def variance(self, eta: Array, psi: Array) -> Array:
        """n p (1 - p)."""
        return self.n_trials * expit(eta) * expit(np.negative(eta))

    def sample(self, rng: np.random.Generator, eta: Array, psi: Array) -> Array:
        """Binomial draws."""
        return rng.binomial(self.n_trials.astype(np.int64), expit(eta)).astype(float)

    def initial_eta(self, z: Array) -> Array:
        """Logit of (z + 1/2) / (n + 1)."""
        return np.log((np.asarray(z, float) + 0.5) / (self.n_trials - z + 0.5))
