"""Real spherical harmonics as functions on R^3 that do not change along the rays.

The solid harmonics of degree l are the homogeneous polynomials

    p_l0 = Z_l0,    p_lm = Z_lm Re (x + iy)^m and Z_lm Im (x + iy)^m,  m = 1 .. l,
    Z_lm = |t|^(l - m) P_l^(m)(z / |t|),

with P_l^(m) the m-th derivative of the Legendre polynomial, which has the parity of l - m, so that
Z_lm is a polynomial in z and |t|^2. They are scaled to mean square 1 on the sphere, and
p_lm / |t|^l has degree 0.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from math import comb

import numpy as np
from numpy.typing import NDArray

from reml_sae.manifolds._polynomial import monomial_jet
from reml_sae.typing import Array

Polynomial = dict[tuple[int, int, int], float]

TINY = 1e-12
"""Squared radius below which the rays' functions are cut off, to be finite at the origin."""


@cache
def solid_harmonics(degree: int) -> tuple[NDArray[np.intp], Array]:
    """Exponents (m, 3) and coefficients (m, 2 l + 1) of the solid harmonics of degree l."""
    exponents = [(a, b, degree - a - b) for a in range(degree + 1) for b in range(degree + 1 - a)]
    index = {exponent: row for row, exponent in enumerate(exponents)}
    coefficients = np.zeros((len(exponents), 2 * degree + 1))
    column = 0
    for m in range(degree + 1):
        axial = _axial(degree, m)
        for planar in _planar(m):
            for exponent, value in _times(axial, planar).items():
                coefficients[index[exponent], column] = value
            column += 1
    table = np.array(exponents)
    nodes, weights = sphere_quadrature(degree)
    values = monomial_jet(nodes, table, 0)[0] @ coefficients
    coefficients /= np.sqrt(weights @ values**2)
    coefficients.setflags(write=False)
    return table, coefficients


@cache
def _solid_derivatives(degree: int, order: int) -> tuple[NDArray[np.intp], Array]:
    """Exponents (m, 3) and coefficients (m, 3, .., 3, 2 l + 1) of all derivatives of an order."""
    if not order:
        return solid_harmonics(degree)
    exponents, coefficients = _solid_derivatives(degree, order - 1)
    lower = [(a, b, degree - order - a - b) for a in range(degree - order + 1)
             for b in range(degree - order + 1 - a)] or [(0, 0, 0)]
    index = {exponent: row for row, exponent in enumerate(lower)}
    out = np.zeros((len(lower), 3, *coefficients.shape[1:]))
    for exponent, coefficient in zip(exponents.tolist(), coefficients, strict=True):
        for axis in range(3):
            if exponent[axis]:
                less = tuple(e - (a == axis) for a, e in enumerate(exponent))
                out[index[less], axis] += exponent[axis] * coefficient
    out.setflags(write=False)
    return np.array(lower), out


def _solid_derivative(t: Array, degree: int, order: int) -> Array:
    """All derivatives of an order of the solid harmonics at t (n, 3): (n, 3, .., 3, 2 l + 1)."""
    exponents, coefficients = _solid_derivatives(degree, order)
    values = monomial_jet(t, exponents, 0)[0] @ coefficients.reshape(len(exponents), -1)
    return np.asarray(values.reshape(len(t), *coefficients.shape[1:]))


def _times(f: Polynomial, g: Polynomial) -> Polynomial:
    out: Polynomial = {}
    for (e, a), (k, b) in product(f.items(), g.items()):
        exponent = (e[0] + k[0], e[1] + k[1], e[2] + k[2])
        out[exponent] = out.get(exponent, 0.0) + a * b
    return out


def _planar(m: int) -> list[Polynomial]:
    """Real and imaginary part of (x + iy)^m."""
    parts: list[Polynomial] = [{}, {}]
    for j in range(m + 1):
        parts[j % 2][(m - j, j, 0)] = float(comb(m, j) * (-1) ** (j // 2))
    return [part for part in parts if part]


def _axial(degree: int, m: int) -> Polynomial:
    """Z_lm."""
    legendre = np.polynomial.legendre.leg2poly(np.eye(degree + 1)[degree])
    derivative = np.polynomial.polynomial.polyder(legendre, m)
    square: Polynomial = {(2, 0, 0): 1.0, (0, 2, 0): 1.0, (0, 0, 2): 1.0}
    out: Polynomial = {}
    for power in range((degree - m) % 2, degree - m + 1, 2):
        term: Polynomial = {(0, 0, power): float(derivative[power])}
        for _ in range((degree - m - power) // 2):
            term = _times(term, square)
        for exponent, value in term.items():
            out[exponent] = out.get(exponent, 0.0) + value
    return out


def sphere_quadrature(degree: int) -> tuple[Array, Array]:
    """Unit vectors (n, 3) and weights (n,): the exact mean of polynomials up to degree 2 l + 1."""
    z, weights = np.polynomial.legendre.leggauss(degree + 1)
    angle = 2.0 * np.pi * np.arange(2 * degree + 2) / (2 * degree + 2)
    z, angle = np.repeat(z, len(angle)), np.tile(angle, len(z))
    radius = np.sqrt(1.0 - z**2)
    points = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), z])
    return points, np.repeat(weights, 2 * degree + 2) / (2.0 * (2 * degree + 2))


def harmonic_jet(t: Array, degree: int, order: int) -> tuple[Array, ...]:
    """p_lm(t) / |t|^l and derivatives up to ``order`` <= 3 in t (n, 3).

    Returns
    -------
    tuple of (n, 2 l + 1), (n, 3, 2 l + 1), (n, 3, 3, 2 l + 1), (n, 3, 3, 3, 2 l + 1)
    """
    if not degree:
        return (np.ones((len(t), 1)), *(np.zeros((len(t), *(3,) * m, 1))
                                        for m in range(1, order + 1)))
    p = [_solid_derivative(t, degree, m) for m in range(order + 1)]
    r = [part[..., None] for part in _inverse_power_jet(t, degree, order)]
    out = [p[0] * r[0]]
    if order >= 1:
        out.append(p[1] * r[0][:, None] + p[0][:, None] * r[1])
    if order >= 2:
        cross = p[1][:, :, None] * r[1][:, None]
        out.append(p[2] * r[0][:, None, None] + cross + cross.swapaxes(1, 2)
                   + p[0][:, None, None] * r[2])
    if order >= 3:
        # the sums over which of the three indices stands alone
        alone = p[1][:, :, None, None] * r[2][:, None] + r[1][:, :, None, None] * p[2][:, None]
        out.append(p[3] * r[0][:, None, None, None] + alone + alone.swapaxes(1, 2)
                   + alone.swapaxes(1, 3) + p[0][:, None, None, None] * r[3])
    return tuple(out)


def _inverse_power_jet(t: Array, power: int, order: int) -> tuple[Array, ...]:
    """|t|^-l and its derivatives."""
    s = np.maximum(np.einsum("nd,nd->n", t, t), TINY)
    eye, up, up2 = np.eye(3), power + 2, power + 4

    powers = [s ** (-0.5 * power)]
    for _ in range(order):
        powers.append(powers[-1] / s)

    def scaled(j: int, tensor: Array) -> Array:
        return tensor * powers[j].reshape((-1,) + (1,) * (tensor.ndim - 1))

    out = [powers[0]]
    if order >= 1:
        out.append(-power * scaled(1, t))
    if order >= 2:
        out.append(power * (up * scaled(2, np.einsum("ni,nj->nij", t, t)) - scaled(1, eye[None])))
    if order >= 3:
        cube = np.einsum("ni,nj,nk->nijk", t, t, t)
        out.append(power * up * (scaled(2, one_index(t)) - up2 * scaled(3, cube)))
    return tuple(out)


def one_index(t: Array) -> Array:
    """delta_ij t_k + delta_ik t_j + delta_jk t_i, (n, d, d, d)."""
    part = np.einsum("ij,nk->nijk", np.eye(t.shape[1]), t)
    return part + part.swapaxes(2, 3) + part.swapaxes(1, 3)


@cache
def rotation_generators(degree: int) -> Array:
    """R_a = -E_a, (3, 2 l + 1, 2 l + 1), where the derivative along e_a x t is Y E_a.

    Exact: the mean of Y^T (e_a x t . grad Y) over the sphere, by a quadrature that is exact for it.
    """
    nodes, weights = sphere_quadrature(degree)
    values, slopes = harmonic_jet(nodes, degree, 1)
    moved = np.einsum("and,ndm->anm", np.cross(np.eye(3)[:, None], nodes), slopes)
    generators = -np.einsum("n,nm,ank->amk", weights, values, moved)
    # skew up to rounding; made so to the last bit
    generators = 0.5 * (generators - generators.swapaxes(1, 2))
    generators.setflags(write=False)
    return generators
