"""Real activations: dates and weekdays in a sentence encoder."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from reml_sae.typing import Array

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, eq=False, repr=False)
class Calendar:
    """Activations with what is known of their rows.

    Attributes
    ----------
    Z : (N, 384) array
    phase : (N,) array
        True place on the cycle, radians in [0, 2 pi).
    labels : (N,) int array
        Weekday (0 is Monday), or day of the year.
    groups : (N,) int array
        Sentence template; zeros for the dates, or 20 where they stand beside weekdays.
    is_weekday : (N,) bool
    description : str
    """

    Z: Array
    phase: Array
    labels: NDArray[np.intp]
    groups: NDArray[np.intp]
    is_weekday: NDArray[np.bool_]
    description: str

    def __repr__(self) -> str:
        return f"<Calendar of {len(self.Z)} rows, {self.Z.shape[1]} columns: {self.description}>"


def load_weekdays(center_templates: bool = True) -> Calendar:
    """Seven weekdays in twenty sentence templates, (140, 384).

    Parameters
    ----------
    center_templates : bool
        Take the mean of each template out, so that the weekday is what remains.
    """
    with _open() as data:
        Z = data["weekdays"].astype(np.float64)
        labels = data["weekdays_label"].astype(np.intp)
        groups = data["weekdays_template"].astype(np.intp)
    if center_templates:
        counts = np.bincount(groups)
        means = np.zeros((counts.size, Z.shape[1]))
        np.add.at(means, groups, Z)
        Z = Z - (means / counts[:, None])[groups]
    return Calendar(Z, 2.0 * np.pi * labels.astype(np.float64) / 7.0, labels, groups,
                    np.ones(len(Z), bool),
                    "weekdays in a sentence encoder (all-MiniLM-L6-v2), not a causal model")


def load_dates() -> Calendar:
    """The 365 days of the year in one sentence, (365, 384)."""
    with _open() as data:
        Z = data["dates"].astype(np.float64)
        phase = np.mod(data["dates_phase"].astype(np.float64), 2.0 * np.pi)
    days = np.arange(len(Z))
    return Calendar(Z, phase, days, np.zeros(len(Z), np.intp),
                    np.zeros(len(Z), bool),
                    "dates in a sentence encoder (all-MiniLM-L6-v2), not a causal model")


def calendar_mixed(center: bool = True) -> Calendar:
    """Weekdays, then dates, in one matrix (505, 384): two cycles in one dictionary.

    Both come from the same encoder with the same width, so the rows compare as they are.

    Parameters
    ----------
    center : bool
        Take out the mean of each weekday template and of the dates, so that both cycles lie about
        the origin (mean length of a row 4.9 and 4.7); otherwise the sentence dominates.
    """
    week, year = load_weekdays(center), load_dates()
    groups = np.concatenate([week.groups, np.full(len(year.Z), week.groups.max() + 1)])
    Z = np.concatenate([week.Z, year.Z - year.Z.mean(axis=0) if center else year.Z])
    return Calendar(Z, np.concatenate([week.phase, year.phase]),
                    np.concatenate([week.labels, year.labels]), groups,
                    np.concatenate([week.is_weekday, year.is_weekday]),
                    "weekdays and dates in a sentence encoder (all-MiniLM-L6-v2), not a causal "
                    "model")


def _open() -> np.lib.npyio.NpzFile:
    path = files("reml_sae.datasets") / "data" / "minilm_calendar.npz"
    return np.load(str(path), allow_pickle=False)
