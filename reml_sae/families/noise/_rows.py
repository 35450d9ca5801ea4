"""What a model asks of the noise of its rows: one metric for all of them, or one for each group."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from reml_sae.typing import Array, Index, Mask

if TYPE_CHECKING:
    from reml_sae.families.noise._base import Noise


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
