"""Shapes that can be planted: how coordinates are drawn, and where they lie in a small space.

Coordinates follow the conventions of `reml_sae.manifolds` (which this layer does not import):

=================  =====  ==================================================  =================
name               width  coordinates (n, d)                                  drawn from
=================  =====  ==================================================  =================
circle, ellipse    2      angle                                               uniform
interval           2      t; the position on the arc is s = Normal CDF(t)     N(0, 1), s uniform
linear             1      position                                            N(0, 1)
plane              2      position                                            N(0, I)
torus, donut       4, 3   two angles                                          uniform
cylinder           3      angle, height w                                     uniform, N(0, 1)
sphere             3      unit vector of R^3                                  uniform
mobius             3      angle, place w across the strip                     uniform, N(0, 1)
projective_plane   5      unit vector of R^3, t and -t the same point         uniform
curved_sheet       3      position                                            N(0, I)
=================  =====  ==================================================  =================

Angles are radians in [-pi, pi). Circles, arcs, Clifford tori, spheres and projective planes lie at
distance 1 from the centre, the others about it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from reml_sae.typing import Array

ELLIPSE_AXES = (1.0, 0.6)
ARC = 1.5 * np.pi
TUBE = 0.4
HEIGHT = 0.6
STRIP = 0.3
BEND = 0.4


class Shape(NamedTuple):
    """A named shape.

    Attributes
    ----------
    width : int
        Dimension of the space that holds it.
    draw : callable (rng, n) -> (n, d) coordinates
    embed : callable (n, d) coordinates -> (n, width) points
    """

    width: int
    draw: Callable[[np.random.Generator, int], Array]
    embed: Callable[[Array], Array]


def _angles(d: int) -> Callable[[np.random.Generator, int], Array]:
    return lambda rng, n: rng.uniform(-np.pi, np.pi, size=(n, d))


def _normal(d: int) -> Callable[[np.random.Generator, int], Array]:
    return lambda rng, n: rng.normal(size=(n, d))


def _angle_and_normal(rng: np.random.Generator, n: int) -> Array:
    return np.column_stack([rng.uniform(-np.pi, np.pi, size=n), rng.normal(size=n)])


def _unit_vectors(rng: np.random.Generator, n: int) -> Array:
    t = rng.normal(size=(n, 3))
    return t / np.linalg.norm(t, axis=1, keepdims=True)


def _circle(t: Array) -> Array:
    return np.column_stack([np.cos(t[:, 0]), np.sin(t[:, 0])])


def _ellipse(t: Array) -> Array:
    return _circle(t) * ELLIPSE_AXES


def _interval(t: Array) -> Array:
    return _circle(ARC * (ndtr(t) - 0.5))


def _identity(t: Array) -> Array:
    return t


def _torus(t: Array) -> Array:
    return np.concatenate([np.cos(t), np.sin(t)], axis=1)[:, [0, 2, 1, 3]] / np.sqrt(2.0)


def _donut(t: Array) -> Array:
    ring = 1.0 + TUBE * np.cos(t[:, [1]])
    return np.column_stack([ring * _circle(t), TUBE * np.sin(t[:, 1])])


def _cylinder(t: Array) -> Array:
    return np.column_stack([_circle(t), HEIGHT * t[:, 1]])


def _mobius(t: Array) -> Array:
    out = 1.0 + STRIP * t[:, [1]] * np.cos(t[:, [0]] / 2.0)
    return np.column_stack([out * _circle(t), STRIP * t[:, 1] * np.sin(t[:, 0] / 2.0)])


def _veronese(t: Array) -> Array:
    # orthonormal coordinates of the traceless part of t t', scaled to unit length
    x, y, z = t.T
    root = np.sqrt(3.0)
    return np.column_stack([root * x * y, root * y * z, root * x * z,
                            root / 2.0 * (x**2 - y**2), 1.5 * z**2 - 0.5])


def _sheet(t: Array) -> Array:
    return np.column_stack([t, BEND * ((t**2).sum(axis=1) - 2.0)])


SHAPES = {
    "circle": Shape(2, _angles(1), _circle),
    "ellipse": Shape(2, _angles(1), _ellipse),
    "interval": Shape(2, _normal(1), _interval),
    "linear": Shape(1, _normal(1), _identity),
    "plane": Shape(2, _normal(2), _identity),
    "torus": Shape(4, _angles(2), _torus),
    "donut": Shape(3, _angles(2), _donut),
    "cylinder": Shape(3, _angle_and_normal, _cylinder),
    "sphere": Shape(3, _unit_vectors, _identity),
    "mobius": Shape(3, _angle_and_normal, _mobius),
    "projective_plane": Shape(5, _unit_vectors, _veronese),
    "curved_sheet": Shape(3, _normal(2), _sheet),
}
