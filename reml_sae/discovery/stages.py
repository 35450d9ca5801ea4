"""Where a search is: what it does now, the how manieth of how many, and how long these still take.

A search cannot know how long it will take. It knows so of things that it does one after the other,
such as starts: by the mean time of those that are done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger("reml_sae")


@dataclass(frozen=True)
class Stage:
    """What a search does now.

    Attributes
    ----------
    name : str
    number, count : int
        The how manieth of how many, from 1; 0 where it is none of several, or of nobody knows how
        many.
    seconds_left : float or None
        Until the last of them is done, by those that are; None before the second.
    """

    name: str
    number: int = 0
    count: int = 0
    seconds_left: float | None = None

    def __str__(self) -> str:
        text = self.name + (f" {self.number}" if self.number else "")
        text += f" of {self.count}" if self.count else ""
        left = self.seconds_left
        return text if left is None or left < 1.0 else f"{text}, about {left:.0f} s left of these"


class Stages:
    """Tells the log, and who else listens, of the stages of one search.

    Parameters
    ----------
    listener : callable, optional
        Called with every `Stage`.
    """

    def __init__(self, listener: Callable[[Stage], object] = lambda _: None):
        self._listener = listener
        self._begun: dict[str, float] = {}

    def enter(self, name: str, number: int = 0, count: int = 0) -> None:
        """Say what is done from here on."""
        now, left = time.monotonic(), None
        if number <= 1:
            self._begun[name] = now
        elif count:
            mean = (now - self._begun.get(name, now)) / (number - 1)
            left = mean * (count - number + 1)
        stage = Stage(name, number, count, left)
        logger.info("%s", stage)
        self._listener(stage)
