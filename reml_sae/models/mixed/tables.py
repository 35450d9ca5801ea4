"""Random effects and predictions of a fitted mixed model, as tables that print shortly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import require
from reml_sae.typing import Array

SHOWN = 10
"""Rows of a table that are printed."""


@dataclass(frozen=True, eq=False, repr=False)
class RandomEffects:
    """Conditional modes of the random effects; ``print`` shows the first groups.

    Attributes
    ----------
    labels : (G,) array
        The groups.
    names : tuple of str
        Names of the q effects.
    values : (G, q) array
    conditional_sds : (G, q) array
        Given the fixed effects and smooths, as lme4 reports them.
    sds : (G, q) array
        With the uncertainty of the coefficients.
    """

    labels: NDArray[Any]
    names: tuple[str, ...]
    values: Array
    conditional_sds: Array
    sds: Array

    def _columns(self) -> dict[str, Array]:
        out: dict[str, Array] = {}
        for name, value, sd in zip(self.names, self.values.T, self.conditional_sds.T, strict=True):
            out |= {name: value, f"sd[{name}]": sd}
        return out

    def to_frame(self) -> Any:
        """Pandas data frame, a row a group: every effect and its conditional sd.

        Raises
        ------
        MissingDependencyError
            Where pandas is not installed.
        """
        pandas = require("pandas", "frames", "RandomEffects.to_frame")
        return pandas.DataFrame(self._columns(), index=self.labels)

    def __str__(self) -> str:
        return _table(self.labels, self._columns(), "groups")

    __repr__ = __str__


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """Predictions for new observations; ``print`` shows the first.

    Attributes
    ----------
    eta : (n,) array
        Linear predictor.
    se : (n,) array
        Its posterior standard deviation.
    mean : (n,) array
        Expected response; of one trial where the family is binomial.
    lower, upper : (n,) arrays or None
        Ends of the interval that was asked for, on the scale of the response.
    """

    eta: Array
    se: Array
    mean: Array
    lower: Array | None = None
    upper: Array | None = None

    def band(self, z: float = 1.959963984540054) -> tuple[Array, Array]:
        """Lower and upper end of eta +- z se, (n,) each."""
        return self.eta - z * self.se, self.eta + z * self.se

    def _columns(self) -> dict[str, Array]:
        columns = {"eta": self.eta, "se": self.se, "mean": self.mean}
        if self.lower is not None and self.upper is not None:
            columns |= {"lower": self.lower, "upper": self.upper}
        return columns

    def to_frame(self) -> Any:
        """Pandas data frame, a row an observation.

        Raises
        ------
        MissingDependencyError
            Where pandas is not installed.
        """
        return require("pandas", "frames", "Prediction.to_frame").DataFrame(self._columns())

    def __str__(self) -> str:
        return _table(np.arange(len(self.eta)), self._columns(), "observations")

    __repr__ = __str__


def _table(labels: NDArray[Any], columns: Mapping[str, Array], what: str) -> str:
    """The first rows of columns under their names, and how many more there are."""
    rows: list[Sequence[str]] = [["", *columns]]
    for i, label in enumerate(labels[:SHOWN]):
        rows.append([str(label), *(f"{column[i]:.5g}" for column in columns.values())])
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]),
                        *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:],
                                                                   strict=True))])
             for row in rows]
    more = len(labels) - SHOWN
    return "\n".join([*lines, *([f".. and {more} more {what}"] if more > 0 else [])])
