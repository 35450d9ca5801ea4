"""What Laplace's method misses of a row's angles, directions and log amplitudes (DESIGN A8).

An angle has an end: its integral is at most 2 pi, and Laplace's (2 pi / kappa)^(1/2) has none where
the curvature kappa is small, so that V would pay for noise that hides an angle. Where its density
is that of von Mises with the same curvature, the integral is 2 pi I_0(kappa) exp(-kappa), and

    c(kappa) = -log(I_0(kappa) exp(-kappa)) - (1/2) log(2 pi kappa) = -1 / (8 kappa) - ..

is missing from -log of Laplace's. kappa is what is left of the row's block D_i without its other
parameters, 1 / (D_i^-1)_aa, so that |D_i| = kappa times the determinant of the others.

A unit vector t of R^3 has no end of its integral either, where Laplace's is 2 pi / kappa with
kappa^2 the determinant of what is left of the row's block in t: its radial part is one. With the
same kappa in all directions the density exp(kappa (t_hat . t - 1)) has 2 pi (1 - exp(-2 kappa)) /
kappa, and on lines exp(-(kappa / 2) sin^2) has 4 pi y D(y) / kappa with Dawson's D and
y^2 = kappa / 2, so that

    c(kappa) = -log(1 - exp(-2 kappa))    and    -log(2 y D(y)) = -1 / kappa - ..

A Gaussian likelihood is quadratic in an amplitude, and not in its logarithm u, which has a Gaussian
prior. With K the curvature that is left of the likelihood in u, lambda and b the curvature and the
slope of the prior at the mode, F is at u + v

    (K / 2) (e^v - 1)^2 - b (e^v - 1 - v) + lambda v^2 / 2

above its mode, of which Laplace's method has (K + lambda) v^2 / 2. Where all coordinates of an atom
are angles, amplitude and angles are polar coordinates: the row lies s = 1 + b / K times as far out
as its point on the curve, kappa is kappa s e^v, and with it

    c(kappa s) + (1/2) log s per angle - log((K + lambda) / 2 pi)^(1/2) int exp(-F - tau v) dv,

where tau is the derivative of log(I_0 exp(-)) at kappa s in -log kappa, 1/2 an angle where kappa is
large. The integral is a Gauss-Hermite rule on the scale of Laplace's method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from scipy.special import dawsn, i0e, i1e

from reml_sae.typing import Array, Index, Mask

LARGE = 100.0
LARGE_ON_LINES = 1e5
SERIES = np.array([1.0 / 8.0, 1.0 / 16.0, 25.0 / 384.0, 13.0 / 128.0, 1073.0 / 5120.0])
"""log(I_0(kappa) exp(-kappa) (2 pi kappa)^(1/2)) in powers of 1 / kappa ..."""
ORDERS = np.arange(1, len(SERIES) + 1)
"""... and these powers."""
NODES, MASS = np.polynomial.hermite_e.hermegauss(10)
LOG_MASS = np.log(MASS / MASS.sum())
POWERS = NODES ** np.arange(3)[:, None]
FARTHEST = 50.0
LEAST_LIKELIHOOD = 1e-9
"""Of the curvature of a log amplitude, over that of its prior: below it is rounding."""
LEAST_RADIUS = 0.02
"""About where s, which other atoms of the row may make negative, bends to stay positive."""


class Polar(NamedTuple):
    """The angles of an atom, and the log amplitude that makes polar coordinates of them.

    Attributes
    ----------
    amplitude : int or None
        Column of xi, and of the full local parameters, as the chart is then the logits.
    angles : (a,) int array
        Columns of xi.
    """

    amplitude: int | None
    angles: Index


class Direction(NamedTuple):
    """The unit vector of an atom.

    Attributes
    ----------
    columns : (3,) int array
        Of xi.
    antipodal : bool
        Whether a vector and its opposite are one point.
    """

    columns: Index
    antipodal: bool


class Stretch(NamedTuple):
    """What a log amplitude adds, and its derivatives; arrays (n,), and (n, a) in kappa."""

    value: Array
    likelihood: Array
    curvature: Array
    slope: Array
    kappa: Array


def of_angles(kappa: Array) -> tuple[Array, Array, Array]:
    """c of kappa, and its first two derivatives."""
    small = np.minimum(kappa, LARGE)
    ratio = i1e(small) / i0e(small)
    value = -np.log(i0e(small)) - 0.5 * np.log(2.0 * np.pi * small)
    first = 1.0 - ratio - 0.5 / small
    second = ratio / small + ratio**2 - 1.0 + 0.5 / small**2
    inverse = 1.0 / np.maximum(kappa, LARGE)
    powers = inverse[..., None] ** ORDERS
    far = kappa > LARGE
    return (np.where(far, -powers @ SERIES, value),
            np.where(far, (powers @ (ORDERS * SERIES)) * inverse, first),
            np.where(far, -(powers @ (ORDERS * (ORDERS + 1) * SERIES)) * inverse**2, second))


def of_directions(kappa: Array, antipodal: bool) -> tuple[Array, Array]:
    """c of kappa, and its derivative in log kappa."""
    if not antipodal:
        # a larger kappa has an exponential of zero
        small = np.minimum(kappa, LARGE)
        return -np.log(-np.expm1(-2.0 * small)), -2.0 * small / np.expm1(2.0 * small)
    y = np.sqrt(0.5 * np.minimum(kappa, LARGE_ON_LINES))
    dawson = dawsn(y)
    inverse = 1.0 / np.maximum(kappa, LARGE_ON_LINES)
    far = kappa > LARGE_ON_LINES
    return (np.where(far, -inverse - 2.5 * inverse**2, -np.log(2.0 * y * dawson)),
            np.where(far, inverse + 5.0 * inverse**2, y**2 - 0.5 - 0.5 * y / dawson))


def of_polar(kappa: Array, likelihood: Array, curvature: Array, slope: Array) -> Stretch:
    """What is missing of angles (n, a) and their log amplitude; K, lambda and b are (n,)."""
    ratio = 1.0 + slope / likelihood
    root = np.hypot(ratio, LEAST_RADIUS)
    s = ((ratio + root) / (1.0 + np.hypot(1.0, LEAST_RADIUS)))[:, None]
    x = kappa * s
    c, first, second = of_angles(x)
    tau = (0.5 + x * first).sum(axis=1)
    value, by_likelihood, by_curvature, by_slope, by_tau = _log_normal(
        likelihood, curvature, slope, tau)
    value += (c + 0.5 * np.log(s)).sum(axis=1)
    by_x = first + by_tau[:, None] * (first + x * second)
    by_ratio = ((by_x * x).sum(axis=1) + 0.5 * kappa.shape[1]) / root  # ds / s = d ratio / root
    return Stretch(value, by_likelihood - by_ratio * slope / likelihood**2, by_curvature,
                   by_slope + by_ratio / likelihood, by_x * s)


def _log_normal(K: Array, curvature: Array, slope: Array, tau: Array) -> list[Array]:
    """-log of the integral over v over Laplace's, and its derivatives in K, lambda, b and tau."""
    total = K + curvature
    scale = 1.0 / np.sqrt(total)
    grown = np.exp(np.minimum(scale[:, None] * NODES, FARTHEST)) - 1.0
    weights = np.column_stack([-scale * (slope + tau), 0.5 * K / total]) @ POWERS[1:]
    weights += (slope[:, None] - 0.5 * K[:, None] * grown) * grown + LOG_MASS
    top = weights.max(axis=1)
    np.exp(weights - top[:, None], out=weights)
    mass = weights.sum(axis=1)
    weights /= mass[:, None]
    _, v, v2 = (weights @ POWERS.T).T
    weights *= grown
    g, gv, _ = (weights @ POWERS.T).T
    weights *= grown
    g2, g2v, _ = (weights @ POWERS.T).T
    v, v2, gv, g2v = scale * v, v2 / total, scale * gv, scale * g2v
    # the nodes move in proportion to total^(-1/2)
    by_total = -0.5 * (K * (gv + g2v - v2) - slope * gv + tau * v) / total
    return [-top - np.log(mass), 0.5 * (g2 - v2) + by_total, by_total, v - g, v]


@dataclass(frozen=True)
class Remainder:
    """What Laplace's method misses of rows.

    Attributes
    ----------
    values : (n,) array
        Of every row, all atoms together.
    blocks : (n, q, q) array
        Its derivative in D_i.
    curvature, slope : (n, K + D) arrays
        Its derivatives in the curvature and the slope of the prior, in full local parameters.
    scaling : float
        Sum over rows of its derivative in the log of a factor of D_i and the prior's curvature.
    """

    values: Array
    blocks: Array
    curvature: Array
    slope: Array
    scaling: float

    @classmethod
    def of(cls, inverse: Array, bounded: Sequence[Polar | Direction], carried: Mask,
           curvature: Array, slope: Array) -> Self:
        """Of rows with the inverse blocks D_i^-1 (n, q, q) at a mode, zero where one is singular.

        Nothing of these, and for atoms that a row does not carry. The curvature and the slope of
        the prior are (n, K + D), in full local parameters.
        """
        values, out = np.zeros(len(inverse)), np.zeros_like(inverse)
        by_curvature, by_slope = np.zeros_like(curvature), np.zeros_like(slope)
        if not bounded:
            return cls(values, out, by_curvature, by_slope, 0.0)
        definite, scaling = inverse.any(axis=(1, 2)), 0.0
        for part in bounded:
            if isinstance(part, Direction):
                rows = np.flatnonzero(definite & carried[:, part.columns[0]])
                pulled = inverse[rows][:, :, part.columns]
                left = inverse[np.ix_(rows, part.columns, part.columns)]
                value, by_log = of_directions(np.linalg.det(left) ** -0.5, part.antipodal)
                values[rows] += value
                by_block = 0.5 * by_log[:, None, None] * np.linalg.inv(left)
                out[rows] += pulled @ by_block @ pulled.transpose(0, 2, 1)
                scaling += 1.5 * float(by_log.sum())
                continue
            amplitude, angles = part
            rows = np.flatnonzero(definite & carried[:, angles[0]])
            columns = angles if amplitude is None else np.append(angles, amplitude)
            found = inverse[rows]
            left = 1.0 / found[:, columns, columns]
            if amplitude is None:
                value, by_left, _ = of_angles(left)
                values[rows] += value.sum(axis=1)
            else:
                prior = curvature[rows, amplitude]
                least = LEAST_LIKELIHOOD * prior
                known = left[:, -1] - prior > least
                got = of_polar(left[:, :-1], np.where(known, left[:, -1] - prior, least), prior,
                               slope[rows, amplitude])
                values[rows] += got.value
                by_slope[rows, amplitude] = got.slope
                by_known = np.where(known, got.likelihood, 0.0)
                by_curvature[rows, amplitude] = got.curvature - by_known + np.where(
                    known, 0.0, LEAST_LIKELIHOOD * got.likelihood)
                by_left = np.column_stack([got.kappa, by_known])
                scaling += float((by_curvature[rows, amplitude] * prior).sum())
            weighted = found[:, :, columns] * left[:, None, :]
            out[rows] += (weighted * by_left[:, None, :]) @ weighted.transpose(0, 2, 1)
            scaling += float((by_left * left).sum())
        return cls(values, out, by_curvature, by_slope, scaling)
