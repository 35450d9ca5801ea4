"""How a command of the command line ended."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """What `reml-sae` returns to the shell."""

    DONE = 0
    BAD_INPUT = 2
    NOT_CONVERGED = 3
    INTERRUPTED = 130
