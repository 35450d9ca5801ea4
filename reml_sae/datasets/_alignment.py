"""Errors of coordinates that are known up to the gauge of their shape only.

Each function takes found and true coordinates (n, d) of the same rows and returns one figure, the
root mean square error after the best gauge change, per coordinate:

- circle: radians, after a rotation and perhaps a reflection;
- torus: radians, after integer changes of the two angles (entries in -1..1, determinant +-1, which
  holds swaps and signs) and a rotation of each;
- sphere, projective plane: radians of arc, after an orthogonal map;
- flat: in standard deviations of the true coordinate, after an affine map (so the root of 1 - R^2
  in one dimension);
- interval: in lengths of the interval, between the ranks over n, either way round. It is
  ((1 - |rank correlation|) / 6)^(1/2), which any monotone map of the coordinate leaves;
- cylinder, mobius: angle as on the circle; the second coordinate in standard deviations after a
  scale (and a shift on the cylinder; on the strip the sign flips with each turn of the angle).
"""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.stats import rankdata

from reml_sae.typing import Array

UNIMODULAR = [
    np.array(m, float).reshape(2, 2)
    for m in product((-1, 0, 1), repeat=4)
    if abs(m[0] * m[3] - m[1] * m[2]) == 1
]


def circle_error(found: Array, true: Array) -> float:
    """Angles (n, 1)."""
    return _rms(_turned(found[:, 0], true[:, 0])[1])


def torus_error(found: Array, true: Array) -> float:
    """Two angles (n, 2)."""
    return min(_rms(_wrapped(true - _rotated(found @ m.T, true))) for m in UNIMODULAR)


def sphere_error(found: Array, true: Array) -> float:
    """Unit vectors (n, 3)."""
    return _rms(_arc(found @ _orthogonal(found.T @ true), true))


def projective_error(found: Array, true: Array) -> float:
    """Unit vectors (n, 3), t and -t the same point.

    The sum of squares of t_i' R s_i is a quadratic form in R, so its leading eigenvector starts the
    rotation; signs and rotation then improve each other.
    """
    pairs = (found[:, :, None] * true[:, None, :]).reshape(len(true), 9)
    move = _orthogonal(np.linalg.eigh(pairs.T @ pairs)[1][:, -1].reshape(3, 3))
    signs = np.zeros(len(true))
    for _ in range(50):
        before, signs = signs, np.where(((found @ move) * true).sum(axis=1) < 0.0, -1.0, 1.0)
        if (signs == before).all():
            break
        move = _orthogonal((found * signs[:, None]).T @ true)
    return _rms(_arc(signs[:, None] * (found @ move), true))


def flat_error(found: Array, true: Array) -> float:
    """Positions (n, d)."""
    design = np.column_stack([np.ones(len(found)), found])
    return _rms(_unexplained(design, true))


def interval_error(found: Array, true: Array) -> float:
    """Positions (n, 1)."""
    ranks, wanted = (rankdata(t[:, 0]) / len(t) for t in (found, true))
    return min(_rms(wanted - ranks), _rms(wanted - (1.0 + 1.0 / len(found) - ranks)))


def cylinder_error(found: Array, true: Array) -> float:
    """Angle and height (n, 2)."""
    height = flat_error(found[:, [1]], true[:, [1]])
    return _rms(np.array([circle_error(found, true), height]))


def mobius_error(found: Array, true: Array) -> float:
    """Angle and place across the strip (n, 2)."""
    turns, gap = _turned(found[:, 0], true[:, 0])
    across = np.where(turns % 2 == 0, 1.0, -1.0) * found[:, 1]
    return _rms(np.array([_rms(gap), _rms(_unexplained(across[:, None], true[:, [1]]))]))


def _turned(found: Array, true: Array) -> tuple[Array, Array]:
    """Whole turns and remaining gap between true angles and the found ones, aligned."""
    aligned = min((_rotated(s * found, true) for s in (1.0, -1.0)),
                  key=lambda angles: _rms(_wrapped(true - angles)))
    gap = true - aligned
    return np.round(gap / (2.0 * np.pi)), _wrapped(gap)


def _rotated(found: Array, true: Array) -> Array:
    """Angles rotated by the circular mean of their gap to the true ones, a column at a time."""
    return found + np.angle(np.exp(1j * (true - found)).mean(axis=0))


def _wrapped(angles: Array) -> Array:
    return np.mod(angles + np.pi, 2.0 * np.pi) - np.pi


def _arc(a: Array, b: Array) -> Array:
    # the chord keeps small arcs exact where the arc cosine does not
    chord = np.linalg.norm(a - b, axis=1)
    return 2.0 * np.arcsin(np.minimum(chord / 2.0, 1.0))


def _orthogonal(m: Array) -> Array:
    """Orthogonal matrix nearest to m."""
    u, _, v = np.linalg.svd(m)
    return u @ v


def _unexplained(design: Array, true: Array) -> Array:
    """Residual of a least-squares map onto the true columns, in their standard deviations."""
    rest = true - design @ np.linalg.lstsq(design, true, rcond=None)[0]
    return rest / true.std(axis=0)


def _rms(x: Array) -> float:
    return float(np.sqrt(np.mean(x**2)))
