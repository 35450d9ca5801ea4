"""What noise is, and the part of V that its shape moves; see the package."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np

from reml_sae.typing import Array, Index, Mask

LEAST_SHARE = 1e-8
"""Share of the mean variance below which the noise of a direction is rounding: of data without any
noise in one, V would have no minimum."""
MARGIN = 3.0
"""Nats by which another noise must beat the isotropic one, each kind those before it, and more
factors fewer: a spread that V chooses is positive half of the time where there is none."""
TINY = float(np.finfo(float).tiny)


class RowNoise(ABC):
    """Noise of rows, each in one of several metrics.

    A row z of noise phi s Omega, |Omega| = 1, is z Omega^(-1/2) / s^(1/2) in its metric, of noise
    phi.

    Attributes
    ----------
    kind : str
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def n_metrics(self) -> int:
        """How many metrics there are."""

    @abstractmethod
    def atom_metrics(self, n_atoms: int) -> Index:
        """The metric (K,) of rows that use an atom."""

    @abstractmethod
    def metrics(self, support: Mask, before: Index) -> Index:
        """The metric (N,) of rows that use these atoms (N, K); of none, the one they had."""

    @abstractmethod
    def whiten_rows(self, Z: Array, metrics: Index) -> Array:
        """Rows (N, p) each in a metric (N,)."""

    @abstractmethod
    def colour_rows(self, Z: Array, metrics: Index) -> Array:
        """The inverse of `whiten_rows`."""

    @abstractmethod
    def log_sizes(self, metrics: Index) -> Array:
        """log s of rows in these metrics, (N,)."""

    @abstractmethod
    def rows_cost(self, metrics: Index) -> float:
        """Nats that V charges for the noise of rows in these metrics."""

    @property
    @abstractmethod
    def is_observed(self) -> bool:
        """Whether the cost hangs on what second moment the noise of the rows has."""

    @abstractmethod
    def observed(self, moments: Array) -> Self:
        """The same noise of rows with second moments (G, p, p) in each metric."""

    @abstractmethod
    def of_atom(self, k: int) -> Noise:
        """Omega of the rows of an atom."""

    @abstractmethod
    def log_size(self, k: int) -> float:
        """log s of the rows of an atom."""

    @abstractmethod
    def decoder_precisions(self, n_atoms: int) -> Array:
        """By how much (K,) the prior of decoders is narrower in their metric than it is stated.

        It is stated in units of the root mean square of all rows in the metric Omega^(-1/2).
        """


class Noise(RowNoise):
    """Shape Omega of the covariance of the noise, of determinant 1, the same for all rows.

    Attributes
    ----------
    kind : str
        Name that the ``noise`` argument of an estimator knows.
    """

    @property
    @abstractmethod
    def shape(self) -> Array:
        """Omega, (p, p)."""

    @classmethod
    @abstractmethod
    def best(cls, second: Array, n_rows: int) -> Noise:
        """The best of its kind for the second moment (p, p) of the noise of n rows."""

    @classmethod
    @abstractmethod
    def of(cls, arrays: Mapping[str, Array], p: int) -> Self:
        """The noise of p columns whose parameters are `arrays`."""

    @abstractmethod
    def arrays(self) -> dict[str, Array]:
        """Its parameters by name: what a file keeps of it beside its kind."""

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

    @abstractmethod
    def parameters(self) -> Array:
        """What Omega is made of, (k,), all numbers allowed."""

    @abstractmethod
    def at(self, parameters: Array) -> Self:
        """The noise of other parameters, (k,)."""

    def scaled(self, steps: Array) -> Array:
        """Steps (k,) of the parameters about which rows know equally much, from unit ones.

        The map is symmetric.
        """
        return steps

    @abstractmethod
    def gradient(self, parameters: Array, slope: Array, n_rows: int) -> Array:
        """Gradient in the parameters (k,) of a function of W = Omega^(-1/2), and of the cost.

        Parameters
        ----------
        parameters : (k,) array
            Those from which ``at`` made this noise: different ones may make the same.
        slope : (p, p) array
            Derivative of the function in the entries of W.
        n_rows : int
        """

    # --- of rows: all have it ----------------------------------------------------------------

    @property
    def n_metrics(self) -> int:
        """One."""
        return 1

    def atom_metrics(self, n_atoms: int) -> Index:
        """The only one."""
        return np.zeros(n_atoms, np.intp)

    def metrics(self, support: Mask, before: Index) -> Index:
        """The only one."""
        return before

    def whiten_rows(self, Z: Array, metrics: Index) -> Array:
        """`whiten`."""
        return self.whiten(Z)

    def colour_rows(self, Z: Array, metrics: Index) -> Array:
        """`colour`."""
        return self.colour(Z)

    def log_sizes(self, metrics: Index) -> Array:
        """Zero, (N,)."""
        return np.zeros(len(metrics))

    def rows_cost(self, metrics: Index) -> float:
        """`cost`."""
        return self.cost(len(metrics))

    @property
    def is_observed(self) -> bool:
        """Most hang on Omega alone."""
        return False

    def observed(self, moments: Array) -> Self:
        """The same."""
        return self

    def of_atom(self, k: int) -> Noise:
        """The same for all."""
        return self

    def log_size(self, k: int) -> float:
        """Zero."""
        return 0.0

    def decoder_precisions(self, n_atoms: int) -> Array:
        """One, (K,): the unit of the rows is their root mean square."""
        return np.ones(n_atoms)


def nats(noise: Noise, second: Array, n_rows: int) -> float:
    """What n rows whose noise has the second moment (p, p) lose under Omega, at its best phi.

    n p / 2 log phi: the part of V that Omega moves, less its cost.
    """
    return 0.5 * n_rows * len(second) * float(np.log(max(noise.dispersion(second), TINY)))


def charged(noise: Noise, second: Array, n_rows: int) -> float:
    """The part of V that Omega moves: `nats` and the cost of its own parameters."""
    return nats(noise, second, n_rows) + noise.cost(n_rows)
