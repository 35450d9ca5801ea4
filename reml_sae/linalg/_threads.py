"""One BLAS thread for whatever the package computes, and the caller's own number afterwards.

The matrices are small and two BLAS pools spin against each other; one thread is also what makes the
bits the same everywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

P = ParamSpec("P")
R = TypeVar("R")


def single_threaded(function: Callable[P, R]) -> Callable[P, R]:
    """The function with every BLAS and OpenMP pool held to one thread while it runs."""
    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with _pools(len(sys.modules)).limit(limits=1):
            return function(*args, **kwargs)

    return limited


@lru_cache(maxsize=1)
def _pools(n_modules: int) -> ThreadpoolController:
    """The pools of all libraries that are loaded, looked for anew where modules have been imported.

    To look takes 3 ms, and an import is what loads a library: CHOLMOD's, within a fit.
    """
    return ThreadpoolController()
