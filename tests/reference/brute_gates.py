"""Brute force for hard gates: rows that use given atoms, each with an amplitude of its own.

    eta_i = b_0 + sum_{k in support_i} [c_k + a_ik (phi_k(t_ik) B_k - c_k)],   a = exp(z),

c_k the first row of B_k, z ~ N(0, 1 / alpha), and b_0, the last row of B, with the prior of the
decoders. Amplitudes and coordinates are integrated by product rules. Every support of ``n_active``
of the K atoms is equally likely, and the given ones are part of what is described.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import comb

import numpy as np
from scipy.linalg import block_diag

from tests.reference.brute_force import Group, MarginalLikelihood, Orbit, laplace
from tests.reference.quadrature import grid, hermite_axis, log_multiplicity, product_rule


def atom_nodes(atom, alpha, n_coordinate, n_amplitude):
    """Features (G, M_k) of one open atom and log weights (G,)."""
    t, weights = grid(atom, n_coordinate)
    pairs, both = product_rule((np.arange(len(t)), weights),
                               hermite_axis(n_amplitude, alpha**-0.5))
    features = np.exp(pairs[:, [1]]) * atom.basis(t[pairs[:, 0].astype(int)])
    features[:, 0] = 1.0
    return features, both


class GatedRows:
    """Rows under hard gates, by the atoms that they use.

    Parameters
    ----------
    Z : (N, p) array
    atoms : sequence of Manifold
    support : (N, K) bool, one or two atoms in every row
    alpha : float
        Precision of log amplitudes.
    dispersion : float
    n_coordinate, n_amplitude : int
        Nodes an axis.
    """

    def __init__(self, Z, atoms, support, alpha, dispersion, n_coordinate=48, n_amplitude=16):
        self.Z, self.atoms, self.support, self.phi = Z, list(atoms), support, dispersion
        starts = np.cumsum([0, *[atom.basis_size for atom in atoms]])
        self.blocks = [slice(a, b) for a, b in pairwise(starts)]
        self.size = int(starts[-1]) + 1
        self.nodes = []
        for atom, block in zip(atoms, self.blocks, strict=True):
            own, weights = atom_nodes(atom, alpha, n_coordinate, n_amplitude)
            features = np.zeros((len(own), self.size))
            features[:, block] = own
            self.nodes.append((features, weights))
        self.parts = [(Z[rows], np.flatnonzero(pattern))
                      for pattern in np.unique(support, axis=0)
                      for rows in [(support == pattern).all(axis=1)]]

    def likelihood(self, precision=1.0):
        """L(B), every group of rows on the product of its atoms' grids."""
        groups = []
        for z, chosen in self.parts:
            features, weights = self.nodes[chosen[0]]
            for k in chosen[1:]:
                more, extra = self.nodes[k]
                features = (features[:, None] + more).reshape(-1, self.size)
                weights = (weights[:, None] + extra).ravel()
            features = features.copy()
            features[:, -1] = 1.0
            groups.append(Group(z, features, weights))
        grams = []
        for atom in self.atoms:
            rough = atom.roughness()
            grams.append(precision * np.eye(atom.basis_size) + (0.0 if rough is None else rough))
        return MarginalLikelihood(groups, block_diag(*grams, precision), self.phi)

    def fast_value(self, likelihood):
        """L(B) with the sum over two atoms' nodes as a product of matrices.

        |z - u - v|^2 = |z - u|^2 + |v|^2 - 2 z.v + 2 u.v: only the last part needs both nodes.
        """

        def value(B):
            total = likelihood.prior(B)
            for z, chosen in self.parts:
                rest = z - B[-1]
                points = [self.nodes[k][0] @ B for k in chosen]
                logs = [(rest @ u.T - 0.5 * (u**2).sum(1)) / self.phi + self.nodes[k][1]
                        for k, u in zip(chosen, points, strict=True)]
                tops = [part.max(1, keepdims=True) for part in logs]
                left = np.exp(logs[0] - tops[0])
                shift = 0.0
                if len(chosen) == 2:
                    cross = points[0] @ points[1].T / -self.phi
                    shift = cross.max()
                    left = (left @ np.exp(cross - shift)) * np.exp(logs[1] - tops[1])
                with np.errstate(divide="ignore"):  # a draw so far out that nothing is left
                    log_p = np.log(left.sum(1)) + shift + sum(top[:, 0] for top in tops)
                total += (0.5 * (rest**2).sum(1) / self.phi - log_p).sum()
                total += 0.5 * z.size * np.log(2.0 * np.pi * self.phi)
            return float(total)

        return value

    def least_squares(self, coordinates, amplitudes):
        """Decoders (M, p) at given coordinates (K arrays (N, d_k)) and amplitudes (N, K)."""
        features = np.zeros((len(self.Z), self.size))
        for k, (atom, block) in enumerate(zip(self.atoms, self.blocks, strict=True)):
            own = amplitudes[:, [k]] * atom.basis(coordinates[k])
            own[:, 0] = 1.0
            features[:, block] = own * self.support[:, [k]]
        features[:, -1] = 1.0
        gram = features.T @ features + self.phi * np.eye(self.size)
        return np.linalg.solve(gram, features.T @ self.Z)

    def log_patterns(self):
        """Log of the number of possible supports, over all rows."""
        active = int(self.support[0].sum())
        return len(self.Z) * float(np.log(comb(len(self.atoms), active)))

    def truth(self, B, precision=1.0):
        """Laplace over B about the mode nearest to a start, supports included."""
        orbit = Orbit(self.atoms, self.size)
        mirrors = sum(log_multiplicity(atom) for atom in self.atoms)
        found = laplace(self.likelihood(precision), orbit, B, mirrors)
        return replace(found, value=found.value + self.log_patterns())
