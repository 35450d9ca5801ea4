"""The marginal likelihood of a model by brute force: what the criterion V ought to be.

    -log p(Z) = -log int dB p(B) prod_i int dx p(x) N(z_i; phi(x) B, dispersion I)

for decoders B (M, p) ~ N(0, S^-1 (x) I_p). The inner integrals are sums over a grid of nodes, exact
to 1e-10: with responsibilities r_ig of the nodes and residuals e_ig = z_i - phi_g B,

    L(B)     = -sum_i log sum_g w_g N(z_i; phi_g B, dispersion I) + (1/2) tr B^T S B + constants
    dL       = -sum_ig r_ig phi_g (x) e_ig / dispersion + S B
    d2L      = sum_i { E_i[phi phi^T] (x) I / dispersion - Var_i[phi (x) e] / dispersion^2 }
               + S (x) I

(Louis 1982), and the outer one is Laplace's approximation about the mode of L, in which the orbit
of B under the continuous symmetries of the atom is integrated exactly: its volume times the
integral over the orthogonal complement of its tangent.

Nothing here is taken from the engine: of the manifolds only the basis and the roughness, while
priors, symmetries and quadrature are written again.

A symmetry that is not connected with the identity gives B a second mode of the same mass. These are
left out of `Truth.value`, as a Laplace approximation about one mode leaves them out, and stand in
`log_multiplicity`: -log p(Z) = value - log_multiplicity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from tests.reference.quadrature import generators, grid, log_multiplicity, moves

ROW_TOLERANCE = 1e-10
MODE_DECREMENT = 1e-5
CHUNK = 4_000_000

@dataclass
class Group:
    """Rows that share a grid: the features phi_g (G, M) of its nodes and their log weights."""

    Z: np.ndarray
    features: np.ndarray
    log_weights: np.ndarray


class MarginalLikelihood:
    """L(B) with exact gradient and Hessian.

    Parameters
    ----------
    groups : sequence of Group
    gram : (M, M) array
        Prior precision S of every column of B.
    dispersion : float
    """

    def __init__(self, groups: Sequence[Group], gram, dispersion):
        self.groups, self.gram, self.phi = list(groups), np.asarray(gram, float), dispersion
        self.m, self.p = len(self.gram), self.groups[0].Z.shape[1]
        self._at = None

    def row_values(self, B):
        """-log of the integral of every row, group after group."""
        return np.concatenate([rows for group in self.groups
                               for rows, *_ in self._rows(group, B)])

    def value(self, B):
        """L at B (M, p)."""
        return float(self.row_values(B).sum()) + self.prior(B)

    def prior(self, B):
        """-log density of B."""
        log_det = np.linalg.slogdet(self.gram)[1]
        return 0.5 * float(np.vdot(B, self.gram @ B)) + 0.5 * self.p * (
            self.m * np.log(2.0 * np.pi) - log_det)

    def _rows(self, group, B):
        """Values (n,), data and unnormalised responsibilities (n, G) with their sums, by chunks."""
        eta = group.features @ B
        offset = group.log_weights - 0.5 * (eta**2).sum(1) / self.phi
        size = max(1, CHUNK // len(eta))
        for first in range(0, len(group.Z), size):
            z = group.Z[first : first + size]
            r = z @ (eta.T / self.phi)
            r += offset
            top = r.max(1, keepdims=True)
            r -= top
            np.exp(r, out=r)
            total = r.sum(1, keepdims=True)
            log_p = top[:, 0] + np.log(total[:, 0]) - 0.5 * (z**2).sum(1) / self.phi
            yield 0.5 * self.p * np.log(2.0 * np.pi * self.phi) - log_p, z, r, total

    def derivatives(self, B):
        """L, its gradient (M p,) and its Hessian (M p, M p)."""
        if self._at is not None and np.array_equal(self._at[0], B):
            return self._at[1]
        m, p, phi = self.m, self.p, self.phi
        value, gradient = self.prior(B), self.gram @ B
        hessian = np.kron(self.gram, np.eye(p))
        for group in self.groups:
            f = group.features
            eta = f @ B
            levers = (f[:, :, None] * eta[:, None, :]).reshape(len(f), m * p)
            mass, zs = np.zeros(len(f)), np.zeros((len(f), p))
            squares = np.zeros((len(f), p * p))
            for rows, z, r, total in self._rows(group, B):
                value += rows.sum()
                r /= total
                mass += r.sum(0)
                zs += r.T @ z
                squares += r.T @ (z[:, :, None] * z[:, None, :]).reshape(len(z), p * p)
                mean = (((r @ f)[:, :, None] * z[:, None, :]).reshape(len(z), m * p)
                        - r @ levers) / phi
                hessian += mean.T @ mean
            gradient = gradient - f.T @ (zs - mass[:, None] * eta) / phi
            cross = zs[:, :, None] * eta[:, None, :]
            squares = squares.reshape(-1, p, p) - cross - cross.swapaxes(1, 2)
            squares += mass[:, None, None] * eta[:, :, None] * eta[:, None, :]
            inner = mass[:, None, None] * np.eye(p) / phi - squares / phi**2
            pairs = (f[:, :, None] * f[:, None, :]).reshape(len(f), m * m)
            block = (pairs.T @ inner.reshape(len(f), p * p)).reshape(m, m, p, p)
            hessian += block.transpose(0, 2, 1, 3).reshape(m * p, m * p)
        self._at = B.copy(), (float(value), gradient.ravel(), hessian)
        return self._at[1]

    def em(self, B, steps):
        """B after some steps of expectation and maximisation, which never raise L."""
        for _ in range(steps):
            left, right = self.phi * self.gram, np.zeros_like(B)
            for group in self.groups:
                for _, z, r, total in self._rows(group, B):
                    r /= total
                    left = left + group.features.T @ (r.sum(0)[:, None] * group.features)
                    right += group.features.T @ (r.T @ z)
            B = np.linalg.solve(left, right)
        return B


class Orbit:
    """Tangents of the orbit of B under the symmetries of some atoms.

    Parameters
    ----------
    atoms : sequence of Manifold
    size : int
        M, the atoms' features and those without symmetry after them.
    """

    def __init__(self, atoms, size):
        padded, start, self.log_volume = [], 0, 0.0
        for atom in atoms:
            for E in generators(atom):
                R = np.zeros((size, size))
                R[start : start + len(E), start : start + len(E)] = -E
                padded.append(R)
            start += atom.basis_size
            self.log_volume += moves(atom)[1]
        self.generators = np.array(padded).reshape(-1, size, size)

    def tangents(self, B):
        """C, (M p, g)."""
        return (self.generators @ B).reshape(len(self.generators), B.size).T


@dataclass(frozen=True)
class Truth:
    """Brute-force marginal likelihood.

    Attributes
    ----------
    value : float
        -log p(Z) without the discrete symmetries, in nats.
    log_multiplicity : float
    B : (M, p) array
        Mode of the decoders with the rows integrated out.
    likelihood : MarginalLikelihood
    orbit : Orbit
    basis : (M p, M p - g) array
        Orthonormal basis of the complement of the orbit's tangent at B.
    covariance : (M p - g, M p - g) array
        Inverse of the Hessian in that basis.
    decrement : float
        Newton decrement at B.
    """

    value: float
    log_multiplicity: float
    B: np.ndarray
    likelihood: MarginalLikelihood
    orbit: Orbit
    basis: np.ndarray
    covariance: np.ndarray
    decrement: float

    @property
    def n_parameters(self):
        """M p."""
        return self.B.size


def find_mode(likelihood, orbit, B, em_steps=10):
    """Mode of L nearest to B: a trust region with the exact Hessian, stiffened along the orbit."""
    shape = B.shape

    def stiff(x):
        hessian = likelihood.derivatives(x.reshape(shape))[2]
        tangents = orbit.tangents(x.reshape(shape))
        unit = tangents / np.maximum(np.linalg.norm(tangents, axis=0), 1e-12)
        return hessian + np.trace(hessian) / len(hessian) * unit @ unit.T

    found = minimize(
        lambda x: likelihood.derivatives(x.reshape(shape))[0],
        likelihood.em(B, em_steps).ravel(), hess=stiff,
        jac=lambda x: likelihood.derivatives(x.reshape(shape))[1],
        method="trust-exact", options={"gtol": 1e-7, "maxiter": 200})
    x = found.x
    for _ in range(3):  # the last digits, which a comparison of values cannot see
        x = x - np.linalg.solve(stiff(x), likelihood.derivatives(x.reshape(shape))[1])
    return x.reshape(shape)


def laplace(likelihood, orbit, B, log_mult=0.0, em_steps=10):
    """Laplace's approximation of the integral over B about the mode nearest to a start.

    Raises
    ------
    ArithmeticError
        Where no mode was found, or it is degenerate beyond its known symmetries.
    """
    B = find_mode(likelihood, orbit, B, em_steps)
    value, gradient, hessian = likelihood.derivatives(B)
    tangents = orbit.tangents(B)
    g = tangents.shape[1]
    basis = np.linalg.svd(tangents)[0][:, g:] if g else np.eye(B.size)
    inside = basis.T @ hessian @ basis
    if np.linalg.eigvalsh(inside)[0] <= 0.0:
        raise ArithmeticError("the state is no minimum of the marginal likelihood")
    covariance = np.linalg.inv(inside)
    slope = basis.T @ gradient
    decrement = float(np.sqrt(slope @ covariance @ slope))
    if not decrement < MODE_DECREMENT:
        raise ArithmeticError(f"the mode was not reached: Newton decrement {decrement:.2e}")
    value += 0.5 * np.linalg.slogdet(inside)[1] - 0.5 * len(inside) * np.log(2.0 * np.pi)
    value -= orbit.log_volume + 0.5 * np.linalg.slogdet(tangents.T @ tangents)[1]
    return Truth(float(value), log_mult, B, likelihood, orbit, basis, covariance, decrement)


def atom_likelihood(Z, atom, gram, dispersion, n):
    """L of one atom that every row uses, on a grid of n nodes an axis."""
    t, weights = grid(atom, n)
    return MarginalLikelihood([Group(Z, atom.basis(t), weights)], gram, dispersion)


def converged_likelihood(Z, atom, gram, dispersion, B, n=32, most=2048):
    """L on the first grid whose row integrals at B agree with those of twice as many nodes."""
    finer = atom_likelihood(Z, atom, gram, dispersion, n)
    rows = finer.row_values(B)
    while n <= most:
        n, before, coarse = 2 * n, rows, finer
        finer = atom_likelihood(Z, atom, gram, dispersion, n)
        rows = finer.row_values(B)
        if np.abs(rows - before).max() < ROW_TOLERANCE:
            return coarse, n // 2
    raise ArithmeticError(f"the row integrals did not converge with {most} nodes an axis")


def brute_force(Z, atom, *, dispersion, roughness=1.0, precision=1.0, coordinates=None, B=None,
                unit=1.0):
    """The truth for one atom that every row uses.

    Parameters
    ----------
    Z : (N, p) array
        Data divided by ``unit``.
    atom : Manifold
    dispersion : float
        Noise variance, in the units of Z.
    roughness : float
        Strength of the atom's roughness.
    precision : float
        Of the decoder's Gaussian prior.
    coordinates : (N, d) array, optional
        Where the search for the mode starts, by least squares; or ``B`` (M, p) itself.
    unit : float

    Returns
    -------
    Truth
    """
    gram = precision * np.eye(atom.basis_size)
    rough = atom.roughness()
    if rough is not None:
        gram = gram + roughness * rough
    if B is None:
        f = atom.basis(np.asarray(coordinates, float))
        B = np.linalg.solve(f.T @ f + dispersion * gram, f.T @ Z)
    B = atom_likelihood(Z, atom, gram, dispersion, 48).em(B, 10)
    orbit = Orbit([atom], atom.basis_size)
    n = 32
    while True:
        likelihood, n = converged_likelihood(Z, atom, gram, dispersion, B, n)
        truth = laplace(likelihood, orbit, B, log_multiplicity(atom), em_steps=0)
        finer = atom_likelihood(Z, atom, gram, dispersion, 2 * n)
        error = np.abs(finer.row_values(truth.B) - likelihood.row_values(truth.B)).max()
        if error < ROW_TOLERANCE:
            break
        B, n = truth.B, 2 * n
    return replace(truth, value=truth.value + Z.size * float(np.log(unit)))
