"""Concave penalties that do not shrink large coordinates: MCP and SCAD.

With r = s(t) = sqrt(t^2 + eps^2) and the weight w
    mcp    w r - (r^2 - eps^2) / (2 gamma)                      r <= gamma w
           gamma w^2 / 2 + eps^2 / (2 gamma)                    beyond
    scad   w r                                                  r <= w
           (2 gamma w r - r^2 - w^2) / (2 (gamma - 1))          r <= gamma w
           (gamma + 1) w^2 / 2                                  beyond

On every branch f = A s(t) - C t^2 / 2 + constant, so f'' = A s'' - C with s'' = eps^2 / r^3. The
majorizer is b = w s'': b - f'' is C >= 0 or w s'' where A = w or 0, and on the middle branch of
scad it is (1 - w s'') / (gamma - 1) >= 0, for w < r and eps <= r give w s'' < 1. It is smooth
across the branch points, where f'' jumps (f and f' are continuous). P is bounded: improper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reml_sae.penalties import _fields
from reml_sae.penalties._elementwise import HeldElementwise, smooth_abs
from reml_sae.penalties._registry import register
from reml_sae.typing import Array


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class ScadMcpPenalty(HeldElementwise):
    """Concave sparsity of coordinates (n, d); the weight is no mere factor of P.

    Parameters
    ----------
    variant : {"mcp", "scad"}
    gamma : float
        Concavity: P is constant beyond gamma w. Above 1 for mcp, above 2 for scad.
    eps : float
        Smoothing length > 0.
    latent_dim : int
        d >= 1.
    weight, weight_schedule
        See `Penalty`.
    """

    variant: str = "mcp"
    gamma: float = 3.7
    eps: float = 0.01
    latent_dim: int = 1

    ZERO_WEIGHT: ClassVar[bool] = False  # the knots scale with w; at w = 0, mcp is a constant
    KIND_TAG: ClassVar[str] = "scad_mcp"
    PYTHON_WRAPPER: ClassVar[str] = "ScadMcpPenalty"
    FORMULA: ClassVar[str] = (
        "sum p(r), r = sqrt(t^2 + eps^2);  mcp: w r - (r^2 - eps^2) / (2 gamma) for r <= gamma w, "
        "then gamma w^2 / 2 + eps^2 / (2 gamma);  scad: w r for r <= w, "
        "(2 gamma w r - r^2 - w^2) / (2 (gamma - 1)) for r <= gamma w, then (gamma + 1) w^2 / 2")

    def __post_init__(self) -> None:
        _fields.choice("variant", self.variant, ("mcp", "scad"))
        _fields.positive("gamma", self.gamma, 1.0 if self.variant == "mcp" else 2.0)
        _fields.positive("eps", self.eps)
        _fields.integer("latent_dim", self.latent_dim, 1)
        super().__post_init__()

    def width(self) -> int:
        """The dimension d."""
        return self.latent_dim

    def _branches(self, w: float) -> tuple[Array, Array]:
        """Ends of the branches in r, and A, C and the constant of each, (3, branches)."""
        g, eps = self.gamma, self.eps
        if self.variant == "mcp":
            ends, table = [g * w], [(w, 1.0 / g, 0.0),
                                    (0.0, 0.0, 0.5 * g * w**2 + 0.5 * eps**2 / g)]
        else:
            ends, table = [w, g * w], [(w, 0.0, 0.0),
                                       (g * w / (g - 1.0), 1.0 / (g - 1.0),
                                        -0.5 * (w**2 + eps**2) / (g - 1.0)),
                                       (0.0, 0.0, 0.5 * (g + 1.0) * w**2)]
        return np.array(ends), np.array(table).T

    def derivative(self, t: Array, rho: Array, order: int) -> Array:
        """Of A s(t) - C t^2 / 2 + constant on the branch of every entry."""
        ends, table = self._branches(self.strength(rho))
        A, C, constant = table[:, np.searchsorted(ends, np.hypot(t, self.eps))]
        square = (0.5 * t**2, t, 1.0, 0.0)[order]
        return A * smooth_abs(t, self.eps, order) - C * square + (constant if order == 0 else 0.0)

    def bound(self, t: Array, rho: Array, order: int) -> Array:
        """Order 0: w eps^2 / r^3; order 1: its derivative."""
        return self.strength(rho) * smooth_abs(t, self.eps, order + 2)
