"""Nodes at which the integral of one row over the coordinates of its atom is taken (DESIGN A8).

The spacing follows the sharpest posterior that the decoder allows. Along a coordinate t_a the
negative log posterior of a row has the second derivative

    sum_o h_o (d eta_o / dt_a)^2 - s . d2 eta / dt_a^2 + prior

with s = -dl/deta and h = d2l/deta2 of its loss, whose largest value where some row has mass gives
the least standard deviation s_a; a spacing of .8 s_a integrates to rounding, of rows of unequal
scale, whose posterior is no entire function, one of less (`Family.step`).

Coordinates in which the basis is affine are not on the lattice where the likelihood is Gaussian:
given the others their posterior is N(mu, P^-1) with P = I + X X^T / phi, X = d eta / dw, exactly.

Under hard gates a row has the log amplitude u ~ N(0, 1 / alpha) of its atom as well, which
stretches the curve y = Phi B without its constant c about it, eta = b_0 + c + exp(u) y(t). Every
node of u has a lattice of coordinates of its own, the finer the larger the amplitude is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from reml_sae.assignments._base import Assignment
from reml_sae.assignments.gates import FARTHEST
from reml_sae.errors import InnerConvergenceError, InputError
from reml_sae.families import GAUSSIAN_STEP, Family
from reml_sae.manifolds import Manifold
from reml_sae.manifolds._rules import EDGE, gaussian_rule, log_amplitude_rule, product_rule
from reml_sae.models.sae.terms import PenaltyTerm
from reml_sae.penalties import ARDPenalty
from reml_sae.typing import Array

LADDER = 1.25
LINEAR_STEP = 0.18, 0.5
"""Spacing of log amplitudes where all coordinates are linear: of themselves, for the density of a
row without these is analytic and bounded within pi / 4 of the real line, and over the prior's
standard deviation."""
PROBES = 200
"""Points of the manifold's own grid at which curvatures are read."""
MOST_NODES, MOST_PAIRS = 40_000, 60_000_000
"""Nodes, and rows times nodes, beyond which a quadrature is refused."""
FEW_COLUMNS, ROUNDING = 6, 1e-9
"""Columns in which distances by differences cost hardly more than by products, and the nats that
rounding may cost a row before they are taken."""
NEAR = 10.0
"""Nats above its best point within which a row has mass to speak of."""
CHUNK_ELEMENTS = 2_000_000
NO_LENGTH = 1e-20
"""Squared length over the noise variance of a point that no amplitude tells from the centre."""
MOST_LINEAR = 3
"""Linear coordinates that are integrated in closed form; each multiplies the nodes by four."""


@dataclass(frozen=True)
class Lattice:
    """Nodes of an atom.

    Attributes
    ----------
    basis : (G, M) basis at the nodes, linear coordinates at zero
    slopes : (G, m, M) its derivatives along the linear coordinates, which do not depend on them
    log_weights : (G,) of the normalised prior of the other coordinates
    prior_slopes : (n_prior, G) derivative of the negative log prior in its own outer parameters
    """

    basis: Array
    slopes: Array
    log_weights: Array
    prior_slopes: Array

    def __len__(self) -> int:
        return len(self.log_weights)

    @property
    def n_linear(self) -> int:
        """Linear coordinates m, which are not on the lattice."""
        return self.slopes.shape[1]


def no_quadrature(
    atoms: Sequence[Manifold], assignment: Assignment, terms: Sequence[PenaltyTerm], family: Family
) -> str:
    """Why the rows of a model have no quadrature; empty where they have one."""
    if not assignment.is_single:
        return "a row has more than the coordinates of one atom"
    stretched = assignment.dim > 0
    if stretched and not family.equal_weights:
        return f"the {family.name} family has no quadrature of a row's amplitude"
    for term in terms:
        integrated = term.target == "amplitudes" and isinstance(term.penalty, ARDPenalty)
        if term.on_rows and not (stretched and integrated):
            return "a penalty acts on the rows"
    for atom in atoms:
        if not atom.has_rule or len(atom.linear_axes) > MOST_LINEAR:
            return f"{atom!r} has no quadrature of its coordinates"
    return ""


def check_integration(
    integration: str, atoms: Sequence[Manifold], assignment: Assignment,
    terms: Sequence[PenaltyTerm], family: Family,
) -> None:
    """Refuse a quadrature that a model does not have.

    Raises
    ------
    InputError
        Saying why.
    """
    reason = no_quadrature(atoms, assignment, terms, family)
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
    spacing = _spacing(_Probes(atom, beta, offset), family, psi, Z)
    linear = atom.linear_axes if closed else ()
    nodes, log_weights = _affordable(atom, spacing, linear, len(Z))
    if not closed:
        for axis in atom.linear_axes:
            both, log_weights = product_rule((nodes, log_weights), gaussian_rule(spacing[axis]))
            nodes, last = both[:, :-1], both[:, -1]
            nodes[:, axis] = last
    basis, slopes = _basis(atom, nodes, linear)
    return Lattice(basis, slopes, log_weights, np.zeros((0, len(nodes))))


def amplitude_lattice(
    atom: Manifold, beta: Array, family: Family, psi: Array, Z: Array, offset: Array, alpha: float
) -> Lattice:
    """Nodes for an atom under a gate that is open, with its log amplitude.

    Parameters
    ----------
    beta : (M + 1, p) array
        Decoder, and the intercept.
    alpha : float
        Prior precision of log amplitudes.

    Others, and raises, as `lattice`.
    """
    curve, centre = beta[:-1].copy(), offset + beta[0] + beta[-1]
    curve[0] = 0.0
    needs = _stretched(_Probes(atom, curve, np.zeros_like(offset)), family.dispersion(psi),
                       Z - centre, alpha)
    linear, pieces, total = atom.linear_axes, [], 0
    u, logs = (_linear_amplitudes(alpha) if len(linear) == atom.latent_dim else
               log_amplitude_rule(alpha, needs.length, GAUSSIAN_STEP, needs.low, needs.high))
    for each, log_weight in zip(u, logs, strict=True):
        spacing = needs.spacing(float(np.exp(each)))
        nodes, log_weights = _affordable(atom, spacing, linear, len(Z), total)
        total += len(nodes)
        basis, slopes = _basis(atom, nodes, linear)
        basis[:, 1:] *= np.exp(each)
        pieces.append((np.append(basis, np.ones((len(nodes), 1)), axis=1),
                       np.append(np.exp(each) * slopes, np.zeros_like(slopes[:, :, :1]), axis=2),
                       log_weights + log_weight,
                       np.full(len(nodes), 0.5 * alpha * each**2 - 0.5)))
    basis, slopes, log_weights, prior = map(np.concatenate, zip(*pieces, strict=True))
    return Lattice(basis, slopes, log_weights, prior[None])


def no_atom() -> Lattice:
    """The one node of rows that use no atom: the intercept."""
    return Lattice(np.ones((1, 1)), np.zeros((1, 0, 1)), np.zeros(1), np.zeros((0, 1)))


def squares(Z: Array, points: Array, phi: float) -> Array:
    """Squared distances (n, G) of rows (n, p) in noise of variance ``phi`` from points (G, p).

    Where noise is small beside the rows, rounding of the squares of these would hide the minimum of
    L: in few columns by differences then, whose error is a share of the distance itself.
    """
    lengths = np.einsum("np,np->n", Z, Z)
    rounding = np.finfo(float).eps * lengths.max(initial=0.0)
    if Z.shape[1] <= FEW_COLUMNS and rounding > ROUNDING * phi:
        out = np.zeros((len(Z), len(points)))
        for column, at in zip(Z.T, points.T, strict=True):
            out += (column[:, None] - at) ** 2
        return out
    out = lengths[:, None] - 2.0 * Z @ points.T
    out += np.einsum("gp,gp->g", points, points)
    return out


def _affordable(
    atom: Manifold, spacing: Array, linear: tuple[int, ...], n_rows: int, before: int = 0
) -> tuple[Array, Array]:
    """The atom's rule at a spacing, refused where its nodes and those before it are too many."""
    finest = spacing[[a for a in range(atom.latent_dim) if a not in linear]][:atom.intrinsic_dim]
    # the product of unit lengths over spacings first: a rule far too fine is not even made
    rule = atom.rule(spacing) if np.prod(1.0 / finest) <= MOST_NODES else None
    if rule is not None:
        total = before + len(rule[1])
        if total <= MOST_NODES and n_rows * total <= MOST_PAIRS:
            return rule
    raise InnerConvergenceError(
        "the noise is so small beside an atom that a quadrature of the rows needs too many "
        "nodes; use integration='laplace', which is good there")


def _basis(atom: Manifold, nodes: Array, linear: tuple[int, ...]) -> tuple[Array, Array]:
    """Basis (G, M) at nodes, and its slopes (G, m, M) along the linear coordinates."""
    jets = atom.jet(nodes, 1 if linear else 0)
    basis = jets[0]
    return basis, jets[1][:, list(linear)] if linear else np.zeros((len(nodes), 0, basis.shape[1]))


class _Probes:
    """Points ``at`` (G, p) of a curve, its speed and bend (G, d, p) along every coordinate."""

    def __init__(self, atom: Manifold, beta: Array, offset: Array):
        basis, slope, bend = atom.jet(atom.grid(PROBES), 2)
        self.at = basis @ beta + offset
        self.speed, self.bend = slope @ beta, np.einsum("gddm->gdm", bend) @ beta
        if atom.intrinsic_dim < atom.latent_dim:  # along any arc
            self.speed = np.repeat(np.linalg.norm(self.speed, axis=1, keepdims=True),
                                   atom.latent_dim, axis=1)

    @property
    def steep(self) -> Array:
        """Squared speeds, (G, d)."""
        return np.einsum("gdp,gdp->gd", self.speed, self.speed)

    def bent(self, Z: Array, d: int) -> tuple[Array, Array]:
        """Inner products of Z (n, p) and of the points with the bend along one coordinate."""
        return Z @ self.bend[:, d].T, np.einsum("gp,gp->g", self.at, self.bend[:, d])

    def chunks(self, Z: Array) -> Iterator[Array]:
        """Rows whose products with all points fit into memory."""
        size = max(1, CHUNK_ELEMENTS // self.at.size)
        return (Z[start:start + size] for start in range(0, len(Z), size))


def _ladder(sharp: Array, step: float = GAUSSIAN_STEP) -> Array:
    """Spacing for second derivatives of the log posterior, in standard deviations of that.

    In steps of a ladder: a search that moves the decoder a little keeps its nodes.
    """
    finest = step / np.sqrt(sharp)
    return np.asarray(LADDER ** np.floor(np.log(finest) / np.log(LADDER)), np.float64)


def _spacing(probes: _Probes, family: Family, psi: Array, Z: Array) -> Array:
    """Spacing (d,) along every coordinate."""
    sharp = np.zeros(probes.bend.shape[1])
    for rows in probes.chunks(Z):
        sharp = np.maximum(sharp, _sharpest(probes, rows, family, psi))
    return _ladder(1.0 + sharp, family.step(psi, Z.shape[1]))


def _sharpest(probes: _Probes, Z: Array, family: Family, psi: Array) -> Array:
    """Bound (d,) on the second derivative of rows' losses where they have mass."""
    if family.row_weights:
        phi, steep = family.dispersion(psi), probes.steep
        loss, weight = family.row_losses(squares(Z, probes.at, phi), Z.shape[1], psi)
        near = loss < loss.min(axis=1, keepdims=True) + NEAR
        sharp = []
        for d in range(steep.shape[1]):
            own, level = probes.bent(Z, d)
            bound = weight * (steep[:, d] + np.abs(own - level))
            sharp.append(np.where(near, bound, 0.0).max(initial=0.0))
        return np.array(sharp) / phi
    z, eta = np.broadcast_arrays(Z[:, None], probes.at[None])
    loss = family.loss(z, eta, psi).sum(axis=2)
    near = loss < loss.min(axis=1, keepdims=True) + NEAR
    steep = np.einsum("ngp,gdp->ngd", family.loss_eta(z, eta, psi, 2), probes.speed**2)
    steep += np.abs(np.einsum("ngp,gdp->ngd", family.loss_eta(z, eta, psi, 1), probes.bend))
    return np.asarray(np.where(near[:, :, None], steep, 0.0).max(axis=(0, 1), initial=0.0))


@dataclass(frozen=True)
class _Stretched:
    """What the rows need of a lattice under an amplitude a: bounds where some row has mass.

    Attributes
    ----------
    steep, bent : (G, d) arrays
        Second derivatives along the coordinates are at most 1 + a^2 steep + a bent at a probe.
    reach : (G,) array
        Largest amplitude with which a row has mass at a probe.
    length : float
        Second derivative in a.
    low, high : float
        Range of log amplitudes.
    """

    steep: Array
    bent: Array
    reach: Array
    length: float
    low: float
    high: float

    def spacing(self, a: float) -> Array:
        """Spacing (d,) of coordinates at an amplitude."""
        near = self.reach >= min(a, self.reach.max())
        return _ladder(1.0 + (a**2 * self.steep + a * self.bent)[near].max(axis=0))


def _linear_amplitudes(alpha: float) -> tuple[Array, Array]:
    """Log amplitudes and log weights where all coordinates are linear.

    Without its coordinates a row is no Gaussian in the amplitude: it varies with the logarithm
    alone, and has no end but the prior's, as a coordinate near zero makes up for any amplitude.
    """
    root = float(np.sqrt(alpha))
    points, logs = gaussian_rule(min(LINEAR_STEP[0] * root, LINEAR_STEP[1]))
    u = points[:, 0] / root
    near = np.abs(u) < FARTHEST
    return u[near], logs[near]


def _stretched(probes: _Probes, phi: float, Z: Array, alpha: float) -> _Stretched:
    """What rows about the centre of an atom need.

    At a point y of the curve a row z has its best likelihood at a = z.y / |y|^2, and one that is
    less by c nats at a +- sqrt(2 c phi) / |y|; the prior can make up for alpha u^2 / 2 of them.
    """
    farthest = min(EDGE / np.sqrt(alpha), FARTHEST)
    least, most = np.exp(-farthest), np.exp(farthest)
    squared = np.einsum("gp,gp->g", probes.at, probes.at)
    length = np.maximum(squared, NO_LENGTH * phi)
    bent, reach = np.zeros(probes.bend.shape[:2]), np.zeros(len(length))
    low, high = most, least
    for rows in probes.chunks(Z):
        pull = rows @ probes.at.T
        best = np.clip(pull / length, least, most)
        square, prior = best**2 * length - 2.0 * best * pull, phi * alpha * np.log(best) ** 2
        near = square < (square + prior).min(axis=1, keepdims=True) + 2.0 * NEAR * phi
        margin = np.sqrt((2.0 * NEAR * phi + prior) / length)
        ends = np.maximum(best - margin, least), np.minimum(best + margin, most)
        reach = np.maximum(reach, np.where(near, ends[1], 0.0).max(axis=0))
        for d in range(bent.shape[1]):
            along, level = probes.bent(rows, d)
            apart = np.maximum(*(np.abs(along - a * level) for a in ends))
            bent[:, d] = np.maximum(bent[:, d], np.where(near, apart, 0.0).max(axis=0))
        margin = np.sqrt((EDGE**2 * phi + prior) / length)
        high = max(high, float(np.where(near, best + margin, least).max()))
        low = min(low, float(np.where(near, best - margin, most).min()))
    return _Stretched(probes.steep / phi, bent / phi, reach, float(length[reach > 0.0].max()) / phi,
                      float(np.log(max(low, least))), float(np.log(min(high, most))))
