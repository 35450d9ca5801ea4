"""The rows of a fit as the report sees them: who uses what, what is left, and their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError
from reml_sae.families import get_family
from reml_sae.typing import Array

LONGEST_LABEL = 160


@dataclass(frozen=True)
class RowsOfFit:
    """A fitted model and its training rows, where they are at hand.

    Attributes
    ----------
    model : fitted SAEManifold
    Z : (N, p) array or None
    labels : sequence of N str, or None
    """

    model: Any
    Z: Array | None
    labels: Sequence[str] | None

    def __post_init__(self) -> None:
        n = len(self.model.codes_)
        if self.labels is not None and len(self.labels) != n:
            raise InputError(f"labels has {len(self.labels)} texts, the fit has {n} rows; give one "
                             "text a row, in the order of the rows")

    @cached_property
    def users(self) -> NDArray[np.bool_]:
        """Rows and atoms (N, K) where the row counts as one of the atom's."""
        codes = self.model.codes_
        users: NDArray[np.bool_] = self.model.assignment_.users(codes.assignments, codes.gates)
        return users

    @cached_property
    def residual(self) -> Array | None:
        """What the fit leaves of the rows (N, p), in their units."""
        return None if self.Z is None else self.Z - self.model.reconstruct(self.model.codes_)

    def without_others(self, k: int, rows: NDArray[np.intp]) -> Array | None:
        """Rows (n, p) as atom k sees them, without the other atoms; None where it has no data.

        Curves of families but the Gaussian are on the scale of a link, where rows have no place.
        """
        if self.residual is None or not get_family(self.model.family).has_dispersion:
            return None
        assert self.Z is not None
        if self.model.assignment_.is_mixture:
            return self.Z[rows]
        codes, atom = self.model.codes_, self.model.atoms_[k]
        points: Array = atom.topology.basis(codes.coordinates[k][rows]) @ atom.coefficients
        return points + self.residual[rows] / codes.assignments[rows, k][:, None]

    def label(self, row: int) -> str:
        """The user's text of a row, shortened; empty where there is none."""
        if self.labels is None:
            return ""
        text = str(self.labels[row])
        return text if len(text) <= LONGEST_LABEL else f"{text[:LONGEST_LABEL - 2]}.."
