"""One BLAS thread for whatever the package computes, and the caller's own number afterwards.

The matrices are small and two BLAS pools spin against each other; one thread is also what makes the
bits the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

P = ParamSpec("P")
R = TypeVar("R")


def single_threaded(function: Callable[P, R]) -> Callable[P, R]:
    """The function with every BLAS and OpenMP pool held to one thread while it runs."""
    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with threadpool_limits(1):
            return function(*args, **kwargs)

    return limited
