"""Rows of extreme norm: few of them that hold much of the variance, as attention sinks do.

With r_i the distance of row i to the median of the columns and m the median of these, a row is
extreme where log(r_i / m) > max(6 s, log 5). The spread s of the log norms above the median is read
off their 90 % quantile as if they were normal, so that rows whose norms vary widely by themselves
(log-normal amplitudes, heavy tails) set their own scale. They matter where they are few and hold a
good part of the variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from reml_sae.typing import Array, Index

UPPER = 0.9
"""Quantile of the norms that gives their spread: below it are rows that are not extreme."""
LEAST_SPREADS, LEAST_RATIO = 6.0, 5.0
"""Spreads by which the log norm of an extreme row exceeds the median's, and times the median."""
LEAST_SHARE, MOST_ROWS = 0.25, 0.05
"""Share of the variance that extreme rows hold at least, and share of the rows that they are."""
SHOWN = 10


@dataclass(frozen=True, eq=False)
class ExtremeRows:
    """Rows of extreme norm.

    Attributes
    ----------
    index : (m,) int array
        The longest first.
    n_rows : int
        Of the matrix.
    share : float
        Of the variance about the medians of the columns.
    ratio : float
        Median norm of these rows over that of all.
    """

    index: Index
    n_rows: int
    share: float
    ratio: float

    def message(self) -> str:
        """What they are and what to do."""
        one = len(self.index) == 1
        return (f"{named_rows(self.index, self.n_rows)} hold{'s' if one else ''} {self.share:.0%} "
                f"of the variance, at {self.ratio:.3g} times the median norm: the atoms and the "
                f"noise would be {'its' if one else 'theirs'}. Drop "
                f"{'it' if one else 'them'}, rescale rows, for example to unit norm, or fit with "
                "row_noise='student_t'")


def named_rows(index: Index, n_rows: int) -> str:
    """Rows by number, the first few of them: "rows 3, 17 (2 of 120)"."""
    first = ", ".join(str(i) for i in index[:SHOWN])
    return (f"row{'s' if len(index) > 1 else ''} {first}{', ..' if len(index) > SHOWN else ''} "
            f"({len(index)} of {n_rows})")


def extreme_rows(Z: Array) -> ExtremeRows | None:
    """Rows of a matrix (N, p) that are extreme; None where there are none that matter."""
    apart = Z - np.median(Z, axis=0)
    size = np.abs(apart).max(initial=0.0)
    if not size > 0.0:
        return None
    norms = np.sqrt(((apart / size) ** 2).sum(axis=1))
    median = max(float(np.median(norms)), float(np.finfo(float).tiny))
    spread = np.log(max(float(np.quantile(norms, UPPER)), median) / median) / ndtri(UPPER)
    least = max(LEAST_SPREADS * spread, np.log(LEAST_RATIO))
    order = np.argsort(-norms, kind="stable")
    index = order[: int((np.log(np.maximum(norms, median) / median) > least).sum())]
    if not 0 < len(index) <= MOST_ROWS * len(Z):
        return None
    share = float((norms[index] ** 2).sum() / (norms**2).sum())
    if share < LEAST_SHARE:
        return None
    return ExtremeRows(index, len(Z), share, float(np.median(norms[index])) / median)
