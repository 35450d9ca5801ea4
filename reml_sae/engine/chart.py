"""Coordinates in which V is near quadratic: standard deviations of priors in place of strengths.

    x_j = exp(-(rho_j - o_j) / 2)        a strength of a quadratic form, with o its origin
    x_j = rho_j along the model's frame  anything else; see `ArrowModel.rho_frame`

Where a strength runs to infinity V goes to its limit as 1 / strength, that is as x^2: one Newton
step in x goes to the end of the box, which takes as many in rho as the box has units. Where it has
a finite optimum both are as good.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reml_sae.engine.outer import Outer
from reml_sae.typing import Array, Mask


@dataclass(frozen=True, eq=False)
class Chart:
    """Coordinates around an origin.

    Attributes
    ----------
    outer : Outer
    origin : (n_rho,) array
        Where all deviations are 1.
    """

    outer: Outer
    origin: Array

    @property
    def deviations(self) -> Mask:
        """Which coordinates are standard deviations, (n_rho,)."""
        out = self.outer.quadratic.copy()
        if self.outer.dispersion is not None:
            out[self.outer.dispersion] = False
        return out

    def deviation(self, rho: Array) -> Array:
        """Standard deviations in units of those at the origin; 1 elsewhere, (n_rho,)."""
        return np.exp(np.where(self.deviations, -0.5 * (rho - self.origin), 0.0))

    def tangent(self, rho: Array, frame: Array) -> Array:
        """d rho / dx, (n_rho, n_rho)."""
        return frame * np.where(self.deviations, -2.0 / self.deviation(rho), 1.0)

    def box(self, rho: Array, frame: Array) -> tuple[Array, Array]:
        """The least and the largest step, (n_rho,) each."""
        low, high = self.outer.bounds.T
        x, scale = self.deviation(rho), np.diagonal(frame)
        return (np.where(self.deviations, self.deviation(high) - x, (low - rho) / scale),
                np.where(self.deviations, self.deviation(low) - x, (high - rho) / scale))

    def moved(self, rho: Array, frame: Array, step: Array) -> Array:
        """Rho after a step, within its box."""
        x = np.where(self.deviations, self.deviation(rho) + step, 1.0)
        least = np.where(self.deviations, self.deviation(self.outer.bounds[:, 1]), 1.0)
        ended = x <= least
        straight = rho + frame @ np.where(self.deviations, 0.0, step)
        bent = self.origin - 2.0 * np.log(np.where(ended, 1.0, x))
        out = np.where(self.deviations, np.where(ended, self.outer.bounds[:, 1], bent), straight)
        return self.outer.clip(out)

    def step(self, rho: Array, trial: Array) -> Array:
        """The step from rho to another point along coordinates of which the frame is the unit."""
        return np.where(self.deviations, self.deviation(trial) - self.deviation(rho), trial - rho)
