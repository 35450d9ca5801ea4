"""Euclidean space with Duchon's radial functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from reml_sae.errors import InputError
from reml_sae.manifolds._base import Manifold
from reml_sae.manifolds._checks import check_integer
from reml_sae.manifolds._prior import gaussian_lattice, gaussian_prior_jet
from reml_sae.manifolds._radial import cubic_jet, radial_basis
from reml_sae.manifolds._rules import Rule, broken_gaussian_rule
from reml_sae.typing import Array


@dataclass(frozen=True)
class Duchon(Manifold):
    """R^d with the prior N(0, I) and functions |t - c_j|^3 at fixed centres.

    The basis is 1, t_1, .., t_d and combinations of the radial functions, orthonormal under the
    prior, the smoothest first; they bend as a sheet does and become straight far out. The roughness
    is Duchon's semi-norm, scaled so that it is E ||Hess f||^2 on the smoothest, and 0 on affine
    functions. The centres single out directions, so there is no continuous gauge. The third
    derivatives jump at a centre.

    Parameters
    ----------
    dim : int
        d, 1 to 3.
    n_centres : int
        Number of centres, >= d + 2, which is the size of the basis too.
    """

    dim: int = 1
    n_centres: int = 10
    name: ClassVar[str] = "duchon"
    size_parameter: ClassVar[str | None] = "n_centres"
    is_euclidean: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_integer("dim", self.dim, 1, 3)
        check_integer("n_centres", self.n_centres, 1)
        if self.n_centres < self.dim + 2:
            raise InputError(f"n_centres must be at least dim + 2 = {self.dim + 2}, "
                             f"got {self.n_centres!r}")

    @property
    def latent_dim(self) -> int:
        """The dimension d."""
        return self.dim

    @property
    def basis_size(self) -> int:
        """``n_centres``."""
        return self.n_centres

    @property
    def linear_dim(self) -> int:
        """The dimension d."""
        return self.dim

    def jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """Affine and radial functions and their derivatives."""
        basis = radial_basis(self.dim, self.n_centres)
        n, first = len(t), self.dim + 1
        affine = [np.column_stack([np.ones(n), t]),
                  np.broadcast_to(np.eye(self.dim, first, 1), (n, self.dim, first))]
        out = []
        for m, part in enumerate(cubic_jet(t, basis.centres, order)):
            values = np.zeros((n,) + (self.dim,) * m + (self.n_centres,))
            values[..., first:] = part @ basis.radial
            if m < 2:
                values[..., :first] = affine[m]
                values[..., first:] += affine[m] @ basis.affine
            out.append(values)
        return tuple(out)

    def roughness(self) -> Array | None:
        """Diagonal, 0 on affine functions."""
        return np.diag(np.concatenate([np.zeros(self.dim + 1),
                                       radial_basis(self.dim, self.n_centres).roughness]))

    def prior_jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """|t|^2 / 2."""
        return gaussian_prior_jet(t, order)

    def log_prior_volume(self) -> float:
        """(d / 2) log 2 pi."""
        return float(0.5 * self.dim * np.log(2.0 * np.pi))

    def rule(self, spacing: Array) -> Rule | None:
        """Gauss-Legendre from centre to centre, where there is one coordinate."""
        if self.dim > 1:
            return None
        return broken_gaussian_rule(
            spacing[0], radial_basis(self.dim, self.n_centres).centres[:, 0])

    def prior_mean_basis(self) -> Array:
        """(1, 0, .., 0)."""
        return np.eye(self.n_centres)[0]

    def retract(self, t: Array, step: Array) -> Array:
        """Vector addition."""
        return t + step

    def distance(self, t1: Array, t2: Array) -> Array:
        """Euclidean distance."""
        return np.linalg.norm(t1 - t2, axis=1)

    def grid(self, n: int) -> Array:
        """Lattice over three prior standard deviations each way."""
        return gaussian_lattice(n, self.dim)

    def to_config(self) -> dict[str, Any]:
        """Name, d and number of centres."""
        return {"topology": self.name, "dim": int(self.dim), "n_centres": int(self.n_centres)}
