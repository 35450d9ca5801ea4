"""The contract of an atom topology."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Manifold(ABC):
    """Shape of an atom: a basis Phi on a manifold with all that the engine asks of it.

    Attributes
    ----------
    name : str
        Name in the registry.
    prior_precision : float
        Coordinates have the prior N(0, I / prior_precision); 0 is uniform on a compact manifold.
    """

    name: ClassVar[str]
    prior_precision: ClassVar[float]

    @property
    @abstractmethod
    def latent_dim(self) -> int:
        """Dimension d of the manifold."""

    @property
    @abstractmethod
    def basis_size(self) -> int:
        """Number M of basis functions; the first is the constant."""

    @property
    @abstractmethod
    def linear_dim(self) -> int:
        """Dimension of the affine subspace that the unpenalised part of the basis spans."""

    @abstractmethod
    def jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """Basis and its derivatives up to ``order`` <= 3 at coordinates (n, d).

        Returns
        -------
        tuple of (n, M), (n, d, M), (n, d, d, M), (n, d, d, d, M)
        """

    def basis(self, t: Array) -> Array:
        """Basis (n, M) at coordinates (n, d)."""
        return self.jet(t, 0)[0]

    @abstractmethod
    def roughness(self) -> Array | None:
        """Roughness penalty (M, M), invariant under the gauge; None where nothing is rough."""

    @abstractmethod
    def log_prior_volume(self) -> float:
        """Log partition of the coordinate prior of one row."""

    @abstractmethod
    def prior_mean_basis(self) -> Array:
        """Mean of the basis under the coordinate prior, (M,)."""

    @abstractmethod
    def gauge_generators(self) -> Array:
        """R, (g, M, M): B + eps R_a B undoes the move of the coordinates along `gauge_field`."""

    @abstractmethod
    def gauge_field(self, t: Array) -> Array:
        """Coordinate vector fields of the gauge, (g, n, d)."""

    @abstractmethod
    def gauge_move(self, t: Array, c: Array) -> Array:
        """Coordinates (n, d) after unit time along the field sum_a c_a gauge_field_a, c (g,)."""

    @abstractmethod
    def log_gauge_volume(self, kept: Sequence[int]) -> float:
        """Log volume of the group of the generators numbered ``kept``, in their metric."""

    @abstractmethod
    def retract(self, t: Array, step: Array) -> Array:
        """Coordinates (n, d) moved by a tangent step."""

    @abstractmethod
    def distance(self, t1: Array, t2: Array) -> Array:
        """Geodesic distance (n,)."""

    @abstractmethod
    def grid(self, n: int) -> Array:
        """About n coordinates (n', d) that cover the manifold, or the bulk of its prior."""

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Dictionary from which `get_manifold` makes the same object."""
