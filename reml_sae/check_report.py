"""What checks of a user's own penalty or topology say, and the differences they are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reml_sae.typing import Array

STEP = 1e-4
SMALLEST = 1e-3
"""Size below which an error is not taken relatively."""


@dataclass(frozen=True)
class CheckReport:
    """Outcome of `check_penalty` or `check_manifold`.

    Attributes
    ----------
    figures : dict
        Worst relative error of every check, or the depth of a negative eigenvalue.
    tolerance : float
    """

    figures: dict[str, float]
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether every figure is within the tolerance."""
        return all(figure <= self.tolerance for figure in self.figures.values())

    def __str__(self) -> str:
        lines = [f"{'pass' if figure <= self.tolerance else 'FAIL'}  {name:<22} {figure:.2e}"
                 for name, figure in self.figures.items()]
        return "\n".join(lines)


def difference(function: Callable[[Array], float | Array], x: Array, v: Array) -> Array:
    """Derivative of a function at x along v, by central differences of fourth order."""
    # so that a step large enough for rounding is small enough for truncation
    def at(k: int) -> Array:
        return np.asarray(function(x + k * STEP * v))

    return np.asarray((8.0 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12.0 * STEP))


def relative_error(found: Array | float, expected: Array | float) -> float:
    """Largest difference over the largest size that is expected."""
    found, expected = np.asarray(found), np.asarray(expected)
    if not expected.size:
        return 0.0
    scale = max(SMALLEST, float(np.abs(expected).max()))
    return float(np.abs(found - expected).max()) / scale


def lowest_eigenvalue(matrix: Array) -> float:
    """Of the symmetric part."""
    return float(np.linalg.eigvalsh(0.5 * (matrix + matrix.T))[0])
