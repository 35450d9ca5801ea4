"""One BLAS thread for a worker, and what every test leaves behind it: nothing."""

import os
import sys
from functools import wraps

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


@pytest.fixture(scope="session")
def made():
    """Fits of `fits_once`."""
    return {}


@pytest.fixture
def fits_once(made, monkeypatch):
    """The same parameters on the same rows are fitted once: documents and examples repeat fits."""
    import numpy as np

    from reml_sae.estimators.sae_manifold import SAEManifold

    fit = SAEManifold.fit

    @wraps(fit)
    def once(self, Z, y=None):
        asked = self.get_params() | {"verbose": 0}
        key = np.asarray(Z).tobytes(), repr(sorted(asked.items()))
        if key not in made:
            made[key] = fit(self, Z)._fitted
        self._adopt(made[key])
        return self

    monkeypatch.setattr(SAEManifold, "fit", once)
