"""Atoms, and the predictor that they and codes make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from reml_sae.assignments import Assignment
from reml_sae.errors import InputError
from reml_sae.manifolds import Manifold
from reml_sae.typing import Array


@dataclass(frozen=True, eq=False, repr=False)
class Atom:
    """One fitted curved atom, in the units of the data.

    Attributes
    ----------
    topology : Manifold
    coefficients : (M_k, p) array
        Decoder. On the simplex the first row is the atom's centre in data space; under gates
        everything is relative to the model's ``intercept_``.
    edf : float
        Effective degrees of freedom of the decoder, at most M_k p.
    evidence : float
        Nats of V that the atom's curve earns over its centre alone, at the fitted codes of the
        other atoms and the fitted outer parameters; larger is better.
    evidence_per_row : float
        The same over the number of rows that use the atom, of a mixture most; nan where there are
        none.
    over_flat : float or None
        Nats a row by which V rises with the best flat in the place of the curve, on the atom's own
        rows; below zero the curve is not needed. None where the atom is flat itself; nan where that
        was not tried.
    share : float
        Mean assignment of the rows to the atom.
    covariance : (p, M_k, M_k) array
        Posterior covariance of the coefficients of every output.
    """

    topology: Manifold
    coefficients: Array
    edf: float
    evidence: float
    evidence_per_row: float
    over_flat: float | None
    share: float
    covariance: Array

    def __repr__(self) -> str:
        return (f"<Atom {self.topology.label}: share {self.share:.3g}, edf {self.edf:.4g}, "
                f"evidence {self.evidence:.4g} nats>")

    def curve(self, t: Array) -> Array:
        """Points (n, p) of the atom at coordinates (n, d), or (n,) where d = 1."""
        return self.topology.basis(self._coordinates(t)) @ self.coefficients

    def band(self, t: Array, level: float = 0.95) -> tuple[Array, Array]:
        """Pointwise posterior band of the curve at coordinates (n, d).

        Parameters
        ----------
        t : (n, d) or (n,) array
        level : float in (0, 1)

        Returns
        -------
        lower, upper : (n, p) arrays
        """
        if not 0.0 < level < 1.0:
            raise InputError(f"level must lie in (0, 1), got {level!r}")
        basis = self.topology.basis(self._coordinates(t))
        variance = np.einsum("nm,omk,nk->no", basis, self.covariance, basis, optimize=True)
        half = ndtri(0.5 + 0.5 * level) * np.sqrt(np.maximum(variance, 0.0))
        centre = basis @ self.coefficients
        return centre - half, centre + half

    def _coordinates(self, t: Array) -> Array:
        t = np.asarray(t, float)
        d = self.topology.latent_dim
        if t.ndim == 1 and d == 1:
            t = t[:, None]
        if t.ndim != 2 or t.shape[1] != d:
            shapes = f"(n, {d}){' or (n,)' if d == 1 else ''}"
            raise InputError(f"t must have shape {shapes}, got {t.shape}")
        return t


def reconstruct(
    assignments: Array, coordinates: Sequence[Array], gates: NDArray[np.bool_],
    atoms: Sequence[Atom], intercept: Array, assignment: Assignment,
) -> Array:
    """Predictor of codes, (N, p), as in `models.sae.mixture`."""
    total = np.repeat(intercept[None], len(assignments), axis=0)
    centres = assignment.centres(gates)
    for k, atom in enumerate(atoms):
        basis = np.where(gates[:, [k]], atom.topology.basis(coordinates[k]),
                         atom.topology.prior_mean_basis())
        features = assignments[:, [k]] * basis
        if centres is not None:
            features[:, 0] = centres[:, k]
        total += features @ atom.coefficients
    return total
