"""Planted generators and the bundled real data."""

from reml_sae.datasets.calendar import WEEKDAYS, Calendar, load_dates, load_weekdays
from reml_sae.datasets.planted import (
    Planted,
    planted_circles,
    planted_mixed_rows,
    planted_mixture,
)

__all__ = [
    "WEEKDAYS",
    "Calendar",
    "Planted",
    "load_dates",
    "load_weekdays",
    "planted_circles",
    "planted_mixed_rows",
    "planted_mixture",
]
