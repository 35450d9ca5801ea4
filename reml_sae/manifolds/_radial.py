"""Radial functions |t - c_j|^3 and affine functions, orthonormal under N(0, I).

With centres c_j and coefficients delta that annihilate affine functions, sum_j delta_j = 0 and
sum_j delta_j c_j = 0, the form delta^T E delta, E_jk = |c_j - c_k|^3, is Duchon's squared
semi-norm (Duchon 1977; Wahba 1990, "Spline models for observational data", chapter 2.4), up to a
factor. The functions

    1,  t_1, .., t_d,  f_a = sum_j delta_ja |t - c_j|^3 + affine_a

are orthonormal under N(0, I) and diagonalise that form, f_1 the smoothest. The factor is chosen so
that f_1 has the roughness E ||Hess f_1||^2, in the units of `Euclidean`.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh, null_space
from scipy.special import ndtri
from scipy.stats.qmc import Halton

from reml_sae.manifolds._harmonics import one_index
from reml_sae.typing import Array

SPACING, EDGE = {1: 0.01, 2: 0.1, 3: 0.3}, 6.5
"""Lattice of the quadrature, by the dimension, and the radius beyond which N(0, I) has no mass."""
PROBE = np.array([[3.0, 2.0, 1.0]])
"""The functions are positive here."""


class RadialBasis(NamedTuple):
    """Centres (n, d), delta (n, n - d - 1), affine parts (d + 1, n - d - 1) and roughness."""

    centres: Array
    radial: Array
    affine: Array
    roughness: Array


def normal_centres(dim: int, n_centres: int) -> Array:
    """Normal quantiles (n, d) of Hammersley's points: even in the first axis, Halton's beyond."""
    points = (np.arange(n_centres) + 0.5)[:, None] / n_centres
    if dim > 1:
        halton = Halton(dim - 1, scramble=False)
        halton.fast_forward(1)
        points = np.column_stack([points, halton.random(n_centres)])
    return np.asarray(ndtri(points), float)


@cache
def radial_basis(dim: int, n_centres: int) -> RadialBasis:
    """The functions and their roughness."""
    centres = normal_centres(dim, n_centres)
    free = null_space(np.column_stack([np.ones(n_centres), centres]).T)
    nodes, mass = _normal_quadrature(dim)
    values = cubic_jet(nodes, centres, 0)[0] @ free
    affine = np.column_stack([np.ones(len(nodes)), nodes])
    parts = -affine.T @ (mass[:, None] * values)
    values += affine @ parts
    energy = free.T @ cubic_jet(centres, centres, 0)[0] @ free
    roughness, vectors = eigh(energy, values.T @ (mass[:, None] * values))
    probe = PROBE[:, :dim]
    at_probe = cubic_jet(probe, centres, 0)[0] @ free @ vectors + (
        np.column_stack([np.ones(1), probe]) @ parts @ vectors)
    vectors = vectors * np.sign(at_probe[0])
    radial = free @ vectors
    # centre by centre, to hold no more than the values do
    bends = np.zeros((len(nodes), dim, dim))
    for centre, weight in zip(centres, radial[:, 0], strict=True):
        bends += weight * cubic_jet(nodes, centre[None], 2)[2][..., 0]
    scale = mass @ np.einsum("nde,nde->n", bends, bends) / roughness[0]
    return RadialBasis(centres, radial, parts @ vectors, scale * roughness)


def _normal_quadrature(dim: int) -> tuple[Array, Array]:
    """Nodes (n, d) and weights (n,) of the trapezium rule, which kinks at centres do not upset."""
    line = np.arange(-EDGE, EDGE + 0.5 * SPACING[dim], SPACING[dim])
    axes = np.meshgrid(*[line] * dim, indexing="ij")
    nodes = np.stack([axis.ravel() for axis in axes], axis=1)
    square = np.einsum("nd,nd->n", nodes, nodes)
    nodes, mass = nodes[square <= EDGE**2], np.exp(-0.5 * square[square <= EDGE**2])
    return nodes, mass / mass.sum()


def cubic_jet(t: Array, centres: Array, order: int) -> tuple[Array, ...]:
    """|t - c_j|^3 and derivatives up to ``order`` <= 3; the third is taken as 0 at a centre.

    With x = t - c and r = |x|: 3 r x, then 3 (r I + x x^T / r), then
    3 (delta_ij x_k + delta_ik x_j + delta_jk x_i) / r - 3 x_i x_j x_k / r^3.

    Returns
    -------
    tuple of (n, J), (n, d, J), (n, d, d, J), (n, d, d, d, J)
    """
    n, d = t.shape
    x = (t[:, None] - centres).reshape(-1, d)
    r = np.linalg.norm(x, axis=1)
    unit = x / np.where(r > 0.0, r, 1.0)[:, None]
    out = [r**3]
    if order >= 1:
        out.append(3.0 * r[:, None] * x)
    if order >= 2:
        out.append(3.0 * r[:, None, None] * (np.eye(d) + np.einsum("ni,nj->nij", unit, unit)))
    if order >= 3:
        out.append(3.0 * (one_index(unit) - np.einsum("ni,nj,nk->nijk", unit, unit, unit)))
    return tuple(np.moveaxis(part.reshape(n, len(centres), *part.shape[1:]), 1, -1)
                 for part in out)
