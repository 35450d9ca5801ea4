"""What every test leaves behind it: nothing."""

import sys

import pytest


@pytest.fixture(autouse=True)
def close_figures():
    """Close what a test drew; pyplot keeps figures for good, and warns at the twenty-first."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
