"""When a fit must end: `Deadline`, and what is raised once it has passed.

A step in progress is finished; time is looked at between steps.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from reml_sae.engine.status import OuterStatus


class OutOfTime(KeyboardInterrupt):
    """``max_time`` ran out: what keeps the best state when the user interrupts keeps it here."""

    def __init__(self) -> None:
        super().__init__(OuterStatus.OUT_OF_TIME.value)


def reason(stop: KeyboardInterrupt) -> OuterStatus:
    """Why a loop was stopped."""
    return OuterStatus.OUT_OF_TIME if isinstance(stop, OutOfTime) else OuterStatus.INTERRUPTED


@dataclass(frozen=True)
class Deadline:
    """A moment on the clock of `time.monotonic`; None where there is no limit."""

    at: float | None = None

    @classmethod
    def within(cls, seconds: float | None) -> Deadline:
        """So many seconds from now."""
        return cls(None if seconds is None else time.monotonic() + seconds)

    @property
    def left(self) -> float | None:
        """Seconds that are left, at least 0; None where there is no limit."""
        return None if self.at is None else max(self.at - time.monotonic(), 0.0)

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.left == 0.0

    def check(self) -> None:
        """Raise `OutOfTime` where no time is left."""
        if self.passed:
            raise OutOfTime
