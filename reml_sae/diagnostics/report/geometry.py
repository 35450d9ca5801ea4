"""An atom as a drawing: its own axes, its curve or mesh, and rows beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reml_sae.manifolds import Manifold
from reml_sae.typing import Array

GRID, CURVE_POINTS = 400, 129
BULK = 2.0
"""Standard deviations of a Gaussian coordinate that a mesh covers."""
NEGLIGIBLE = 1e-9
"""Share of the variance below which an axis is rounding."""


@dataclass(frozen=True)
class Frame:
    """Principal axes of an atom under the prior of its coordinates.

    Attributes
    ----------
    centre : (p,) array
        Mean of the atom.
    axes : (r, p) array
        Orthonormal, the longest first.
    shares : (r,) array
        Shares of the variance of the atom along the axes.
    """

    centre: Array
    axes: Array
    shares: Array

    @classmethod
    def of(cls, atom: Any, rank: int = 3) -> Frame:
        """The leading axes of a fitted atom; none of a point.

        With R the triangular factor of the weighted, centred basis on a grid, the axes are the
        right singular vectors of R B: no array of the grid times p is made.
        """
        shape, decoder = atom.topology, atom.coefficients
        if not shape.latent_dim:
            return cls(decoder[0], np.zeros((0, decoder.shape[1])), np.zeros(0))
        t = shape.grid(GRID)
        basis, energy = shape.basis(t), shape.prior_jet(t, 0)[0]
        weight = np.exp(energy.min() - energy)
        weight /= weight.sum()
        mean = weight @ basis
        factor = np.linalg.qr(np.sqrt(weight)[:, None] * (basis - mean), mode="r")
        _, sizes, axes = np.linalg.svd(factor @ decoder, full_matrices=False)
        total = float((sizes**2).sum())
        shares = sizes**2 / total if total else np.zeros_like(sizes)
        kept = min(rank, int((shares > NEGLIGIBLE).sum()))
        return cls(mean @ decoder, axes[:kept], shares[:kept])

    def project(self, points: Array) -> Array:
        """Coordinates (n, r) of points (n, p) along the axes."""
        return (points - self.centre) @ self.axes.T

    def with_axis(self, offsets: Array) -> Frame:
        """One axis more: the main direction of offsets (n, p) among those across the others."""
        rest = offsets - offsets @ self.axes.T @ self.axes
        if len(rest) < 2 or not rest.any():
            return self
        across = np.linalg.svd(rest, full_matrices=False)[2][:1]
        return Frame(self.centre, np.concatenate([self.axes, across]), np.append(self.shares, 0.0))


def shown_coordinates(shape: Manifold, t: Array) -> list[tuple[str, Array, bool]]:
    """Coordinates (n,) of rows as a reader knows them: name, values, and whether it is an angle.

    Of unit vectors they are longitude and latitude.
    """
    if shape.intrinsic_dim < shape.latent_dim:
        return [("longitude", np.arctan2(t[:, 1], t[:, 0]), True),
                ("latitude", np.arcsin(np.clip(t[:, 2], -1.0, 1.0)), False)]
    names = ["t"] if shape.latent_dim == 1 else [f"t{j + 1}" for j in range(shape.latent_dim)]
    return [(name, t[:, j], j in shape.angular_axes) for j, name in enumerate(names)]


def curve(shape: Manifold, t: Array) -> Array:
    """Coordinates (n, 1) along a curve: once around, or over the rows at t (n, 1)."""
    if shape.angular_axes:
        low, high = -np.pi, np.pi
    else:
        place = t if len(t) > 1 else shape.grid(GRID)
        low, high = float(place.min()), float(place.max())
    return np.linspace(low, high, CURVE_POINTS)[:, None]


def mesh(shape: Manifold, n_lines: int = 12, n_points: int = 41) -> list[Array]:
    """Lines of constant coordinate (n_points, d) over a surface; none of other shapes."""
    if shape.intrinsic_dim != 2:
        return []
    ranges = [np.pi if j in shape.angular_axes else BULK for j in range(2)]
    if shape.intrinsic_dim < shape.latent_dim:
        ranges = [np.pi, 0.5 * np.pi]
    lines = []
    for j in range(2):
        along = np.linspace(-ranges[j], ranges[j], n_points)
        for at in np.linspace(-ranges[1 - j], ranges[1 - j], n_lines + 1):
            pair = np.empty((n_points, 2))
            pair[:, j], pair[:, 1 - j] = along, at
            lines.append(pair if shape.intrinsic_dim == shape.latent_dim else _unit_vectors(pair))
    return lines


def _unit_vectors(angles: Array) -> Array:
    longitude, latitude = angles.T
    return np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude),
                     np.sin(latitude)], axis=1)
