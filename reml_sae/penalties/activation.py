"""Penalties on activation: the largest coordinates of a row, and smooth thresholds.

topk_activation:  P = w / 2 sum over the k largest |t| of every row of t^2. It is the maximum of the
quadratics over all choices of k axes, hence convex; H = w on the chosen axes wherever the choice
is unique, and the choice at a tie is the lower index.

smooth_threshold:  P = w sum theta_j sigma((t_ij - theta_j) / eps). With p = sigma (1 - sigma)
    sigma' = p,   sigma'' = p (1 - 2 sigma),   sigma''' = p (1 - 6 p),
and 1 - 2 sigma <= (1 - sigma)^2 gives the majorizer
    b = w theta / eps^2 sigma (1 - sigma)^3,   b - f'' = w theta / eps^2 sigma^3 (1 - sigma) >= 0.
The power 3 is the largest that majorizes for small sigma.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.special import expit

from reml_sae.errors import InputError
from reml_sae.penalties import _fields
from reml_sae.penalties._elementwise import HeldElementwise
from reml_sae.penalties._registry import register
from reml_sae.typing import Array


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class TopKActivationPenalty(HeldElementwise):
    """Ridge on the k largest coordinates of each row; target: coordinates (n, d).

    Parameters
    ----------
    latent_dim : int
        d >= 1.
    k : int
        How many axes of a row it acts on, 1 to d.
    weight, weight_schedule
        See `Penalty`.
    """

    latent_dim: int
    k: int = 1

    KIND_TAG: ClassVar[str] = "topk_activation"
    PYTHON_WRAPPER: ClassVar[str] = "TopKActivationPenalty"
    FORMULA: ClassVar[str] = "w / 2 sum_i sum over the k largest |t_ij| of row i of t_ij^2"

    def __post_init__(self) -> None:
        _fields.integer("latent_dim", self.latent_dim, 1)
        if _fields.integer("k", self.k, 1) > self.latent_dim:
            raise InputError(f"k must be at most latent_dim = {self.latent_dim}, got {self.k!r}")
        super().__post_init__()

    @property
    def is_smooth(self) -> bool:
        """Where it acts on all axes.

        Otherwise P is a maximum of quadratics, and a fit drives rows into the ties, where it has a
        kink.
        """
        return self.k == self.latent_dim

    def width(self) -> int:
        """The dimension d."""
        return self.latent_dim

    def chosen(self, t: Array) -> Array:
        """1 on the k largest |t| of every row, ties to the lower index, else 0, (n, d)."""
        order = np.argsort(-np.abs(t), axis=1, kind="stable")
        out = np.zeros(t.shape)
        np.put_along_axis(out, order[:, : self.k], 1.0, axis=1)
        return out

    def derivative(self, t: Array, rho: Array, order: int) -> Array:
        """Of w / 2 t^2 on the chosen entries."""
        return self.strength(rho) * self.chosen(t) * (0.5 * t**2, t, 1.0, 0.0)[order]


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class SmoothThresholdPenalty(HeldElementwise):
    """Smooth count of the coordinates above a threshold; target: coordinates (n, d).

    Parameters
    ----------
    thresholds : (d,) array-like
        Positive theta_j, one for each axis.
    eps : float
        Width of the step > 0.
    weight, weight_schedule
        See `Penalty`.
    """

    thresholds: Any
    eps: float = 0.1

    KIND_TAG: ClassVar[str] = "smooth_threshold"
    PYTHON_WRAPPER: ClassVar[str] = "SmoothThresholdPenalty"
    FORMULA: ClassVar[str] = "w sum_ij thresholds_j sigmoid((t_ij - thresholds_j) / eps)"

    def __post_init__(self) -> None:
        thresholds = _fields.array("thresholds", self.thresholds, 1)
        if not thresholds.size:
            raise InputError("thresholds must have one entry for each latent axis, got none")
        for j, theta in enumerate(thresholds.tolist()):
            _fields.positive(f"thresholds[{j}]", theta)
        object.__setattr__(self, "thresholds", thresholds)
        _fields.positive("eps", self.eps)
        super().__post_init__()

    def width(self) -> int:
        """Number of thresholds d."""
        return len(self.thresholds)

    def _sigmoid(self, t: Array, rho: Array, order: int) -> tuple[Array, Array, Array]:
        """Sigma, 1 - sigma, and the factor w theta / eps^order."""
        z = (t - self.thresholds) / self.eps
        return expit(z), expit(-z), self.strength(rho) * self.thresholds / self.eps**order

    def derivative(self, t: Array, rho: Array, order: int) -> Array:
        """Of w theta sigma((t - theta) / eps)."""
        up, down, factor = self._sigmoid(t, rho, order)
        p = up * down
        return factor * (up, p, p * (down - up), p * (1.0 - 6.0 * p))[order]

    def bound(self, t: Array, rho: Array, order: int) -> Array:
        """w theta / eps^2 sigma (1 - sigma)^3, or its derivative."""
        up, down, factor = self._sigmoid(t, rho, order + 2)
        b = factor * up * down**3
        return b if order == 0 else b * (down - 3.0 * up)
