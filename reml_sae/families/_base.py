"""What PIRLS asks of a likelihood."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Family(Protocol):
    """Independent observations z with linear predictor eta and dispersion phi, as arrays (N, p).

    The Hessian that PIRLS uses is J^T W J with W the IRLS weights; a family whose weights are
    the same number everywhere keeps the border of the arrow matrix a Kronecker product.
    """

    name: str
    equal_weights: bool

    def loss(self, z: Array, eta: Array, log_dispersion: float) -> Array:
        """Negative log density of every row, (N,), with all its constants."""
        ...

    def loss_log_dispersion(self, z: Array, eta: Array, log_dispersion: float) -> float:
        """Derivative of the summed loss in the log dispersion."""
        ...

    def score(self, z: Array, eta: Array, log_dispersion: float) -> Array:
        """Derivative of the negative loss in eta, (N, p)."""
        ...

    def weights(self, z: Array, eta: Array, log_dispersion: float) -> Array:
        """IRLS weights, the expected second derivative of the loss in eta, (N, p)."""
        ...
