"""Angles and their Fourier functions."""

from __future__ import annotations

import numpy as np

from reml_sae.typing import Array


def wrap_angle(t: Array) -> Array:
    """Angles wrapped into [-pi, pi)."""
    return np.mod(t + np.pi, 2.0 * np.pi) - np.pi


def fourier_derivatives(angle: Array, frequencies: Array, order: int) -> list[Array]:
    """Derivatives 0 .. ``order`` of cos ft, sin ft for each frequency f in turn.

    The m-th derivative is -f^2 times that of order m - 2.

    Parameters
    ----------
    angle : (n,) array
    frequencies : (F,) array
    order : int

    Returns
    -------
    list of (n, 2 F)
    """
    phase, squares = angle[:, None] * frequencies, -np.repeat(frequencies**2, 2)
    pairs, slopes = np.empty((2, len(angle), 2 * len(frequencies)))
    pairs[:, ::2], pairs[:, 1::2] = np.cos(phase), np.sin(phase)
    slopes[:, ::2], slopes[:, 1::2] = -frequencies * pairs[:, 1::2], frequencies * pairs[:, ::2]
    out = [pairs, slopes][:order + 1]
    for m in range(2, order + 1):
        out.append(squares * out[m - 2])
    return out


def harmonic_derivatives(angle: Array, n_harmonics: int, order: int) -> list[Array]:
    """Derivatives of 1, 2^(1/2) cos ht, 2^(1/2) sin ht, h <= H: orthonormal for a uniform angle.

    Returns
    -------
    list of (n, 2 H + 1)
    """
    pairs = fourier_derivatives(angle, np.arange(1.0, n_harmonics + 1), order)
    return [np.column_stack([np.full(len(angle), float(m == 0)), np.sqrt(2.0) * pair])
            for m, pair in enumerate(pairs)]


def rotation_generator(frequencies: Array) -> Array:
    """R = -E, (2 F, 2 F), where the pairs at t + eps are those at t times I + eps E."""
    generator = np.zeros((2 * len(frequencies),) * 2)
    cos = 2 * np.arange(len(frequencies))
    generator[cos + 1, cos], generator[cos, cos + 1] = frequencies, -frequencies
    return generator


def harmonic_rotation(n_harmonics: int) -> Array:
    """`rotation_generator` of the constant and the harmonics 1 .. H, (2 H + 1, 2 H + 1)."""
    generator = np.zeros((2 * n_harmonics + 1,) * 2)
    generator[1:, 1:] = rotation_generator(np.arange(1.0, n_harmonics + 1))
    return generator


def harmonic_frequencies(n_harmonics: int) -> Array:
    """(0, 1, 1, 2, 2, .., H, H), the frequency of each function."""
    return np.repeat(np.arange(n_harmonics + 1.0), 2)[1:]
