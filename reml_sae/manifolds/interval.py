"""The interval with a spline basis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.special import ndtr, ndtri

from reml_sae.manifolds._base import Manifold
from reml_sae.manifolds._checks import check_integer
from reml_sae.manifolds._prior import gaussian_prior_jet
from reml_sae.manifolds._rules import Rule, broken_gaussian_rule
from reml_sae.manifolds._spline import DEGREE, natural_splines, spline_breaks
from reml_sae.typing import Array


@dataclass(frozen=True)
class Interval(Manifold):
    """Interval (0, 1) with a uniform prior, in the coordinate t of R with the prior N(0, 1).

    The position is s = P(x < t) for a standard normal x, so that a step in t never leaves the
    interval. The basis are splines of degree 4 in s, orthonormal for uniform s: the constant, the
    linear function, then by roughness, pi^-4 int f''(s)^2 ds. There is no continuous gauge.

    Parameters
    ----------
    n_basis : int
        Number of splines, >= 5.
    """

    n_basis: int = 8
    name: ClassVar[str] = "interval"
    size_parameter: ClassVar[str | None] = "n_basis"
    is_euclidean: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_integer("n_basis", self.n_basis, DEGREE + 1)

    def position(self, t: Array) -> Array:
        """Position s (n,) in [0, 1] of coordinates (n, 1)."""
        return np.asarray(ndtr(t[:, 0]), float)

    @property
    def latent_dim(self) -> int:
        """1."""
        return 1

    @property
    def has_ends(self) -> bool:
        """True."""
        return True

    @property
    def basis_size(self) -> int:
        """``n_basis``."""
        return self.n_basis

    @property
    def linear_dim(self) -> int:
        """2: the plane of a bent arc."""
        return 2

    def jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """Splines at s(t), and the chain rule: s'' = -t s', s''' = (t^2 - 1) s'."""
        s, x = self.position(t), t
        splines = natural_splines(self.n_basis)[0]
        f = [splines[m](s) for m in range(order + 1)]
        s1 = np.exp(-0.5 * x**2) / np.sqrt(2.0 * np.pi)
        out = [f[0]]
        if order >= 1:
            out.append(f[1] * s1)
        if order >= 2:
            out.append(f[2] * s1**2 - f[1] * x * s1)
        if order >= 3:
            out.append(f[3] * s1**3 - 3.0 * f[2] * x * s1**2 + f[1] * (x**2 - 1.0) * s1)
        return tuple(part.reshape((len(t),) + (1,) * m + (self.n_basis,))
                     for m, part in enumerate(out))

    def roughness(self) -> Array | None:
        """Diagonal, 0 on affine functions of s."""
        return np.diag(natural_splines(self.n_basis)[1])

    def prior_jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """t^2 / 2."""
        return gaussian_prior_jet(t, order)

    def log_prior_volume(self) -> float:
        """(1/2) log 2 pi."""
        return float(0.5 * np.log(2.0 * np.pi))

    @property
    def log_multiplicity(self) -> float:
        """Log 2: the reflection t -> -t."""
        return float(np.log(2.0))

    def rule(self, spacing: Array) -> Rule:
        """Gauss-Legendre from knot to knot."""
        return broken_gaussian_rule(spacing[0], ndtri(spline_breaks(self.n_basis)[1:-1]))

    def prior_mean_basis(self) -> Array:
        """(1, 0, .., 0)."""
        return np.eye(self.n_basis)[0]

    def retract(self, t: Array, step: Array) -> Array:
        """Addition in t."""
        return t + step

    def distance(self, t1: Array, t2: Array) -> Array:
        """|s1 - s2|."""
        return np.abs(self.position(t1) - self.position(t2))

    def grid(self, n: int) -> Array:
        """Lattice in t over three prior standard deviations each way."""
        return np.linspace(-3.0, 3.0, n)[:, None]

    def to_config(self) -> dict[str, Any]:
        """Name and size of the basis."""
        return {"topology": self.name, "n_basis": int(self.n_basis)}
