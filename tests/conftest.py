"""One BLAS thread for a worker, and what every test leaves behind it: nothing."""

import os
import sys

import pytest

# before numpy is imported: the pools of two workers spin against each other where a test calls what
# lies below the entry points, which hold them to one thread themselves
for library in ("OPENBLAS", "OMP", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def close_figures():
    """Close what a test drew; pyplot keeps figures for good, and warns at the twenty-first."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
