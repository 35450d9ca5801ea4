"""Quadrature over an atom's coordinates, and its symmetries, written without the engine.

Priors of coordinates, group volumes and multiplicities are stated here a second time; of the
manifolds only the basis is used.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import logm
from scipy.special import ndtri, roots_hermitenorm

REACH = 8.5
"""Prior standard deviations up to which Gaussian coordinates are integrated."""
TURN = 0.3

MULTIPLICITY = {
    # the reflection t -> -t; turned, it is the reflection in any axis
    "circle": 2,
    # O(3) has two components
    "sphere": 2,
    # either angle reflected, and the two exchanged: the order of the dihedral group of the square.
    # Other integer changes of the angles mix frequencies, and the basis is not closed under them
    "torus": 8,
    # the angle reflected, the height reflected
    "cylinder": 4,
    # the angle reflected; a full turn of the angle reflects the height, so that is connected
    "mobius": 2,
    # s -> 1 - s
    "interval": 2,
    # O(d) has two components: t -> -t on a line, a reflection of a plane
    "euclidean": 2,
}


def log_multiplicity(atom) -> float:
    """Log of the number of equal modes of B, orbits of continuous symmetries counted as one."""
    return float(np.log(MULTIPLICITY[atom.name]))


# --- quadrature ----------------------------------------------------------------------------------


def angle_axis(n):
    """Periodic trapezoid for a uniform angle: nodes and log weights, which sum to one."""
    return 2.0 * np.pi * np.arange(n) / n - np.pi, np.full(n, -np.log(n))


def normal_axis(n):
    """Trapezoid for N(0, 1): the integrand vanishes with all derivatives at both ends."""
    t = np.linspace(-REACH, REACH, n + 1)
    return t, -0.5 * t**2 - 0.5 * np.log(2.0 * np.pi) + np.log(2.0 * REACH / n)


def hermite_axis(n, sd=1.0):
    """Gauss's rule for N(0, sd^2), where the integrand is smooth on the scale of the prior."""
    t, w = roots_hermitenorm(n)
    return sd * t, np.log(w) - 0.5 * np.log(2.0 * np.pi)


def piecewise_axis(breaks, n):
    """Gauss's rule between the knots of a spline, which are given as quantiles, for N(0, 1)."""
    ends = np.concatenate([[-REACH], ndtri(breaks), [REACH]])
    x, w = np.polynomial.legendre.leggauss(n)
    half = 0.5 * np.diff(ends)[:, None]
    t = (ends[:-1, None] + half * (x + 1.0)).ravel()
    return t, np.log((half * w).ravel()) - 0.5 * t**2 - 0.5 * np.log(2.0 * np.pi)


def product_rule(*axes):
    """Nodes (G, d) and log weights (G,) of a tensor product."""
    nodes = np.meshgrid(*[axis[0] for axis in axes], indexing="ij")
    weights = np.meshgrid(*[axis[1] for axis in axes], indexing="ij")
    return np.stack([t.ravel() for t in nodes], 1), np.sum(weights, 0).ravel()


def sphere_rule(n):
    """Gauss's rule in the height and a trapezoid in the longitude, for uniform unit vectors."""
    z, w = np.polynomial.legendre.leggauss(n)
    t, weights = product_rule((z, np.log(0.5 * w)), angle_axis(2 * n))
    radius = np.sqrt(1.0 - t[:, 0] ** 2)
    return np.column_stack([radius * np.cos(t[:, 1]), radius * np.sin(t[:, 1]), t[:, 0]]), weights


def grid(atom, n):
    """Nodes (G, d) and log weights (G,) for the coordinate prior of an atom, n nodes an axis."""
    if atom.name == "circle":
        return product_rule(angle_axis(n))
    if atom.name == "torus":
        return product_rule(angle_axis(n), angle_axis(n))
    if atom.name == "sphere":
        return sphere_rule(n // 2)
    if atom.name in ("cylinder", "mobius"):
        return product_rule(angle_axis(n), normal_axis(n))
    if atom.name == "euclidean":
        return product_rule(*[normal_axis(2 * n)] * atom.dim)
    if atom.name == "interval":
        pieces = atom.n_basis - 4
        return product_rule(piecewise_axis(np.arange(1, pieces) / pieces, n))
    raise ValueError(f"no quadrature for {atom.name!r}; add one to `grid`")


# --- continuous symmetries -----------------------------------------------------------------------


def _rotation(a, b, dim, angle):
    turn = np.eye(dim)
    turn[[a, b], [a, b]] = np.cos(angle)
    turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
    return turn


def moves(atom) -> tuple[list[Callable], float]:
    """One-parameter groups of the coordinates, (t, angle) -> t, and the log volume of the group."""
    if atom.name in ("circle", "cylinder", "mobius"):
        turns = 4.0 * np.pi if atom.name == "mobius" else 2.0 * np.pi
        return [lambda t, c: t + c * np.eye(t.shape[1])[0]], float(np.log(turns))
    if atom.name == "torus":
        return [lambda t, c, a=a: t + c * np.eye(2)[a] for a in (0, 1)], 2.0 * np.log(2.0 * np.pi)
    if atom.name == "sphere":
        return [lambda t, c, ab=ab: t @ _rotation(*ab, 3, c).T
                for ab in ((1, 2), (2, 0), (0, 1))], float(np.log(8.0 * np.pi**2))
    if atom.name == "euclidean" and atom.dim == 2:
        return [lambda t, c: t @ _rotation(0, 1, 2, c).T], float(np.log(2.0 * np.pi))
    if atom.name == "interval" or (atom.name == "euclidean" and atom.dim == 1):
        return [], 0.0
    raise ValueError(f"the symmetries of {atom.name!r} are not known; add them to `moves`")


def generators(atom):
    """Matrices E, (g, M, M), with phi(moved t) = phi(t) expm(angle E), by least squares."""
    t = grid(atom, 24)[0]
    before = atom.basis(t)
    # far nodes of polynomials would drown the others
    scale = 1.0 / (1.0 + np.linalg.norm(before, axis=1, keepdims=True)) ** 2
    out = []
    for move in moves(atom)[0]:
        turned = np.linalg.lstsq(scale * before, scale * atom.basis(move(t, TURN)), rcond=None)[0]
        out.append(np.real(logm(turned)) / TURN)
    return np.array(out).reshape(-1, atom.basis_size, atom.basis_size)
