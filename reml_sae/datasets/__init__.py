"""Planted generators, scores of what a fit recovers of them, and the bundled real data."""

from reml_sae.datasets.calendar import (
    WEEKDAYS,
    Calendar,
    calendar_mixed,
    load_dates,
    load_weekdays,
)
from reml_sae.datasets.planted import (
    Planted,
    gaussian_control,
    planted_circles,
    planted_manifolds,
    planted_mixed_rows,
    planted_mixture,
)
from reml_sae.datasets.recovery import RecoveryScores, recovery_scores
from reml_sae.datasets.superposition import Superposition, superposed_manifolds

__all__ = [
    "WEEKDAYS",
    "Calendar",
    "Planted",
    "RecoveryScores",
    "Superposition",
    "calendar_mixed",
    "gaussian_control",
    "load_dates",
    "load_weekdays",
    "planted_circles",
    "planted_manifolds",
    "planted_mixed_rows",
    "planted_mixture",
    "recovery_scores",
    "superposed_manifolds",
]
