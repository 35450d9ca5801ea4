"""How sweeps begin and end, with units and reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from reml_sae.sweeps.nodes import Fineness


@dataclass(frozen=True)
class SweepPolicy:
    """Sweeps over rows that use one atom each."""

    fineness: Fineness = field(default_factory=Fineness)
    n_candidates: int = 2
    """Count of atoms of a row, by a coarse score, whose evidence is compared."""
    reroute: int = 4
    """Count of sweeps after which a row looks at all atoms again: its candidates rarely change."""
    seed_rows: int = 64
    """Count of rows for every atom, from which seeds and first sweeps are."""
    seed_tries: int = 8
    """Count of rows that propose a seed, of which the best is taken."""
    seed_alike: float = 0.85
    """Share of what the best gained that others must still gain to be taken with it."""
    seed_apart: int = 32
    """Atoms without a seed for each that is taken: of few, others begin where the best does."""
    seed_steps: int = 2
    """Count of times at most that a seed is laid again through the rows that it explains best."""
    seed_share: float = 0.25
    """Share of an atom's rows that are near each other in a seed."""
    log_amplitudes: float = 2.0
    """Log precision of log amplitudes at first, as in other starts; the least on a sample."""
    most_seeded: int = 30
    """Count of sweeps of seed rows at most ..."""
    most_ranked: int = 6
    """... of which so many tell whether seeds are better than others."""
    most_repairs: int = 24
    """Count of times at most that atoms which rows hardly need begin again elsewhere."""
    most_failed: int = 6
    """Count of such times in a row that have gained nothing."""
    most_rounds: int = 3
    """Count of samples at most: one that knows no better ends the fit."""
    most_sweeps: int = 60
    """Count of sweeps of all rows at most."""
    n_encoded: int = 4
    """Count of atoms that are compared where a row is encoded."""
    row_steps: int = 30
    """Count of Newton steps of a row that is encoded, at most."""
    tol: float = 1e-3
    """Nats a row that the sweeps to come, by the shrink rate of the last gains, may still gain."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for an artifact."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        return cls(**{**values, "fineness": Fineness(**values["fineness"])})
