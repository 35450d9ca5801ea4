"""What Laplace's method misses of a row's angles (DESIGN A8).

An angle has an end: its integral is at most 2 pi, and Laplace's (2 pi / kappa)^(1/2) has none where
the curvature kappa is small, so that V would pay for noise that hides an angle. Where its density
is that of von Mises with the same curvature, the integral is 2 pi I_0(kappa) exp(-kappa), and

    c(kappa) = -log(I_0(kappa) exp(-kappa)) - (1/2) log(2 pi kappa) = -1 / (8 kappa) - ..

is missing from -log of Laplace's. kappa is what is left of the row's block D_i without its other
parameters, 1 / (D_i^-1)_aa, so that |D_i| = kappa times the determinant of the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import i0e, i1e

from reml_sae.typing import Array, Index, Mask

LARGE = 100.0
SERIES = np.array([1.0 / 8.0, 1.0 / 16.0, 25.0 / 384.0, 13.0 / 128.0, 1073.0 / 5120.0])
"""log(I_0(kappa) exp(-kappa) (2 pi kappa)^(1/2)) in powers of 1 / kappa ..."""
ORDERS = np.arange(1, len(SERIES) + 1)
"""... and these powers."""


def missing(kappa: Array) -> tuple[Array, Array]:
    """c of kappa, and its derivative."""
    small = np.minimum(kappa, LARGE)
    value = -np.log(i0e(small)) - 0.5 * np.log(2.0 * np.pi * small)
    slope = 1.0 - i1e(small) / i0e(small) - 0.5 / small
    inverse = 1.0 / np.maximum(kappa, LARGE)
    powers = inverse[..., None] ** ORDERS
    far = kappa > LARGE
    value = np.where(far, -powers @ SERIES, value)
    return value, np.where(far, (powers @ (ORDERS * SERIES)) * inverse, slope)


@dataclass(frozen=True)
class MissingAngles:
    """What Laplace's method misses of rows.

    Attributes
    ----------
    values : (n,) array
        Sum of c over the angles of every row.
    slope : (n, q, q) array
        Its derivative in D_i.
    trace : float
        Sum over rows of the product of this and D_i.
    """

    values: Array
    slope: Array
    trace: float

    @classmethod
    def of(cls, blocks: Array, columns: Index, carried: Mask) -> Self:
        """Of rows with the blocks D_i (n, q, q), whose parameters at ``columns`` are angles.

        Nothing where a block is singular, and for angles that a row does not carry.
        """
        values, slope, trace = np.zeros(len(blocks)), np.zeros_like(blocks), 0.0
        if not len(columns):
            return cls(values, slope, trace)
        inverse = np.broadcast_to(np.eye(blocks.shape[1]), blocks.shape).copy()
        definite = np.linalg.slogdet(blocks)[0] > 0  # others have no V anyway
        inverse[definite] = np.linalg.inv(blocks[definite])
        for a in columns:
            known = definite & carried[:, a]
            variance = inverse[:, a, a]
            own, by_kappa = missing(1.0 / variance)
            values += np.where(known, own, 0.0)
            by_kappa = np.where(known, by_kappa, 0.0)
            column = inverse[:, :, a] / variance[:, None]
            slope += by_kappa[:, None, None] * column[:, :, None] * column[:, None, :]
            trace += float((by_kappa / variance).sum())
        return cls(values, slope, trace)
