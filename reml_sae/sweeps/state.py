"""What sweeps fit: decoders of atoms by kind, their strengths, noise and amplitudes.

A row of atom k is z ~ N(b_0 + c + exp(u) y(t), phi I) with the atom's constant c, its curve y
without it, t under the manifold's prior and u ~ N(0, 1 / alpha): the model of `topk` with one
active atom. The intercept b_0 is held, as constants say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reml_sae.manifolds import Manifold
from reml_sae.penalties import DecoderRidgePenalty
from reml_sae.typing import Array, Index


@dataclass(frozen=True, eq=False)
class SweepKind:
    """Atoms that share a manifold.

    Attributes
    ----------
    manifold : Manifold
    atoms : (k,) numbers among all atoms
    """

    manifold: Manifold
    atoms: Index

    @property
    def is_flat(self) -> bool:
        """Whether the atoms are lines, planes and so on, whose coordinates are Gaussian."""
        return self.manifold.is_flat and self.manifold.latent_dim > 0

    @cached_property
    def penalties(self) -> Array:
        """Matrices (s, M, M) of a decoder's penalties: its size, and its roughness if it has one.

        In the order of the default penalties of the arrow model; a point has none.
        """
        M, S = self.manifold.basis_size, self.manifold.roughness()
        size = [DecoderRidgePenalty(functions=M).matrix()] if M > 1 else []
        return np.array(size + [S] * (S is not None)).reshape(-1, M, M)


def kinds_of_atoms(atoms: Sequence[Manifold]) -> tuple[SweepKind, ...]:
    """Atoms by manifold, in the order in which manifolds first come."""
    return tuple(
        SweepKind(manifold, np.array([k for k, atom in enumerate(atoms) if atom == manifold]))
        for manifold in dict.fromkeys(atoms))


@dataclass(frozen=True, eq=False)
class SweepState:
    """The parameters that all rows share.

    Attributes
    ----------
    kinds : tuple of SweepKind
    decoders : tuple of (k, M, p) arrays
        Of the atoms of every kind, in the units of the rows.
    strengths : tuple of (k, s) arrays
        Of their penalties.
    dispersion : float
        phi.
    amplitude_precision : float
        alpha.
    """

    kinds: tuple[SweepKind, ...]
    decoders: tuple[Array, ...]
    strengths: tuple[Array, ...]
    dispersion: float
    amplitude_precision: float

    @property
    def n_atoms(self) -> int:
        """K."""
        return sum(len(kind.atoms) for kind in self.kinds)

    def decoder(self, k: int) -> Array:
        """Decoder (M, p) of an atom."""
        kind, decoders = next((kind, own) for kind, own in zip(
            self.kinds, self.decoders, strict=True) if k in kind.atoms)
        return np.asarray(decoders[int(np.flatnonzero(kind.atoms == k)[0])], float)
