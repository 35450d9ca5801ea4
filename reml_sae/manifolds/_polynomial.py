"""Monomials and the orthonormal Hermite polynomials, with derivatives."""

from __future__ import annotations

from itertools import combinations_with_replacement, permutations
from math import factorial

import numpy as np
from numpy.typing import NDArray

from reml_sae.typing import Array


def monomial_jet(t: Array, exponents: NDArray[np.intp], order: int) -> tuple[Array, ...]:
    """Monomials t^e and their derivatives.

    Parameters
    ----------
    t : (n, d) array
    exponents : (M, d) array
    order : int

    Returns
    -------
    tuple of (n, M), (n, d, M), (n, d, d, M), ..
    """
    n, d = t.shape
    powers = np.ones((int(exponents.max(initial=0)) + 1, d, n))
    for e in range(1, len(powers)):
        powers[e] = powers[e - 1] * t.T
    # e (e - 1) .. (e - times + 1), which is 0 where the power would be negative
    falling = [np.ones_like(exponents)]
    for times in range(order):
        falling.append(falling[-1] * (exponents - times))
    out = []
    for m in range(order + 1):
        values = np.empty((n,) + (d,) * m + (len(exponents),))
        for axes in combinations_with_replacement(range(d), m):
            product = np.ones((len(exponents), n))
            for a, e in enumerate(exponents.T):
                times = axes.count(a)
                product *= falling[times][:, [a]] * powers[np.maximum(e - times, 0), a]
            for index in set(permutations(axes)):
                where: tuple[slice | int, ...] = (slice(None), *index)
                values[where] = product.T
        out.append(values)
    return tuple(out)


def hermite_derivatives(w: Array, degree: int, order: int) -> list[Array]:
    """Derivatives of He_j(w) / (j!)^(1/2), j <= degree: orthonormal under N(0, 1).

    Parameters
    ----------
    w : (n,) array
    degree, order : int

    Returns
    -------
    list of (n, degree + 1)
    """
    norms = np.sqrt([factorial(j) for j in range(degree + 1)])
    values: Array = np.asarray(np.polynomial.hermite_e.hermevander(w, degree) / norms, float)
    out = [values]
    for _ in range(order):
        # he_j' = j^(1/2) he_(j-1)
        lower = np.zeros_like(values)
        lower[:, 1:] = out[-1][:, :-1] * np.sqrt(np.arange(1.0, degree + 1))
        out.append(lower)
    return out
