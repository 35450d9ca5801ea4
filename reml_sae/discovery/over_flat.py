"""What the curve of an atom is worth over a flat in its place.

For every atom V of two rough fits to the atom's own rows, as the others leave them (`local_rows`),
in the metric of the noise of the fit: of its own shape, from the rows' coordinates and its fitted
strengths, and of the best flat, from the rows' scores on their principal axes. Both are of the
default penalties.
"""

from __future__ import annotations

import logging

import numpy as np

from reml_sae.discovery.fitting import Fitted, Settings
from reml_sae.discovery.local import criterion_from, local_rows
from reml_sae.discovery.strengths import known_of_one
from reml_sae.manifolds import Euclidean
from reml_sae.relaxations.axes import principal_scores, sample_index
from reml_sae.typing import Array

logger = logging.getLogger("reml_sae")


def over_flat(
    fitted: Fitted, settings: Settings, rng: np.random.Generator
) -> list[float | None]:
    """Nats a row by which V rises with the best flat in the place of each atom.

    None of an atom that is flat itself; nan where its rows are too few to have a shape, where no
    fit of them is usable, and where time had run out or the user asked for an end.
    """
    out: list[float | None] = [None if atom.is_flat else np.nan for atom in fitted.model.atoms]
    settings.stages.enter("flats in the place of atoms")
    try:
        for k, atom in enumerate(fitted.model.atoms):
            if not atom.is_flat and not fitted.result.interrupted:
                out[k] = _rise(fitted, k, settings, rng)
    except KeyboardInterrupt:
        logger.warning("stopped while flats were compared with atoms; the fit itself is complete")
    return out


def _rise(fitted: Fitted, k: int, settings: Settings, rng: np.random.Generator) -> float:
    atom, policy = fitted.model.atoms[k], settings.policy
    rows, X = local_rows(fitted, k, policy)
    chosen = sample_index(len(rows), policy.move.flat_rows, rng)
    scores = principal_scores(X[chosen], policy.topology.most_columns)
    if not scores.size:
        return np.nan
    variances = np.mean(scores**2, axis=0)
    d = _best_dimension(variances, len(scores), min(atom.linear_dim, policy.move.most_flat))
    flat = criterion_from(scores, (scores / np.sqrt(variances))[:, :d], Euclidean(d, 1), settings)
    t = fitted.result.theta.xi[rows[chosen], fitted.model.coordinate_columns(k)]
    curved = criterion_from(scores, t, atom, settings, known_of_one(fitted, k))
    return (flat - curved) / len(scores) if np.isfinite([flat, curved]).all() else np.nan


def _best_dimension(variances: Array, n: int, most: int) -> int:
    """Dimensions of the flat that n rows of these variances along their axes (r,) ask for.

    By the largest likelihood (probabilistic PCA, Tipping and Bishop 1999) and Schwarz's criterion.
    """
    r = len(variances)

    def value(d: int) -> float:
        rest = (r - d) * np.log(variances[d:].mean()) if d < r else 0.0
        free = d * r - 0.5 * d * (d - 1)
        return float(n * (np.log(variances[:d]).sum() + rest) + free * np.log(n))

    return min(range(1, min(most, r) + 1), key=value)
