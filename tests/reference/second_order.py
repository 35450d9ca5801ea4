"""The next order of a Laplace approximation over decoders, as a check of how far that one lies off.

In coordinates x of the slice of `importance` in which the Hessian is one, with J the Jacobian of
the slice,

    -log int exp(-L) J dx = Laplace + L_aabb / 8 - L_abb L_acc / 8 - L_abc L_abc / 12
                            - (J_a J_a + J_aa) / 2 + J_a L_abb / 2 + ..,      J for log J,

repeated indices summed (Shun and McCullagh 1995). Derivatives are differences of the exact Hessian.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEP = 0.02
"""Posterior standard deviations."""


@dataclass(frozen=True)
class SecondOrder:
    """Parts of what is to be added to `Truth.value`, in nats.

    Attributes
    ----------
    shift : float
        Of the mode by the determinant, L_abb L_acc.
    skewness : float
        The other part of the third derivatives.
    kurtosis : float
        The fourth derivatives.
    group : float
        The Jacobian of the slice.
    """

    shift: float
    skewness: float
    kurtosis: float
    group: float

    @property
    def total(self):
        """Their sum."""
        return self.shift + self.skewness + self.kurtosis + self.group


def second_order(truth):
    """What a Laplace approximation `Truth` lacks to the next order."""
    B, tangents = truth.B, truth.orbit.tangents
    own = tangents(B)
    axes = truth.basis @ np.linalg.cholesky(truth.covariance)  # coordinates of unit Hessian

    def at(move):
        moved = B + move.reshape(B.shape)
        hessian = axes.T @ truth.likelihood.derivatives(moved)[2] @ axes
        return hessian, np.linalg.slogdet(own.T @ tangents(moved))[1]

    (middle, level), size = at(np.zeros(B.size)), axes.shape[1]
    third, slope, fourth, bend = np.zeros((size,) * 3), np.zeros(size), 0.0, 0.0
    for a, axis in enumerate(axes.T):
        above, below = at(STEP * axis), at(-STEP * axis)
        third[a] = (above[0] - below[0]) / (2.0 * STEP)
        slope[a] = (above[1] - below[1]) / (2.0 * STEP)
        fourth += np.trace(above[0] + below[0] - 2.0 * middle) / STEP**2
        bend += (above[1] + below[1] - 2.0 * level) / STEP**2
    shift = 0.5 * np.einsum("abb->a", third)
    return SecondOrder(-0.5 * float(shift @ shift), -float((third**2).sum()) / 12.0, fourth / 8.0,
                       float(slope @ shift - 0.5 * (slope @ slope + bend)))
