"""Nodes at which the integral of one row over the coordinates of its atom is taken (DESIGN A8).

The spacing follows the sharpest posterior that the decoder allows. Along a coordinate t_a the
negative log posterior of a row has the second derivative

    ( |d eta/dt_a|^2 - r . d2 eta/dt_a^2 ) / phi + prior,      r = z - eta,

so with the largest residual e inside the curve's span 1 / s_a^2 is at most
(|d eta|^2 + e |d2 eta|) / phi + 1, and a spacing of .8 s_a integrates it to rounding.

Coordinates in which the basis is affine are not on the lattice where the likelihood is Gaussian:
given the others their posterior is N(mu, P^-1) with P = I + X X^T / phi, X = d eta / dw, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reml_sae.families import Family
from reml_sae.manifolds import Manifold
from reml_sae.manifolds._rules import gaussian_rule, product_rule
from reml_sae.models.assignment import Assignment
from reml_sae.models.terms import PenaltyTerm

Array = NDArray[np.float64]

LADDER = 1.25
STEP = 0.8
"""Spacing over the least posterior standard deviation; see `manifolds._rules`."""
PROBES = 400
"""Points of the manifold's own grid at which speeds are read."""
MOST_LINEAR = 3
"""Linear coordinates that are integrated in closed form; each multiplies the nodes by four."""


@dataclass(frozen=True)
class Lattice:
    """Nodes of an atom.

    Attributes
    ----------
    basis : (G, M) basis at the nodes, its linear coordinates at zero
    slopes : (G, m, M) its derivatives along the linear coordinates, which do not depend on them
    log_weights : (G,) of the normalised prior of the other coordinates
    nodes : (G, d) coordinates
    linear : tuple of int
        Linear coordinates.
    """

    basis: Array
    slopes: Array
    log_weights: Array
    nodes: Array
    linear: tuple[int, ...]


def no_quadrature(
    atoms: Sequence[Manifold], assignment: Assignment, terms: Sequence[PenaltyTerm]
) -> str:
    """Why the rows of a model have no quadrature; empty where they have one."""
    if len(atoms) > 1 or assignment.dim:
        return "a row has more than the coordinates of one atom"
    if any(term.on_rows for term in terms):
        return "a penalty acts on the rows"
    if not atoms[0].has_rule or len(atoms[0].linear_axes) > MOST_LINEAR:
        return f"{atoms[0]!r} has no quadrature of its coordinates"
    return ""


def lattice(
    atom: Manifold, beta: Array, family: Family, psi: Array, reach: float
) -> Lattice:
    """Nodes for a decoder of an atom that has a rule.

    Parameters
    ----------
    atom : Manifold
    beta : (M, p) array
    family : Family
    psi : (n_psi,) array
    reach : float
        Bound e on the residuals.
    """
    closed = family.equal_weights
    linear = atom.linear_axes if closed else ()
    spacing = _spacing(atom, beta, family, psi, reach)
    rule = atom.rule(spacing)
    assert rule is not None
    if not closed:
        for axis in atom.linear_axes:
            held, logs = rule
            nodes, logs = product_rule((held, logs), gaussian_rule(spacing[axis]))
            nodes, last = nodes[:, :-1], nodes[:, -1]
            nodes[:, axis] = last
            rule = nodes, logs
    nodes, log_weights = rule
    jets = atom.jet(nodes, 1 if linear else 0)
    slopes = jets[1][:, list(linear)] if linear else np.zeros((len(nodes), 0, beta.shape[0]))
    return Lattice(jets[0], slopes, log_weights, nodes, linear)


def _spacing(atom: Manifold, beta: Array, family: Family, psi: Array, reach: float) -> Array:
    """Spacing (d,) along every coordinate."""
    grid = atom.grid(PROBES)
    _, slope, bend = atom.jet(grid, 2)
    weight = 1.0 / family.dispersion(psi) if family.equal_weights else _heaviest(
        family, atom, grid, beta, psi)
    speed = slope @ beta
    own = np.einsum("gddm->gdm", bend) @ beta
    metric = speed @ speed.transpose(0, 2, 1)
    steep = np.einsum("gdd->gd", metric)
    if atom.intrinsic_dim < atom.latent_dim:  # along any arc
        steep = np.repeat(np.linalg.eigvalsh(metric)[:, -1:], atom.latent_dim, axis=1)
    sharp = steep + reach * np.linalg.norm(own, axis=2)
    finest = STEP / np.sqrt(1.0 + weight * sharp.max(axis=0))
    # in steps of a ladder: a search that moves the decoder a little keeps its nodes
    return np.asarray(LADDER ** np.floor(np.log(finest) / np.log(LADDER)), np.float64)


def _heaviest(family: Family, atom: Manifold, grid: Array, beta: Array, psi: Array) -> float:
    """Largest IRLS weight of an entry along the curve."""
    eta = atom.basis(grid) @ beta
    return float(family.weight(eta, eta, psi, 0).max())
