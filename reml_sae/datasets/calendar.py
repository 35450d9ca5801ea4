"""Real activations: dates and weekdays in a sentence encoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
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
        Sentence template; zeros for the dates.
    description : str
    """

    Z: Array
    phase: Array
    labels: NDArray[np.intp]
    groups: NDArray[np.intp]
    description: str = field(repr=False)


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
                    "weekdays in a sentence encoder (all-MiniLM-L6-v2), not a causal model")


def load_dates() -> Calendar:
    """The 365 days of the year in one sentence, (365, 384)."""
    with _open() as data:
        Z = data["dates"].astype(np.float64)
        phase = np.mod(data["dates_phase"].astype(np.float64), 2.0 * np.pi)
    days = np.arange(len(Z))
    return Calendar(Z, phase, days, np.zeros(len(Z), np.intp),
                    "dates in a sentence encoder (all-MiniLM-L6-v2), not a causal model")


def _open() -> np.lib.npyio.NpzFile:
    path = files("reml_sae.datasets") / "data" / "minilm_calendar.npz"
    return np.load(str(path), allow_pickle=False)
