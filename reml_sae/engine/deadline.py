"""When a fit must end: `Deadline`, and what is raised once it has passed.

A Newton step in progress is finished; time is looked at between steps. So is Ctrl-C while
`stops_on_interrupt` lasts: Python would raise it at any place, and what a search holds there would
be lost.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from reml_sae.engine.status import OuterStatus


class Stopped(KeyboardInterrupt):
    """A deadline has passed: what keeps the best state at an interrupt keeps it here.

    Attributes
    ----------
    status : OuterStatus
        ``OUT_OF_TIME`` or ``INTERRUPTED``.
    """

    def __init__(self, status: OuterStatus) -> None:
        super().__init__(status.value)
        self.status = status


def reason(stop: KeyboardInterrupt) -> OuterStatus:
    """Why a loop was stopped."""
    return stop.status if isinstance(stop, Stopped) else OuterStatus.INTERRUPTED


@dataclass(frozen=True)
class Deadline:
    """A moment on the clock of `time.monotonic`, or that of an interrupt.

    Attributes
    ----------
    at : float or None
        None where there is no limit.
    interrupt : threading.Event
        Set once the user has asked for an end.
    sharp : bool
        Whether what ends at it may end without any state, which nobody needs.
    """

    at: float | None = None
    interrupt: threading.Event = field(default_factory=threading.Event)
    sharp: bool = False

    @classmethod
    def within(cls, seconds: float | None) -> Deadline:
        """So many seconds from now."""
        return cls(None if seconds is None else time.monotonic() + seconds)

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.interrupt.is_set() or (self.at is not None and time.monotonic() >= self.at)

    @property
    def status(self) -> OuterStatus:
        """How what ends at it ends."""
        return OuterStatus.INTERRUPTED if self.interrupt.is_set() else OuterStatus.OUT_OF_TIME

    def check(self) -> None:
        """Raise `Stopped` where no time is left."""
        if self.passed:
            raise Stopped(self.status)

    @contextmanager
    def stops_on_interrupt(self) -> Iterator[None]:
        """Take a first Ctrl-C for the end of time; a second one is raised where it comes.

        Only in the main thread, where Python handles signals, and where no other handler is set.
        """
        if (threading.current_thread() is not threading.main_thread()
                or signal.getsignal(signal.SIGINT) is not signal.default_int_handler):
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            if self.interrupt.is_set():
                signal.default_int_handler(number, frame)
            self.interrupt.set()

        signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
