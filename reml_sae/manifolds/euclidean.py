"""Euclidean space with a polynomial basis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, combinations_with_replacement
from math import lgamma, log, pi
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import gammaln

from reml_sae.errors import InputError
from reml_sae.manifolds._base import Manifold, Relaxation
from reml_sae.manifolds._checks import check_integer
from reml_sae.manifolds._polynomial import monomial_jet
from reml_sae.manifolds._prior import gaussian_lattice, gaussian_prior_jet
from reml_sae.manifolds._rules import Rule, gaussian_rule, held_rule, product_rule
from reml_sae.typing import Array


@dataclass(frozen=True)
class Euclidean(Manifold):
    """R^d with the prior N(0, I) and all monomials up to a total degree.

    The monomial t^e has the factor (|e|! / e!)^(1/2), in which a rotation of t acts on the basis by
    an orthogonal matrix, so that a prior B ~ N(0, I) on the decoder is rotation invariant.

    The roughness is E ||Hess f||^2 under the coordinate prior, which is rotation invariant and
    leaves affine maps free. The gauge is SO(d); the prior fixes origin and scale.

    Parameters
    ----------
    dim : int
        d >= 1.
    degree : int
        1, 2 or 3.
    """

    dim: int = 1
    degree: int = 1
    name: ClassVar[str] = "euclidean"
    is_euclidean: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_integer("dim", self.dim, 1)
        if self.degree not in (1, 2, 3):
            raise InputError(f"degree must be 1, 2 or 3, got {self.degree!r}")

    @cached_property
    def exponents(self) -> NDArray[np.intp]:
        """(M, d) exponents of the monomials, the constant first."""
        rows = []
        for degree in range(self.degree + 1):
            for chosen in combinations_with_replacement(range(self.dim), degree):
                rows.append([chosen.count(a) for a in range(self.dim)])
        return np.array(rows)

    @cached_property
    def factors(self) -> Array:
        """(M,) factor (|e|! / e!)^(1/2) of every monomial."""
        e = self.exponents
        return np.exp(0.5 * (gammaln(e.sum(axis=1) + 1) - gammaln(e + 1).sum(axis=1)))

    @property
    def latent_dim(self) -> int:
        """The dimension d."""
        return self.dim

    @property
    def basis_size(self) -> int:
        """Number of monomials."""
        return len(self.exponents)

    @property
    def linear_dim(self) -> int:
        """The dimension d."""
        return self.dim

    @property
    def relaxation(self) -> Relaxation:
        """A flat, whatever the degree."""
        return "flat"

    @property
    def is_flat(self) -> bool:
        """Whether the degree is 1."""
        return self.degree == 1

    def jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """Monomials and their derivatives."""
        return tuple(part * self.factors for part in monomial_jet(t, self.exponents, order))

    def roughness(self) -> Array | None:
        """E ||Hess f||_F^2 as a quadratic form in the coefficients; None for degree 1."""
        if self.degree == 1:
            return None
        nodes, weights = np.polynomial.hermite_e.hermegauss(self.degree + 1)
        grids = np.meshgrid(*[nodes] * self.dim, indexing="ij")
        points = np.stack([g.ravel() for g in grids], axis=1)
        mass = np.ones(1)
        for _ in range(self.dim):
            mass = np.multiply.outer(mass, weights / weights.sum()).ravel()
        hessian = self.jet(points, 2)[2]
        return np.einsum("n,ndem,ndek->mk", mass, hessian, hessian)

    def prior_jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """|t|^2 / 2."""
        return gaussian_prior_jet(t, order)

    def log_prior_volume(self) -> float:
        """(d / 2) log 2 pi."""
        return 0.5 * self.dim * log(2.0 * pi)

    @property
    def linear_axes(self) -> tuple[int, ...]:
        """All, where the degree is 1."""
        return tuple(range(self.dim)) if self.degree == 1 else ()

    @property
    def log_multiplicity(self) -> float:
        """Log 2: O(d) has two components."""
        return log(2.0)

    def rule(self, spacing: Array) -> Rule | None:
        """Lattice of one or two coordinates; the origin where all are linear."""
        if self.degree == 1:
            return held_rule(self.dim)
        if self.dim == 1:
            return gaussian_rule(spacing[0])
        if self.dim == 2:
            return product_rule(gaussian_rule(spacing[0]), gaussian_rule(spacing[1]))
        return None

    def prior_mean_basis(self) -> Array:
        """Gaussian moments of the monomials."""
        moments = np.array([1.0, 0.0, 1.0, 0.0])
        return self.factors * moments[self.exponents].prod(axis=1)

    def gauge_generators(self) -> Array:
        """Rotations in each coordinate plane, acting on the polynomials."""
        factors = self.factors
        pairs = list(combinations(range(self.dim), 2))
        out = np.zeros((len(pairs), self.basis_size, self.basis_size))
        lookup = {tuple(row): m for m, row in enumerate(self.exponents.tolist())}
        for generator, (a, b) in zip(out, pairs, strict=True):
            # xi = (t_b, -t_a): d t^e / d eps = e_a t^(e - a + b) - e_b t^(e + a - b) = (Phi E)
            for m, row in enumerate(self.exponents.tolist()):
                for down, up, sign in ((a, b, 1.0), (b, a, -1.0)):
                    if row[down]:
                        moved = list(row)
                        moved[down] -= 1
                        moved[up] += 1
                        k = lookup[tuple(moved)]
                        generator[k, m] -= sign * row[down] * factors[m] / factors[k]
        return out

    def gauge_field(self, t: Array) -> Array:
        """Vector fields (t_b, -t_a) of the rotations."""
        fields = np.zeros((self.dim * (self.dim - 1) // 2, *t.shape))
        for field, (a, b) in zip(fields, combinations(range(self.dim), 2), strict=True):
            field[:, a], field[:, b] = t[:, b], -t[:, a]
        return fields

    def gauge_move(self, t: Array, c: Array) -> Array:
        """Rotated by the matrix exponential."""
        generator = np.zeros((self.dim, self.dim))
        for angle, (a, b) in zip(c, combinations(range(self.dim), 2), strict=True):
            generator[a, b], generator[b, a] = angle, -angle
        return t @ expm(generator).T

    def log_gauge_volume(self, kept: Sequence[int]) -> float:
        """Log volume of SO(m), the product of the spheres' areas 2 pi^(j/2) / Gamma(j/2).

        The planes of the kept rotations link the axes into sets of m each, within which all
        rotations are kept; the volume is the product over the sets.
        """
        planes = np.array(list(combinations(range(self.dim), 2)), np.intp).reshape(-1, 2)[
            list(kept)]
        links = coo_array((np.ones(len(planes)), planes.T), shape=(self.dim, self.dim))
        sizes = np.bincount(connected_components(links, directed=False)[1])
        return sum(log(2.0) + 0.5 * j * log(pi) - lgamma(0.5 * j)
                   for size in sizes for j in range(2, int(size) + 1))

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
        """Name, d and degree."""
        return {"topology": self.name, "dim": int(self.dim), "degree": int(self.degree)}
