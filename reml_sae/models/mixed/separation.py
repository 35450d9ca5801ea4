"""Separation: directions of the fixed effects in which the likelihood has no maximum.

Observations whose loss falls for ever as eta goes one way (0 and n successes out of n; counts of 0)
leave a direction d of the coefficients open where

    s_i x_i^T d >= 0  with s_i = -1 or 1,      x_i^T d = 0  for all other observations,     X d != 0

(Albert and Anderson 1984, Biometrika 71, 1; for counts, Correia, Guimaraes and Zylkin 2019). Along
d no loss rises, so that the likelihood is largest at infinity, and with a flat prior its integral
diverges. Random effects with a proper prior do not change that. Such directions are a cone, in
which a linear programme finds the one that moves most observations (Konis 2007).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr
from scipy.optimize import linprog

from reml_sae.errors import InnerConvergenceError
from reml_sae.typing import Array

VIOLATION = 1e-6
"""Largest step of eta the wrong way, as a share of the largest one, that is rounding."""
RANK_TOLERANCE = 1e-9
ROWS = 20
"""As many observations for each column enter the linear programme at a time."""


def separating_columns(
    X: Array, side: NDArray[np.int8], names: Sequence[str]
) -> tuple[str, ...]:
    """Names of the columns whose coefficients have no finite estimate; empty for sound data.

    Parameters
    ----------
    X : (n, m) array
        Columns without a proper prior, linearly independent.
    side : (n,) array
        s_i, as in `Family.open_side`.
    names : sequence of str
        Of the columns; one may occur several times.
    """
    moved = _moved(X, side)
    if not moved.any():
        return ()
    # a column that the separation of these observations does not need has no part in it
    kept = np.ones(X.shape[1], bool)
    for j in range(X.shape[1]):
        kept[j] = False
        if not (_moved(X[:, kept], side) >= moved).all():
            kept[j] = True
    return tuple(dict.fromkeys(name for name, keep in zip(names, kept, strict=True) if keep))


def separation_message(columns: Sequence[str]) -> str:
    """What separation by these columns means and what to do; empty where there is none."""
    if not columns:
        return ""
    return (f"{', '.join(columns)} separate{'s' if len(columns) == 1 else ''} the data: the "
            "likelihood rises for ever as coefficients there go to infinity, which have no finite "
            "estimate, and a restricted likelihood diverges; drop the column, merge its level with "
            "another, or give it a prior with a Smooth")


def _moved(X: Array, side: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Observations whose eta goes to infinity in some direction of the cone, (n,)."""
    found = np.zeros(len(X), bool)
    is_open = side != 0
    free = X @ _null_space(X[~is_open]) if is_open.any() else X[:, :0]
    if not free.shape[1]:
        return found
    signed = side[is_open, None] * free[is_open]
    # an orthonormal basis, times a scale at which the mean square of a row's step is |q|^2
    basis = np.linalg.qr(signed)[0] * np.sqrt(len(signed))
    cone, rest = _Cone(basis), np.ones(len(signed), bool)
    while rest.any():
        step = cone.longest(rest)
        new = rest & (step > 0.0)
        if not new.any():
            break
        rest &= ~new
    found[is_open] = ~rest
    return found


class _Cone:
    """Directions q with ``basis @ q >= 0``; only the rows that bind enter the programme.

    Parameters
    ----------
    basis : (n, k) array
        Of mean square 1.
    """

    def __init__(self, basis: Array):
        self.basis = basis
        first = np.linspace(0, len(basis) - 1, min(len(basis), ROWS * basis.shape[1]))
        self._binding = np.zeros(len(basis), bool)
        self._binding[first.astype(np.intp)] = True

    def longest(self, rows: NDArray[np.bool_]) -> Array:
        """Steps (n,) of the direction in the unit box that moves the given rows most, >= 0."""
        gain = self.basis[rows].sum(axis=0)
        while True:
            inside = self.basis[self._binding]
            outcome = linprog(-gain, A_ub=-inside, b_ub=np.zeros(len(inside)),
                              bounds=(-1.0, 1.0), method="highs")
            if outcome.x is None:
                raise InnerConvergenceError(
                    f"the linear programme that looks for separation failed: {outcome.message}")
            # in a cone the longest step is 0 or ends at the box, where its mean square is 1 or more
            if np.abs(outcome.x).max() < 0.5:
                return np.zeros(len(self.basis))
            step = self.basis @ outcome.x
            rounding = VIOLATION * float(np.abs(step).max())
            wrong = np.flatnonzero((step < -rounding) & ~self._binding)
            if not wrong.size:
                if step.min() < -rounding:
                    return np.zeros(len(self.basis))
                return np.where(step > rounding, step, 0.0)
            worst = wrong[np.argsort(step[wrong])[: ROWS * self.basis.shape[1]]]
            self._binding[worst] = True


def _null_space(rows: Array) -> Array:
    """Basis (m, k) of the directions that move none of the rows (r, m)."""
    m = rows.shape[1]
    norms = np.linalg.norm(rows, axis=0)
    unit = np.where(norms > 0.0, norms, 1.0)
    R = qr(rows / unit, mode="r")[0][:m] if len(rows) else np.zeros((0, m))
    values, right = np.linalg.svd(R)[1:]
    rank = int((values > RANK_TOLERANCE * max(float(values.max(initial=0.0)), 1.0)).sum())
    return np.asarray(right[rank:].T / unit[:, None], float)
