"""Soft monotonicity along a sequence.

    P = w eps sum over consecutive rows and axes of softplus(-direction (t_{n+1} - t_n) / eps)

A step in the right direction costs nothing, one in the wrong direction its length, smoothed over
eps. Convex; unbounded sets cost next to nothing, so exp(-P) has no finite integral.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import expit

from reml_sae.errors import InputError
from reml_sae.penalties import _fields
from reml_sae.penalties._edges import EdgePenalty
from reml_sae.penalties._matrix import Held
from reml_sae.penalties._registry import register
from reml_sae.typing import Array


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class MonotonicityPenalty(Held, EdgePenalty):
    """Penalty on steps against a direction; target: coordinates (n, d) in the order of the rows.

    Parameters
    ----------
    latent_dim : int
        d >= 1.
    direction : {1, -1}
        1: coordinates should not fall from row to row; -1: they should not rise.
    eps : float
        Smoothing length.
    weight, weight_schedule
        See `Penalty`. The weight is fixed: the prior is improper.
    """

    direction: int = 1
    eps: float = 1e-2

    KIND_TAG: ClassVar[str] = "monotonicity"
    PYTHON_WRAPPER: ClassVar[str] = "MonotonicityPenalty"
    FORMULA: ClassVar[str] = "w eps sum softplus(-direction (t_{n+1} - t_n) / eps)"

    def __post_init__(self) -> None:
        if _fields.integer("direction", self.direction, -1) not in (-1, 1):
            raise InputError(f"direction must be 1 or -1, got {self.direction!r}")
        _fields.positive("eps", self.eps)
        super().__post_init__()

    def profile(self, x: Array, order: int) -> Array:
        """Eps softplus(-direction x / eps) and its derivatives."""
        x = -self.direction * x / self.eps
        if order == 0:
            return self.eps * np.logaddexp(0.0, x)
        wrong = expit(x)
        if order == 1:
            return -self.direction * wrong
        right = expit(-x)  # 1 - wrong, accurate in both tails
        bend = wrong * right / self.eps
        return bend if order == 2 else -self.direction / self.eps * bend * (right - wrong)
