"""Nodes at which the integral of one row over the coordinates of its atom is taken (DESIGN A8).

The spacing follows the sharpest posterior that the decoder allows. Along a coordinate t_a the
negative log posterior of a row has the second derivative

    sum_o h_o (d eta_o / dt_a)^2 - s . d2 eta / dt_a^2 + prior

with s = -dl/deta and h = d2l/deta2 of its loss, whose largest value where some row has mass gives
the least standard deviation s_a; a spacing of .8 s_a integrates to rounding.

Coordinates in which the basis is affine are not on the lattice where the likelihood is Gaussian:
given the others their posterior is N(mu, P^-1) with P = I + X X^T / phi, X = d eta / dw, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InnerConvergenceError, InputError
from reml_sae.families import Family
from reml_sae.manifolds import Manifold
from reml_sae.manifolds._rules import gaussian_rule, product_rule
from reml_sae.models.assignment import Assignment
from reml_sae.models.terms import PenaltyTerm

Array = NDArray[np.float64]

LADDER = 1.25
STEP = 0.8
"""Spacing over the least posterior standard deviation; see `manifolds._rules`."""
PROBES = 200
"""Points of the manifold's own grid at which curvatures are read."""
MOST_NODES, MOST_PAIRS = 40_000, 60_000_000
"""Nodes, and rows times nodes, beyond which a quadrature is refused."""
NEAR = 10.0
"""Nats above its best point within which a row has mass to speak of."""
CHUNK_ELEMENTS = 2_000_000
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


def check_integration(
    integration: str, atoms: Sequence[Manifold], assignment: Assignment,
    terms: Sequence[PenaltyTerm],
) -> None:
    """Refuse a quadrature that a model does not have.

    Raises
    ------
    InputError
        Saying why.
    """
    reason = no_quadrature(atoms, assignment, terms)
    if integration == "quadrature" and reason:
        raise InputError(f"integration='quadrature' cannot be used: {reason}; use 'auto' or "
                         "'laplace'")


def lattice(
    atom: Manifold, beta: Array, family: Family, psi: Array, Z: Array, offset: Array
) -> Lattice:
    """Nodes for a decoder of an atom that has a rule.

    Parameters
    ----------
    atom : Manifold
    beta : (M, p) array
    family : Family
    psi : (n_psi,) array
    Z : (n, p) array
        Rows that the nodes are for.
    offset : (p,) array

    Raises
    ------
    InnerConvergenceError
        Where the noise is so small that the nodes are too many.
    """
    closed = family.equal_weights
    spacing = _spacing(atom, beta, family, psi, Z, offset)
    linear = atom.linear_axes if closed else ()
    finest = spacing[[a for a in range(atom.latent_dim) if a not in linear]][:atom.intrinsic_dim]
    # the product of unit lengths over spacings first: a rule far too fine is not even made
    rule = atom.rule(spacing) if np.prod(1.0 / finest) <= MOST_NODES else None
    if rule is None or len(rule[1]) > MOST_NODES or len(Z) * len(rule[1]) > MOST_PAIRS:
        raise InnerConvergenceError(
            "the noise is so small beside an atom that a quadrature of the rows needs too many "
            "nodes; use integration='laplace', which is good there")
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


def _spacing(
    atom: Manifold, beta: Array, family: Family, psi: Array, Z: Array, offset: Array
) -> Array:
    """Spacing (d,) along every coordinate."""
    grid = atom.grid(PROBES)
    basis, slope, bend = atom.jet(grid, 2)
    speed, own = slope @ beta, np.einsum("gddm->gdm", bend) @ beta
    if atom.intrinsic_dim < atom.latent_dim:  # along any arc
        speed = np.repeat(np.linalg.norm(speed, axis=1, keepdims=True), atom.latent_dim, axis=1)
    curve, sharp = basis @ beta + offset, np.zeros(atom.latent_dim)
    size = max(1, CHUNK_ELEMENTS // curve.size)
    for rows in (Z[start:start + size] for start in range(0, len(Z), size)):
        sharp = np.maximum(sharp, _sharpest(rows, curve, speed, own, family, psi))
    finest = STEP / np.sqrt(1.0 + sharp)
    # in steps of a ladder: a search that moves the decoder a little keeps its nodes
    return np.asarray(LADDER ** np.floor(np.log(finest) / np.log(LADDER)), np.float64)


def _sharpest(
    Z: Array, curve: Array, speed: Array, bend: Array, family: Family, psi: Array
) -> Array:
    """Bound (d,) on the second derivative of rows' losses where they have mass."""
    if family.equal_weights:
        phi = family.dispersion(psi)
        square = np.einsum("np,np->n", Z, Z)[:, None] - 2.0 * Z @ curve.T
        square += np.einsum("gp,gp->g", curve, curve)
        near = square < square.min(axis=1, keepdims=True) + 2.0 * NEAR * phi
        steep = np.einsum("gdp,gdp->gd", speed, speed)
        sharp = [np.where(near, steep[:, d] + np.abs(
            Z @ bend[:, d].T - np.einsum("gp,gp->g", curve, bend[:, d])), 0.0).max(initial=0.0)
            for d in range(speed.shape[1])]
        return np.array(sharp) / phi
    z, eta = np.broadcast_arrays(Z[:, None], curve[None])
    loss = family.loss(z, eta, psi).sum(axis=2)
    near = loss < loss.min(axis=1, keepdims=True) + NEAR
    steep = np.einsum("ngp,gdp->ngd", family.loss_eta(z, eta, psi, 2), speed**2)
    steep += np.abs(np.einsum("ngp,gdp->ngd", family.loss_eta(z, eta, psi, 1), bend))
    return np.asarray(np.where(near[:, :, None], steep, 0.0).max(axis=(0, 1), initial=0.0))
