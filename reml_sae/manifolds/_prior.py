"""Negative log density of a Gaussian coordinate prior, with derivatives."""

from __future__ import annotations

import numpy as np

from reml_sae.typing import Array


def gaussian_prior_jet(t: Array, order: int, precisions: Array | None = None) -> tuple[Array, ...]:
    """sum_a w_a t_a^2 / 2 and its derivatives up to ``order`` <= 3.

    Parameters
    ----------
    t : (n, d) array
    order : int
    precisions : (d,) array, optional
        w >= 0; 0 is a uniform coordinate. Ones where it is not given.

    Returns
    -------
    tuple of (n,), (n, d), (n, d, d), (n, d, d, d)
    """
    n, d = t.shape
    w = np.ones(d) if precisions is None else precisions
    slope = t * w
    jet = (0.5 * np.einsum("nd,nd->n", slope, t), slope,
           np.broadcast_to(np.diag(w), (n, d, d)).copy(), np.zeros((n, d, d, d)))
    return jet[:order + 1]


def gaussian_lattice(n: int, dim: int) -> Array:
    """About n points (n', d) of a lattice over three prior standard deviations each way."""
    side = max(2, round(n ** (1.0 / dim)))
    axes = np.meshgrid(*[np.linspace(-3.0, 3.0, side)] * dim, indexing="ij")
    return np.stack([axis.ravel() for axis in axes], axis=1)
