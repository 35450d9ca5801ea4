"""Checks of a fit by sweeps, from what one pass over its rows has left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from reml_sae.diagnostics import Check, Diagnostics
from reml_sae.diagnostics.checks import HIGH_COSINE, check_coverage, check_occupancy, check_tangent
from reml_sae.diagnostics.noise import LEVEL, NoiseAccount
from reml_sae.engine import REMLTrace
from reml_sae.estimators._results import Atom
from reml_sae.estimators._sparse_codes import SparseCodes
from reml_sae.io import named_rows
from reml_sae.typing import Array


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
            slopes = atom.topology.jet(t, 1)[1] @ atom.coefficients
            checks.append(check_tangent(k, slopes, atom.topology.intrinsic_dim))
    explained = 1.0 - found.unexplained
    account = NoiseAccount(phi, explained, 0.0, 0.0, 0.0, "", False)
    checks += [_duplicates(atoms), _undescribed(found, atoms),
               Check("noise", "pass", 0.0, "isotropic; sweeps have no other kind, and none was "
                     "tried")]
    figures: dict[str, float | int | str] = {
        "V": criterion, "explained variance": explained, "rows with many atoms": 0}
    return Diagnostics(tuple(checks), figures, trace, account)


def _duplicates(atoms: Sequence[Atom]) -> Check:
    """As the check of a search: atoms with one centre in one span, by their weakest direction."""
    worst, pair = 0.0, "none"
    bases = [_base(atom.coefficients[1:]) for atom in atoms]
    centres = np.stack([atom.coefficients[0] for atom in atoms])
    sizes = np.array([np.linalg.norm(atom.coefficients) for atom in atoms])
    for j, base in enumerate(bases):
        near = np.linalg.norm(centres[j + 1:] - centres[j], axis=1) < 0.2 * sizes[j]
        for i in j + 1 + np.flatnonzero(near):
            if len(base) and len(bases[i]):
                cosine = float(np.linalg.svd(base @ bases[i].T, compute_uv=False).min())
                if cosine > worst:
                    worst, pair = cosine, f"atoms {j} and {i}"
    return Check("duplicate atoms", "warn" if worst > HIGH_COSINE else "pass", worst,
                 f"largest subspace cosine: {pair}")


def _base(curve: Array) -> Array:
    """Orthonormal rows (r, p) of the main directions of a curve's decoder."""
    _, s, vt = np.linalg.svd(curve, full_matrices=False)
    return np.asarray(vt[s > 0.2 * s.max(initial=0.0)])


def _undescribed(found: SweptRows, atoms: Sequence[Atom]) -> Check:
    """Rows whose residual is out of proportion under the fitted noise."""
    dims = np.array([atom.topology.intrinsic_dim for atom in atoms])
    freedom = np.maximum(atoms[0].coefficients.shape[1] - dims[found.codes.labels], 1)
    tail = chi2.logsf(found.distances, freedom)
    index = np.flatnonzero(tail < np.log(LEVEL / len(tail)))
    index = index[np.argsort(-found.distances[index], kind="stable")]
    if not index.size:
        return Check("rows not described", "pass", 0.0,
                     "none: no row is farther from its curves than noise")
    return Check("rows not described", "warn", float(index.size),
                 f"{named_rows(index, len(tail))} farther from the curves than noise: look at "
                 "them; drop them, or fit more atoms if they have something in common",
                 tuple(map(int, index[:1000])))
