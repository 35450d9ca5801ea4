"""Rows taken in chunks have the codes, the predictions and the score that they have as a whole."""

import pickle
from dataclasses import fields

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.errors import InputError
from reml_sae.estimators import _streaming
from reml_sae.rows import ProcessRows, SerialRows

Z = planted_circles(60, 6, 2, random_state=1).Z
COUNTS = np.random.default_rng(0).poisson(np.exp(0.5 * (Z - Z.mean(axis=0)))).astype(float)
CASES = {
    "softmax": (Z, {}),
    "topk-quadrature": (Z, {"assignment": "topk", "noise": "auto",
                            "integration": "quadrature"}),
    "student-t": (Z, {"assignment": "topk", "row_noise": "student_t"}),
    "poisson": (COUNTS, {"family": "poisson", "n_atoms": 1}),
}
SOME_ROWS = 2000
"""Numbers in the widest array of a chunk: of the grid of a circle, 64 to a row."""


@pytest.fixture(scope="module", params=CASES)
def case(request):
    data, parameters = CASES[request.param]
    model = rs.SAEManifold(**{"n_atoms": 2, "topology": rs.manifolds.Circle(1), "n_init": 1,
                              "max_outer": 5, "noise": "isotropic", **parameters})
    with pytest.warns():
        return model.fit(data), np.concatenate([data[::-1], data[:7]])


def same(found, expected, exactly):
    assert found.topologies == expected.topologies
    for item in fields(expected)[:-1]:
        one, other = getattr(found, item.name), getattr(expected, item.name)
        pairs = zip(one, other, strict=True) if isinstance(one, list) else [(one, other)]
        for a, b in pairs:
            if exactly:
                np.testing.assert_array_equal(a, b)
            else:
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.fixture
def executor(monkeypatch):
    """Sets the executor of a fit for a test."""
    return lambda model, value: monkeypatch.setattr(model, "executor", value)


def test_chunks_give_what_the_whole_gives(case, executor, tmp_path):
    model, data = case
    codes, prediction, score = model.encode(data), model.predict(data), model.score(data)
    np.save(tmp_path / "z.npy", data)
    for rows in (data, tmp_path / "z.npy"):
        executor(model, SerialRows(SOME_ROWS))
        same(model.encode(rows), codes, exactly=False)
        np.testing.assert_allclose(model.predict(rows), prediction, rtol=1e-9, atol=1e-9)
        assert model.score(rows) == pytest.approx(score, rel=1e-10)


def test_rows_are_taken_in_chunks(case, executor):
    model, data = case
    sizes = []

    class Watched(SerialRows):
        def map(self, task, chunks):
            for chunk in chunks:
                sizes.append(chunk.stop - chunk.start)
                yield task(chunk)

    executor(model, Watched(SOME_ROWS))
    model.score(data)
    assert sum(sizes) == len(data) and max(sizes) == SOME_ROWS // 64


def test_what_is_sent_does_not_grow_with_the_training_rows(case):
    model, _ = case
    task = _streaming.RowTask(_streaming._lean(model._fitted), _streaming.codes_of)
    fitted, sent = (len(pickle.dumps(item)) for item in (model._fitted, task))
    arrays = sum(len(pickle.dumps(getattr(model.codes_, item.name)))
                 for item in fields(model.codes_))
    assert sent < fitted - 0.7 * arrays  # the rest is what a pickle says of an array


def test_a_process_gives_the_same_bits(executor, tmp_path):
    model = rs.SAEManifold(1, n_init=1, topology="linear", noise="isotropic").fit(Z)
    np.save(tmp_path / "z.npy", Z)
    executor(model, SerialRows(SOME_ROWS))
    here = model.encode(tmp_path / "z.npy")
    executor(model, ProcessRows(1, SOME_ROWS))
    same(model.encode(tmp_path / "z.npy"), here, exactly=True)


def test_penalties_that_tie_rows_are_refused_by_name(executor, tmp_path):
    t = np.linspace(-1.0, 1.0, 40)[:, None]
    data = t @ np.array([[1.0, 2.0, -1.0]]) + 0.05 * np.random.default_rng(0).normal(size=(40, 3))
    model = rs.SAEManifold(1, topology="linear", noise="isotropic", n_init=1, penalties=[
        {"kind": "total_variation", "latent_dim": 1, "weight": 1.0}]).fit(data)
    np.save(tmp_path / "z.npy", data)
    whole = model.encode(data)
    same(model.encode(tmp_path / "z.npy"), whole, exactly=True)  # one chunk
    executor(model, SerialRows(SOME_ROWS // 4))
    with pytest.raises(InputError, match=r"^total_variation ties rows.*z\.npy.*one array"):
        model.encode(tmp_path / "z.npy")


def test_faults_of_a_file_are_named(case, executor, tmp_path):
    model, data = case
    poked = data.copy()
    poked[51, 2] = np.nan
    np.save(tmp_path / "z.npy", poked)
    executor(model, SerialRows(SOME_ROWS))
    with pytest.raises(InputError, match=r"z\.npy'\[51, 2\] is NaN"):
        model.encode(tmp_path / "z.npy")
    np.save(tmp_path / "z.npy", data[:, :4])
    with pytest.raises(InputError, match=r"z\.npy' has 4 features.*expecting 6"):
        model.score(tmp_path / "z.npy")


def test_the_executor_is_not_saved(case, executor, tmp_path):
    model, _ = case
    executor(model, ProcessRows(2))
    model.save(tmp_path / "fit.safetensors")
    assert rs.load(tmp_path / "fit.safetensors").executor is None


def test_more_rows_than_memory_are_refused_before_they_are_read(tmp_path, monkeypatch):
    shape = (10**9, 1000)
    with (tmp_path / "z.npy").open("wb") as handle:
        np.lib.format.write_array_header_1_0(
            handle, {"descr": "<f2", "fortran_order": False, "shape": shape})
        handle.truncate(handle.tell() + 2 * shape[0] * shape[1])  # holes: no disk is used
    monkeypatch.setattr(_streaming, "available_bytes", lambda: 16 * 10**9)
    with pytest.raises(InputError, match=r"8,000,000,000,000 bytes.*at most 100000 rows"):
        rs.SAEManifold(1).fit(tmp_path / "z.npy")
    monkeypatch.setattr(_streaming, "available_bytes", lambda: 20 * 8 * Z.size - 1)
    with pytest.raises(InputError, match=r"Z has 60 rows of 6 numbers.*at most 59 rows"):
        rs.SAEManifold(1).fit(Z)


@pytest.mark.parametrize("options", [{}, {"assignment": "topk", "n_active": 2}])
def test_more_atoms_than_memory_are_refused_with_how_many_would_fit(options, monkeypatch):
    rows, free = np.ones((500, 400)), 24 * (5 * 30) ** 4  # 30 circles of 5 functions
    monkeypatch.setattr(_streaming, "available_bytes", lambda: free)
    with pytest.raises(InputError, match=r"n_atoms=200 atoms have 1000 functions.*at least "
                                         r"3,840,000,000,000 bytes.*at most 30 of these"):
        rs.SAEManifold(200, topology="circle", **options).fit(rows)


    class Fits(Exception):
        pass

    def read(source):
        raise Fits

    monkeypatch.setattr("reml_sae.estimators.sae_manifold.read_matrix", read)
    for n_atoms, other in ((30, options), (200, {"assignment": "topk", "solver": "search"})):
        with pytest.raises(Fits):
            rs.SAEManifold(n_atoms, topology="circle", **other).fit(rows)
