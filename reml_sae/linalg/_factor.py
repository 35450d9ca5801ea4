"""What a factorised arrow matrix answers, whatever its structure."""

from __future__ import annotations

from typing import Protocol

from reml_sae.typing import Array


class Factor(Protocol):
    """A factor of a symmetric positive definite H; vectors are pairs (rows, border)."""

    def solve(self, g_rows: Array, g_border: Array) -> tuple[Array, Array]:
        """Solve H x = g."""
        ...

    def logdet(self) -> float:
        """Log-determinant of H."""
        ...
