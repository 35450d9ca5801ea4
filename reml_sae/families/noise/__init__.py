"""Covariance of the noise of Gaussian rows, and what V charges for it (DESIGN G1).

    z_i | eta_i ~ N(eta_i, phi Omega),    |Omega| = 1,    W = Omega^(-1/2).

The rows z_i W have isotropic noise of variance phi, and since |W| = 1 the density of the data is
that of the rows in this metric: an engine that knows isotropic noise alone fits Z W. What is left
is the evidence of Omega itself, whose parameters are as many as those of a decoder, so that V must
integrate them out:

    V = V(Z W) + cost(Omega),    cost = -log prior(Omega) + 1/2 log|information / 2 pi|

with the expected information of n rows about Omega at a known phi, which is in rho. A kind of noise
is one class in one registry: its metric, its cost, its best for a second moment, and its arrays.
Where every row uses one atom, atoms can have noises of their own (`PerAtom`); what a model asks of
either is `RowNoise`.
"""

from reml_sae.families.noise._base import MARGIN, Noise, RowNoise, charged, nats
from reml_sae.families.noise._registry import (
    KINDS,
    NOISES,
    Factors,
    NoiseKind,
    OneOf,
    best_noise,
    held_kind,
    open_kinds,
    tells_factors,
)
from reml_sae.families.noise.diagonal import Diagonal
from reml_sae.families.noise.factor import Factor, most_rank
from reml_sae.families.noise.isotropic import Isotropic
from reml_sae.families.noise.per_atom import PerAtom

__all__ = [
    "KINDS",
    "MARGIN",
    "NOISES",
    "Diagonal",
    "Factor",
    "Factors",
    "Isotropic",
    "Noise",
    "NoiseKind",
    "OneOf",
    "PerAtom",
    "RowNoise",
    "best_noise",
    "charged",
    "held_kind",
    "most_rank",
    "nats",
    "open_kinds",
    "tells_factors",
]
