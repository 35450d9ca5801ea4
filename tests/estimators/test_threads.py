"""One BLAS thread inside every entry point, and the caller's own number afterwards."""

import sys
import tempfile
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits

import reml_sae as rs
from reml_sae.datasets import gaussian_control, planted_circles
from reml_sae.diagnostics import diagnose, laplace_certificate, plot_atoms
from reml_sae.errors import ConvergenceWarning, DataWarning, InputError
from reml_sae.linalg import _threads, single_threaded
from reml_sae.manifolds import Circle

Z = planted_circles(40, 4, 1, noise_sd=0.1).Z
SPIES = [(np, "einsum"), (Circle, "basis"), (Circle, "jet"),
         *((np.linalg, name) for name in ("svd", "eigh", "slogdet", "solve", "cholesky", "qr"))]
MOST_LOOKS = 40


def pools():
    return [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()]


def fresh():
    return rs.SAEManifold(n_atoms=1, topology=Circle(1), n_init=1, max_outer=1)


@pytest.fixture(scope="module")
def fitted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fresh().fit(Z)


def certificate(model):
    arrow = model.build_model(Z)
    return laplace_certificate(arrow, arrow.initial_theta(), model.rho_, n_draws=25)


def write_report(model):
    with tempfile.TemporaryDirectory() as folder:
        model.report(Path(folder) / "report.html", Z)


ENTRY_POINTS = {
    "fit": lambda model: fresh().fit(Z),
    "fit_transform": lambda model: fresh().fit_transform(Z),
    "transform": lambda model: model.transform(Z),
    "inverse_transform": lambda model: model.inverse_transform(model.codes_.to_array()),
    "encode": lambda model: model.encode(Z),
    "predict": lambda model: model.predict(Z),
    "score": lambda model: model.score(Z),
    "decode": lambda model: model.decode(model.codes_),
    "reconstruct": lambda model: model.reconstruct(model.codes_),
    "steer": lambda model: model.steer(Z, 0, 0.1),
    "metrics": lambda model: model.metrics(Z),
    "compare_linear": lambda model: model.compare_linear(Z),
    "build_model": lambda model: model.build_model(Z[:-1]),
    "report": write_report,
    "plot_atoms": lambda model: plot_atoms(model, Z),
    "laplace_certificate": certificate,
}
NOT_COMPUTING = {"save", "summary", "get_params", "get_feature_names_out", "top_rows",
                 "save_folder"}


def test_every_entry_point_is_here():
    own = {name for place in rs.SAEManifold.__mro__ if place.__module__.startswith("reml_sae")
           for name, value in vars(place).items()
           if callable(value) and not name.startswith("_") and not name.startswith("set_")}
    assert own - NOT_COMPUTING <= set(ENTRY_POINTS)


@pytest.mark.filterwarnings("ignore::reml_sae.errors.ConvergenceWarning")
@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_one_thread(name, fitted, monkeypatch):
    seen = []

    def spied(function):
        def call(*args, **kwargs):
            if len(seen) < MOST_LOOKS or function.__name__ == "slogdet":
                seen.append([number for _, number in pools()])
            return function(*args, **kwargs)
        return call

    if name == "plot_atoms":
        pytest.importorskip("matplotlib").use("Agg")
    with threadpool_limits(2):
        before = pools()
        assert any(number > 1 for _, number in before)
        with monkeypatch.context() as patch:
            for owner, attribute in SPIES:
                patch.setattr(owner, attribute, spied(getattr(owner, attribute)))
            ENTRY_POINTS[name](fitted)
        assert set(before) <= set(pools())
    assert seen and all(number == 1 for numbers in seen for number in numbers)


def test_the_diagnostics_of_a_fit(fitted, monkeypatch):
    """`diagnose` is called by a fit, and by hand."""
    seen = []
    checks = sys.modules["reml_sae.diagnostics.checks"]
    inner = checks._duplicates

    def spied(*args):
        seen.append([number for _, number in pools()])
        return inner(*args)

    monkeypatch.setattr(checks, "_duplicates", spied)
    arrow = fitted.build_model(Z)
    result = rs.fit_reml(arrow, max_outer=1)
    with threadpool_limits(2):
        diagnose(arrow, result, fitted.codes_.assignments)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fresh().fit(Z)
    assert len(seen) == 2 and set(np.ravel(seen)) == {1}


def test_the_number_of_threads_is_given_back_after_an_error(fitted):
    with threadpool_limits(2):
        before = pools()
        with pytest.raises(InputError):
            fitted.encode(Z[:, :2])
        with pytest.raises(InputError):
            fresh().fit(Z[:1])
        assert pools() == before


def test_pools_are_looked_for_after_imports_alone(monkeypatch):
    looks = []

    class Counted(ThreadpoolController):
        def __init__(self):
            looks.append(len(sys.modules))
            super().__init__()

    monkeypatch.setattr(_threads, "ThreadpoolController", Counted)
    _threads._pools.cache_clear()
    inner = single_threaded(lambda: None)
    outer = single_threaded(inner)
    outer()
    outer()
    assert len(looks) == 1
    monkeypatch.setitem(sys.modules, "a library", sys)
    outer()
    assert len(looks) == 2


def test_warnings_point_at_the_caller():
    extreme = gaussian_control(60, 4, rank=2, noise_sd=0.1)
    extreme[7] *= 1000.0
    with pytest.warns(DataWarning) as found:
        fresh().fit(extreme)
        fresh().fit(gaussian_control(60, 4, rank=2, noise_sd=0.1))
        fresh().fit(np.ones((20, 3)))
    assert "Z: row 7 (1 of 60) holds" in str(found[0].message)
    assert {record.filename for record in found} == {__file__}


def blas():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_the_last_thread_gives_the_pools_back():
    """The first to come was the one that changed them, and is the first to leave."""
    come, leave, seen = threading.Barrier(3), threading.Event(), {}
    inside = {"first": come.wait, "last": lambda: (come.wait(), leave.wait())}
    threads = {name: threading.Thread(target=single_threaded(act))
               for name, act in inside.items()}
    with threadpool_limits(2):
        for thread in threads.values():
            thread.start()
        come.wait()
        threads["first"].join()
        seen["last still in"] = blas()
        leave.set()
        threads["last"].join()
        seen["all left"] = blas()
        with threadpool_limits(3):
            seen["the caller's again"] = blas()
    assert seen == {"last still in": {1}, "all left": {2}, "the caller's again": {3}}


def bits(seed):
    Z = planted_circles(40, 40, 1, random_state=seed).Z
    model = fresh().set_params(noise="isotropic").fit(Z)
    return model.criterion_, model.codes_.assignments.tobytes(), model.predict(Z).tobytes()


def bits_and_pools(seed):
    """In a process of its own, with two threads of its own."""
    with threadpool_limits(2):
        before = blas()
        return bits(seed), blas() == before


@pytest.mark.filterwarnings("ignore::reml_sae.errors.ConvergenceWarning")
def test_two_fits_at_once_give_the_bits_that_they_give_alone():
    alone = [bits(seed) for seed in range(2)]
    with threadpool_limits(2), ThreadPoolExecutor(2) as pool:
        before = blas()
        assert list(pool.map(bits, range(2))) == alone
        assert blas() == before


@pytest.mark.filterwarnings("ignore::reml_sae.errors.ConvergenceWarning")
def test_a_fit_in_another_process_gives_the_same_bits():
    """One worker from a clean start, as joblib's are, beside a fit in this process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = pool.submit(bits_and_pools, 0)
        alone = bits(0)
        assert there.result() == (alone, True)
