"""How a search over rho ended."""

from __future__ import annotations

from enum import Enum

NEGLIGIBLE = 1e-3
"""Fall of V, in nats, that is not worth a step."""


class OuterStatus(Enum):
    """Why a search ended, as a sentence."""

    STATIONARY = "the gradient of the criterion is below tolerance"
    FLAT = f"the criterion can fall by less than {NEGLIGIBLE:g} nats"
    CREASE = ("the criterion is least at a crease, where the data cease to hold an atom: it can "
              f"fall by less than {NEGLIGIBLE:g} nats")
    ROUGH = "the fit is rough: it ends with its Fellner-Schall steps"
    SPENT = "the outer iteration budget ran out; raise max_outer"
    STALLED = "the outer search stalled: V fell no further, but its gradient has not vanished"
    NO_MODE = "the inner solve did not converge"
    FAILED = "the search stopped at its best state"
    NO_OPTIMUM = "V has no optimum where the search ended"
    TOO_FINE = "the noise has become too small for its rows to be integrated out"
    OUT_OF_TIME = "max_time ran out; the best state so far was kept"
    INTERRUPTED = "interrupted by the user; the best state so far was kept"

    @property
    def converged(self) -> bool:
        """Whether it ended at an optimum."""
        return self in (OuterStatus.STATIONARY, OuterStatus.FLAT, OuterStatus.CREASE)

    @property
    def interrupted(self) -> bool:
        """Whether it was stopped from outside: by the user, or by the clock."""
        return self in (OuterStatus.OUT_OF_TIME, OuterStatus.INTERRUPTED)
