"""Functions f(t_1) g(t_2) on the product of two one-dimensional coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reml_sae.typing import Array


def product_jet(first: Sequence[Array], second: Sequence[Array]) -> tuple[Array, ...]:
    """Derivatives of f_m(t_1) g_m(t_2) in (t_1, t_2).

    Parameters
    ----------
    first, second : sequence of (n, M) arrays
        Derivatives 0, 1, .. of f_m and of g_m.

    Returns
    -------
    tuple of (n, M), (n, 2, M), (n, 2, 2, M), ..
    """
    n, size = first[0].shape
    out = []
    for m in range(len(first)):
        values = np.empty((n,) + (2,) * m + (size,))
        by_count = [first[m - count] * second[count] for count in range(m + 1)]
        for index in np.ndindex(*(2,) * m):
            values[:, *index] = by_count[sum(index)]
        out.append(values)
    return tuple(out)


def tensor_jet(first: Sequence[Array], second: Sequence[Array]) -> tuple[Array, ...]:
    """`product_jet` of every f with every g, g varying fastest."""
    m_first, m_second = first[0].shape[1], second[0].shape[1]
    return product_jet([np.repeat(f, m_second, axis=1) for f in first],
                       [np.tile(g, (1, m_first)) for g in second])


def lattice(first: Array, second: Array) -> Array:
    """All pairs (n1 n2, 2) of two sets of values, the second varying fastest."""
    return np.column_stack([np.repeat(first, len(second)), np.tile(second, len(first))])
