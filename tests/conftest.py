"""One BLAS thread for a worker, and what every test leaves behind it: nothing."""

import gc
import hashlib
import os
import pickle
import sys
from copy import deepcopy
from functools import wraps

import pytest

# before numpy is imported: the pools of two workers spin against each other where a test calls what
# lies below the entry points, which hold them to one thread themselves
for library in ("OPENBLAS", "OMP", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")


# what is collected stays to the end: the garbage collector need not walk it, now or in the tests
gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def close_figures():
    """Close what a test drew; pyplot keeps figures for good, and warns at the twenty-first."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder of the fits of `fits_once`, one for all workers of a run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "fits"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def fits_once(made, monkeypatch):
    """The same parameters on the same rows are fitted once: documents and examples repeat fits."""
    import fcntl

    import numpy as np

    from reml_sae.estimators.sae_manifold import SAEManifold

    fit = SAEManifold.fit

    @wraps(fit)
    def once(self, Z, y=None):
        asked = self.get_params() | {"verbose": 0}
        key = hashlib.sha256(np.asarray(Z).tobytes() + repr(sorted(asked.items())).encode())
        file = made / key.hexdigest()
        with file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the worker that comes second waits for the fit
            if not file.exists():
                whole = file.with_suffix(".whole")  # a worker that is killed leaves no half of it
                whole.write_bytes(pickle.dumps(fit(self, Z)._fitted))
                whole.replace(file)
        self._adopt(pickle.loads(file.read_bytes()))
        return self

    monkeypatch.setattr(SAEManifold, "fit", once)


@pytest.fixture(scope="session")
def searches():
    """What searches among atoms have found, by what they were asked."""
    return {}


@pytest.fixture(scope="module")
def searches_once(searches):
    """The same search among atoms is made once: it knows of the rows and their atoms alone."""
    from reml_sae.discovery.starts import joint

    search = joint.search_codes

    @wraps(search)
    def once(Z, atoms, seeds, white, rng, policy, stop, wider):
        begun = [(seed.labels.tobytes(), seed.coordinates.tobytes()) for seed in seeds]
        asked = repr((Z.tobytes(), atoms, begun, white, rng.bit_generator.state, policy, wider))
        key = hashlib.sha256(asked.encode()).digest()
        if key not in searches or stop():
            found = search(Z, atoms, seeds, white, rng, policy, stop, wider)
            if stop():
                return found
            searches[key] = deepcopy((found, rng.bit_generator.state))
        found, rng.bit_generator.state = deepcopy(searches[key])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint, "search_codes", once)
        yield
