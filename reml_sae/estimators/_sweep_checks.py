"""Checks of a fit by sweeps, from what one pass over its rows has left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from reml_sae.diagnostics import Check, Diagnostics
from reml_sae.diagnostics.checks import (
    check_coverage,
    check_duplicates,
    check_occupancy,
    check_tangent,
)
from reml_sae.diagnostics.noise import NoiseAccount, check_distances
from reml_sae.engine import REMLTrace
from reml_sae.estimators._results import Atom
from reml_sae.estimators._sparse_codes import SparseCodes
from reml_sae.typing import Array

MOST_NAMED = 1000
"""Rows that a check names."""


@dataclass(frozen=True, eq=False)
class SweptRows:
    """What a pass over the rows says of them, in the units of the engine.

    Attributes
    ----------
    codes : SparseCodes
    evidence : (K,) nats that every atom's curve earns over its centre
    amplitudes : (K,) sums of the amplitudes of its rows
    distances : (N,) squared lengths of what curves leave over phi
    unexplained : float
        Mean square of an entry of the residuals; that of the rows is one.
    """

    codes: SparseCodes
    evidence: Array
    amplitudes: Array
    distances: Array
    unexplained: float

    @property
    def n_rows(self) -> int:
        """N."""
        return len(self.distances)


def swept_diagnostics(
    found: SweptRows, atoms: Sequence[Atom], criterion: float, phi: float, settled: bool,
    message: str, trace: REMLTrace,
) -> Diagnostics:
    """The checks of `diagnostics.diagnose` that need no array of all rows and atoms."""
    codes = found.codes
    counts = np.bincount(codes.labels, minlength=len(atoms))
    lost = int((~codes.converged).sum())
    checks = [
        Check("outer convergence", "pass" if settled else "fail", float(len(trace)), message),
        Check("rows at their modes", "pass" if lost <= 0.001 * len(codes) else "warn", float(lost),
              f"rows of {len(codes)} whose codes are at no minimum"),
    ]
    order = np.argsort(codes.labels, kind="stable")
    ends = np.cumsum(counts)
    for k, atom in enumerate(atoms):
        rows = order[ends[k] - counts[k]:ends[k]]
        checks.append(check_occupancy(k, int(counts[k]), len(codes)))
        if len(rows):
            t = codes.points[rows, :atom.topology.latent_dim]
            checks.append(check_coverage(k, atom.topology, t))
            # lengths are those within the span of the decoder
            span = np.linalg.qr(atom.coefficients.T)[1].T
            slopes = atom.topology.jet(t, 1)[1] @ span
            checks.append(check_tangent(k, slopes, atom.topology.intrinsic_dim))
    explained = 1.0 - found.unexplained
    account = NoiseAccount(phi, explained, 0.0, 0.0, 0.0, "", False)
    checks += [check_duplicates([atom.coefficients for atom in atoms]), _undescribed(found, atoms),
               Check("noise", "pass", 0.0, "isotropic; sweeps have no other kind, and none was "
                     "tried")]
    figures: dict[str, float | int | str] = {
        "V": criterion, "explained variance": explained, "rows with many atoms": 0}
    return Diagnostics(tuple(checks), figures, trace, account)


def _undescribed(found: SweptRows, atoms: Sequence[Atom]) -> Check:
    """`check_distances` of the rows, of which not all are kept."""
    dims = np.array([atom.topology.intrinsic_dim for atom in atoms])
    p = atoms[0].coefficients.shape[1]
    check = check_distances(found.distances, p - dims[found.codes.labels])
    return replace(check, rows=check.rows[:MOST_NAMED])
