"""Comparing angles that are known up to rotation and reflection only."""

from __future__ import annotations

import numpy as np

from reml_sae.errors import InputError
from reml_sae.typing import Array


def circular_correlation(a: Array, b: Array) -> float:
    """Correlation of Fisher and Lee (1983) of two sets of angles.

    It is 1 where b is a rotation of a, -1 where it is a reflection, and needs no mean direction:
    sum sin(a_i - a_j) sin(b_i - b_j) over pairs, divided by the root of its two squares.

    Parameters
    ----------
    a, b : (n,) arrays
        Radians, n >= 2.
    """
    a, b = _angles(a, b)
    u = np.sin(a[:, None] - a)
    v = np.sin(b[:, None] - b)
    size = np.sqrt((u**2).sum() * (v**2).sum())
    if size == 0.0:
        raise InputError("the angles of one argument are all the same or opposite: no correlation")
    return float((u * v).sum() / size)


def align_angles(angles: Array, reference: Array) -> Array:
    """Rotate and, if need be, reflect angles so that they lie nearest to a reference.

    Parameters
    ----------
    angles, reference : (n,) arrays
        Radians.

    Returns
    -------
    (n,) array
        In [-pi, pi).
    """
    angles, reference = _angles(angles, reference)
    means = {sign: np.exp(1j * (reference - sign * angles)).mean() for sign in (1.0, -1.0)}
    sign = max(means, key=lambda s: float(abs(means[s])))
    return np.mod(sign * angles + np.angle(means[sign]) + np.pi, 2.0 * np.pi) - np.pi


def _angles(a: Array, b: Array) -> tuple[Array, Array]:
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.ndim != 1 or a.shape != b.shape or a.size < 2:
        raise InputError(f"need two vectors of the same length >= 2, got {a.shape} and {b.shape}")
    return a, b
