"""P-splines: the basis and the penalty of ``s(x)``.

Cubic B-splines on equally spaced knots with a penalty of second differences (Eilers and Marx 1996),
as mgcv's ``s(x, bs = "ps", m = c(2, 2))``: the knots reach a thousandth of the range beyond the
data, and the coefficients are held to a smooth whose values at the data sum to zero. Beyond the
knots a smooth goes on as a straight line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import BSpline

from reml_sae.errors import InputError
from reml_sae.typing import Array

DEGREE = 3
MARGIN = 1e-3
"""Share of the range of the data by which the inner knots reach beyond it."""


@dataclass(frozen=True, eq=False)
class PSpline:
    """A centred P-spline of one variable.

    Attributes
    ----------
    knots : (k + 4,) array
    centring : (k, k - 1) array
        Orthonormal basis of the coefficients of smooths that sum to zero over the data.
    """

    knots: Array
    centring: Array

    @classmethod
    def of(cls, x: Array, k: int, name: str) -> PSpline:
        """The spline of k B-splines on data (n,).

        Raises
        ------
        InputError
            Where k is too small, or larger than the number of distinct values.
        """
        distinct = len(np.unique(x))
        if k < DEGREE + 1 or k > distinct:
            raise InputError(f"{name}: k must be at least {DEGREE + 1} and at most the {distinct} "
                             f"distinct values of its variable, got {k}")
        low, high = float(x.min()), float(x.max())
        reach = MARGIN * (high - low)
        low, high = low - reach, high + reach
        step = (high - low) / (k - DEGREE)
        knots = np.asarray(low + step * np.arange(-DEGREE, k + 1), float)
        sums = _basis(x, knots).sum(axis=0)[:, None]
        return cls(knots, np.asarray(np.linalg.qr(sums, mode="complete")[0][:, 1:], float))

    def columns(self, x: Array) -> Array:
        """Its columns of X at values (n,), (n, k - 1)."""
        return _basis(x, self.knots) @ self.centring

    @property
    def ends(self) -> tuple[float, float]:
        """Where the knots begin and end, but for those beyond the data."""
        return float(self.knots[DEGREE]), float(self.knots[-DEGREE - 1])

    @property
    def penalty(self) -> Array:
        """Sum of squared second differences as a matrix, (k - 1, k - 1)."""
        D = np.diff(self.centring, 2, axis=0)
        return D.T @ D


def _basis(x: Array, knots: Array) -> Array:
    """B-splines (n, k) at values (n,), with straight lines beyond the knots."""
    spline = BSpline(knots, np.eye(len(knots) - DEGREE - 1), DEGREE)
    inside = np.clip(x, knots[DEGREE], knots[-DEGREE - 1])
    beyond = (x - inside)[:, None]
    return np.asarray(spline(inside) + beyond * spline.derivative()(inside), float)
