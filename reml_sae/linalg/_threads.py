"""One BLAS thread for whatever the package computes, and the caller's own number afterwards.

The matrices are small and two BLAS pools spin against each other; one thread is also what makes the
bits the same everywhere.

OpenMP has a number of threads for each thread that computes, OpenBLAS one for the process. Where
several threads of the caller compute at once, the first holds it and the last gives it back.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from threading import Lock
from typing import Any, ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

P = ParamSpec("P")
R = TypeVar("R")


def single_threaded(function: Callable[P, R]) -> Callable[P, R]:
    """The function with every BLAS and OpenMP pool held to one thread while it runs."""
    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        own, shared = _pools(len(sys.modules))
        with _SHARED.held(shared), own.limit(limits=1):
            return function(*args, **kwargs)

    return limited


class _Shared:
    """The pools of the process, at one thread while anyone computes."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.n_users = 0
        self.limits: list[tuple[ThreadpoolController, Any]] = []

    @contextmanager
    def held(self, pools: ThreadpoolController) -> Iterator[None]:
        """With those that are loaded by now; the last who leaves gives them all back."""
        with self.lock:
            if not self.limits or pools is not self.limits[-1][0]:
                _let_anyone(pools)
                self.limits.append((pools, pools.limit(limits=1)))
            self.n_users += 1
        try:
            yield
        finally:
            with self.lock:
                self.n_users -= 1
                while not self.n_users and self.limits:
                    pools, limit = self.limits.pop()
                    _let_anyone(pools)
                    limit.restore_original_limits()
                    _let_anyone(pools)


def _let_anyone(pools: ThreadpoolController) -> None:
    """Newer versions of threadpoolctl let one thread alone change pools, and tell no other."""
    for pool in pools.lib_controllers:
        getattr(pool, "clear_controlling_thread", lambda force: None)(force=True)


@lru_cache(maxsize=1)
def _pools(n_modules: int) -> tuple[ThreadpoolController, ThreadpoolController]:
    """Pools of this thread and of the process, looked for anew where modules have been imported.

    To look takes 3 ms, and an import is what loads a library: CHOLMOD's, within a fit.
    """
    pools = ThreadpoolController()
    shared = [pool["filepath"] for pool in pools.info()
              if pool["user_api"] == "blas" and pool["internal_api"] != "mkl"
              and pool.get("threading_layer") != "openmp"]
    own = [pool["filepath"] for pool in pools.info() if pool["filepath"] not in shared]
    return pools.select(filepath=own), pools.select(filepath=shared)


_SHARED = _Shared()
