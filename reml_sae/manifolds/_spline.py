"""Splines on (0, 1) that diagonalise the roughness.

Among the splines of degree 4 with evenly spaced knots: f_0 = 1, f_1 linear, then f_2, f_3, .. with

    int f_a f_b ds = delta_ab,    pi^-4 int f_a'' f_b'' ds = r_a delta_ab,    0 < r_2 <= r_3 <= ..

In the factor pi^-4 cos(pi h s) has about the roughness h^4, as a harmonic of the circle has.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.interpolate import BSpline
from scipy.linalg import eigh, null_space, solve_triangular

from reml_sae.typing import Array

DEGREE = 4


def spline_breaks(n_basis: int) -> Array:
    """Knots 0 .. 1, each once."""
    return np.linspace(0.0, 1.0, n_basis - DEGREE + 1)


@cache
def natural_splines(n_basis: int) -> tuple[tuple[BSpline, ...], Array]:
    """The functions f_0 .. f_(n_basis - 1) with their derivatives up to the third, and r.

    Returns
    -------
    tuple of BSpline, one an order of derivative, each with values (n, n_basis)
    r : (n_basis,) array
    """
    breaks = spline_breaks(n_basis)
    knots = np.concatenate([np.zeros(DEGREE), breaks, np.ones(DEGREE)])
    raw = BSpline(knots, np.eye(n_basis), DEGREE)
    # exact for products of splines, piece by piece
    nodes, weights = np.polynomial.legendre.leggauss(DEGREE + 1)
    nodes = (breaks[:-1, None] + np.diff(breaks)[:, None] * 0.5 * (nodes + 1.0)).ravel()
    weights = np.tile(0.5 * weights, n_basis - DEGREE) / (n_basis - DEGREE)
    values, bends = raw(nodes), raw(nodes, 2)
    lower = np.linalg.cholesky(values.T @ (weights[:, None] * values))
    # in orthonormal coordinates y = L^T c; affine functions have the Greville points as c
    greville = np.array([knots[j + 1 : j + 1 + DEGREE].mean() for j in range(n_basis)])
    affine = np.column_stack([np.ones(n_basis), np.sqrt(12.0) * (greville - 0.5)])
    rest = null_space((lower.T @ affine).T)
    bends = solve_triangular(lower, bends.T, lower=True).T @ rest
    roughness, vectors = eigh(bends.T @ (weights[:, None] * bends) / np.pi**4)
    curved = solve_triangular(lower.T, rest @ vectors)
    # positive at s = 1, where only the last B-spline lives
    coefficients = np.column_stack([affine, curved * np.sign(curved[-1])])
    functions = BSpline(knots, coefficients, DEGREE)
    derivatives = tuple(functions.derivative(m) if m else functions for m in range(4))
    return derivatives, np.concatenate([np.zeros(2), roughness])
