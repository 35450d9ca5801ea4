"""Nodes of coordinates and amplitudes that all atoms of a kind share.

The rule is that of the manifold, as fine as the sharpest curve among the atoms asks (DESIGN A8).
Coordinates and log amplitudes have a rule each, so that the sums over both need the products of a
row with the nodes of the curve alone, whatever its amplitude.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reml_sae.errors import InputError
from reml_sae.manifolds import Manifold
from reml_sae.manifolds._rules import Rule, gaussian_rule, log_amplitude_rule, product_rule
from reml_sae.sweeps.state import SweepKind, SweepState
from reml_sae.typing import Array

PROBES = 64
COARSER = 1.25
SHARP_MARGIN = 1.5
"""Of the sharpest curvature over the squared speed: curves bend, and rows lie beside them."""


@dataclass(frozen=True)
class Fineness:
    """How fine nodes are, and how many there are at most."""

    step: float = 1.6
    """Spacing in standard deviations of the sharpest posterior: .8 integrates to rounding."""
    edge: float = 4.0
    """Standard deviations of the prior at which log amplitudes end."""
    curve: int = 128
    """Count of nodes of an atom with one coordinate at most ..."""
    surface: int = 1024
    """... and of one with more."""
    amplitudes: int = 48
    """Count of nodes of log amplitudes at most."""
    coarse: int = 16
    """Count of nodes of a curve by which all atoms are scored; its square for a surface."""

    def most(self, manifold: Manifold) -> int:
        """Count of nodes of an atom."""
        return self.curve if manifold.intrinsic_dim == 1 else self.surface

    def fewest(self, manifold: Manifold) -> int:
        """Count of its nodes of a first score."""
        return self.coarse ** min(manifold.intrinsic_dim, 2)


def check_nodes(manifold: Manifold) -> None:
    """Refuse a manifold whose rows sweeps cannot integrate.

    Raises
    ------
    InputError
        Naming it.
    """
    if not manifold.has_rule or len(manifold.linear_axes) > 1:
        raise InputError(f"sweeps have no quadrature of the coordinates of {manifold!r}; use atoms "
                         "of one coordinate, or closed surfaces")


def coordinate_rule(manifold: Manifold, spacing: Array, most: int) -> Rule:
    """Nodes at a spacing, or the finest below it that are no more than ``most``."""
    while True:
        rule = manifold.rule(spacing)
        assert rule is not None
        for axis in manifold.linear_axes:
            nodes, logs = product_rule(rule, gaussian_rule(float(spacing[axis])))
            nodes, last = nodes[:, :-1], nodes[:, -1]
            nodes[:, axis] = last
            rule = nodes, logs
        fixed = (spacing > 4.0).all()  # rules have a least number of nodes
        if len(rule[1]) <= most or fixed:
            return rule
        spacing = COARSER * spacing


def sharp_spacing(kind: SweepKind, state: SweepState, number: int, fineness: Fineness) -> Array:
    """Spacing (d,) for the sharpest of the atoms of a kind."""
    manifold, high = kind.manifold, np.exp(1.0 / np.sqrt(state.amplitude_precision))
    if not manifold.latent_dim:
        return np.zeros(0)
    slopes = manifold.jet(manifold.grid(PROBES), 1)[1]
    grams = state.decoders[number] @ state.decoders[number].transpose(0, 2, 1)
    steep = np.einsum("gdm,kml,gdl->kgd", slopes, grams, slopes, optimize=True)
    if manifold.intrinsic_dim < manifold.latent_dim:
        steep = np.repeat(steep.sum(axis=2, keepdims=True), manifold.latent_dim, axis=2)
    sharp = 1.0 + SHARP_MARGIN * high**2 * steep.max(axis=(0, 1)) / state.dispersion
    return np.asarray(fineness.step / np.sqrt(sharp))


def amplitude_rule(
    state: SweepState, length: float, reach: float, fineness: Fineness
) -> tuple[Array, Array]:
    """Log amplitudes (U,) and their log weights.

    Parameters
    ----------
    state : SweepState
    length : float
        Largest squared length of a point of a curve over phi.
    reach : float
        Amplitude that no row has.
    fineness : Fineness
    """
    alpha, step = state.amplitude_precision, fineness.step
    edge = fineness.edge / np.sqrt(alpha)
    high = min(edge, max(np.log(reach), 0.5 * edge))
    while True:
        u, logs = log_amplitude_rule(alpha, length, step, -edge, high)
        if 0 < len(u) <= fineness.amplitudes:
            return u, logs
        if not len(u):
            return np.zeros(1), np.zeros(1)
        step *= COARSER
