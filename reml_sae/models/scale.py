"""The scale of Gaussian coordinates: the mode of the decoders with the rows integrated out.

A coordinate t ~ N(0, 1) and its decoder have a near symmetry, t -> t / c and B -> c B, that only
the priors break. The joint mode of both lies where sum_i t_i^2 = |B|^2, far from the mass of the
integral, where t has the variance one: with n rows, a Laplace approximation there is wrong by a
term of order n for every coordinate (Neyman and Scott 1948). The decoders' marginal posterior has
(1/2) sum_i log |D_i| beside F, of which the part that depends on the scale is

    g(B) = (n / 2) log |M|,   M = phi I + E[dPhi B B^T dPhi^T],   E over the coordinate prior

for the n rows that carry the atom, exactly so for a linear atom, which is then probabilistic PCA
(Tipping and Bishop 1999). The inner solve minimises F + g and the criterion takes g away again:

    V = F(theta) + (1/2) log |H| ..,     theta = argmin F + g,     H of F + g

With C_de = E[d_d Phi^T d_e Phi] and P = sum_de (M^-1)_de C_de, the gradient of g is n P B; n P on
every output is the majorizer of its Hessian, the rest of which is negative semidefinite.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from reml_sae.manifolds import Manifold

Array = NDArray[np.float64]

GAUSS_NODES, ANGLE_NODES = 12, 24


@cache
def metric_tensor(atom: Manifold) -> Array:
    """C, (a, a, M, M), for the a coordinates of an atom whose prior is Gaussian."""
    axes = list(atom.gaussian_axes)
    nodes, weights = np.polynomial.hermite_e.hermegauss(GAUSS_NODES)
    angles = 2.0 * np.pi * np.arange(ANGLE_NODES) / ANGLE_NODES - np.pi
    grids, masses = [], []
    for axis in range(atom.latent_dim):
        grids.append(nodes if axis in axes else angles)
        masses.append(weights / weights.sum() if axis in axes
                      else np.full(ANGLE_NODES, 1.0 / ANGLE_NODES))
    points = np.stack([grid.ravel() for grid in np.meshgrid(*grids, indexing="ij")], axis=1)
    mass = np.ones(1)
    for factor in masses:
        mass = np.multiply.outer(mass, factor).ravel()
    slopes = atom.jet(points, 1)[1][:, axes]
    out: Array = np.einsum("g,gdm,gek->demk", mass, slopes, slopes, optimize=True)
    return out


@dataclass(frozen=True)
class Scale:
    """g of one atom at its decoder.

    Parameters
    ----------
    n : float
        Rows that carry the atom.
    C : (a, a, M, M) array
    B : (M, p) array
    floor : float
        phi.
    """

    n: float
    C: Array
    B: Array
    floor: float

    @cached_property
    def _metric(self) -> Array:
        out: Array = self.floor * np.eye(len(self.C)) + self._form(self.B, self.B)
        return out

    @cached_property
    def _inverse(self) -> Array:
        return np.asarray(np.linalg.inv(self._metric), np.float64)

    def _form(self, u: Array, v: Array) -> Array:
        """u^T C_de v for (M, p) matrices, (a, a)."""
        out: Array = np.einsum("demk,mk->de", self.C, u @ v.T)
        return out

    def _slope(self, v: Array) -> Array:
        """Derivative of M along v (M, p)."""
        half = self._form(self.B, v)
        return half + half.T

    def _weighted(self, x: Array) -> Array:
        """Sum over de of x_de C_de, symmetrised, (M, M)."""
        out = np.einsum("de,demk->mk", x, self.C)
        return 0.5 * (out + out.T)

    def value(self) -> float:
        """g."""
        return 0.5 * self.n * float(np.linalg.slogdet(self._metric)[1])

    @cached_property
    def gram(self) -> Array:
        """n P, (M, M)."""
        return self.n * self._weighted(self._inverse)

    def gradient(self) -> Array:
        """n P B, (M, p)."""
        return self.gram @ self.B

    def hvp(self, v: Array) -> Array:
        """Exact Hessian times v (M, p)."""
        inverse = self._inverse
        turned = self._weighted(inverse @ self._slope(v) @ inverse)
        return self.gram @ v - self.n * turned @ self.B

    def dense(self) -> Array:
        """Exact Hessian, (M p, M p)."""
        size = self.B.size
        columns = [self.hvp(unit.reshape(self.B.shape)).ravel() for unit in np.eye(size)]
        return np.array(columns)

    def gram_pull(self, trace: Array) -> Array:
        """Gradient (M, p) in B of <trace, n P> at fixed trace (M, M)."""
        inverse = self._inverse
        tau = np.einsum("demk,mk->de", self.C, trace)
        return -2.0 * self.n * self._weighted(inverse @ tau @ inverse) @ self.B

    def dense_pull(self, G: Array) -> Array:
        """Gradient (M, p) in B of <G, Hessian> at fixed symmetric G (M p, M p)."""
        inverse = self._inverse
        values, vectors = np.linalg.eigh(0.5 * (G + G.T))
        bend, out = np.zeros_like(inverse), np.zeros_like(self.B)
        for weight, vector in zip(values, vectors.T, strict=True):
            v = vector.reshape(self.B.shape)
            turned = inverse @ self._slope(v) @ inverse
            bend += 2.0 * weight * (turned @ self._metric @ turned
                                    - inverse @ self._form(v, v) @ inverse)
            out -= 2.0 * weight * self._weighted(turned) @ v
        return self.n * (out + self._weighted(bend) @ self.B)

    # --- in log phi, where phi is the dispersion ------------------------------------------------

    def value_rho(self) -> float:
        """d g / d log phi."""
        return 0.5 * self.n * self.floor * float(np.trace(self._inverse))

    def gram_rho(self) -> Array:
        """d n P / d log phi, (M, M)."""
        inverse = self._inverse
        return -self.n * self.floor * self._weighted(inverse @ inverse)

    def gradient_rho(self) -> Array:
        """d gradient / d log phi, (M, p)."""
        return self.gram_rho() @ self.B

    def dense_rho(self, G: Array) -> float:
        """Derivative of <G, Hessian> in log phi at fixed symmetric G (M p, M p)."""
        inverse = self._inverse
        values, vectors = np.linalg.eigh(0.5 * (G + G.T))
        total = 0.0
        for weight, vector in zip(values, vectors.T, strict=True):
            v = vector.reshape(self.B.shape)
            slope = self._slope(v)
            total += weight * float(np.trace(
                inverse @ inverse @ (2.0 * slope @ inverse @ slope - 2.0 * self._form(v, v))))
        return 0.5 * self.n * self.floor * total
