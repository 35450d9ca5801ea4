"""Fits by sweeps through `SAEManifold`: from rows on disk to codes, V, a file and a report."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.engine import InnerSolution, InnerStatus, criterion_at
from reml_sae.errors import ConvergenceWarning, DataWarning, InputError
from reml_sae.manifolds import Circle
from reml_sae.rows import ThreadRows
from reml_sae.sweeps import SweepCheckpoint

K, P, N = 6, 12, 900
PLANT = planted_circles(N, P, K, n_active=1, noise_sd=0.1, random_state=0)
DATA = PLANT.Z + np.arange(P)


def model(**changed):
    return rs.SAEManifold(**{"n_atoms": K, "topology": Circle(1), "assignment": "topk",
                             "solver": "sweeps", **changed})


@pytest.fixture(scope="module")
def fitted():
    return model().fit(DATA)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    for number, part in enumerate(np.array_split(DATA, 3)):
        np.save(folder / f"part-{number}.npy", part)
    return folder


def test_every_row_is_in_the_atom_of_its_circle(fitted):
    table = np.zeros((K, K))
    np.add.at(table, (fitted.codes_.labels, PLANT.labels), 1)
    rows, columns = linear_sum_assignment(-table)
    assert table[rows, columns].sum() >= 0.99 * N
    assert fitted.converged_ and fitted.dispersion_ == pytest.approx(0.01, rel=0.05)
    assert fitted.codes_.converged.all()


def test_v_is_the_engines_at_the_same_state(fitted):
    built = fitted.build_model(DATA)
    theta, rho = built.initial_theta(), built.initial_rho()
    inner = InnerSolution(theta, built.joint_at(theta, rho), InnerStatus.CONVERGED, 0, 0.0, 0.0)
    expected = criterion_at(built, inner, gradient=False).value
    assert fitted.criterion_ == pytest.approx(expected, abs=1e-6)


def test_v_is_near_that_of_the_search(fitted):
    """V at the sweeps' decoders, which are not quite those at the mode, and all that hangs on it.

    The bound is nats for 900 rows, of which V has -8000.
    """
    found = model(solver="search", noise="isotropic", integration="laplace").fit(DATA)
    assert abs(fitted.criterion_ - found.criterion_) < 4.0
    evidence = [sorted(atom.evidence for atom in fit.atoms_) for fit in (fitted, found)]
    np.testing.assert_allclose(*evidence, rtol=0.02)
    assert all(atom.over_flat > 0.0 and atom.evidence_per_row > 0.0 for atom in fitted.atoms_)
    assert all(atom.over_flat > 0.1 for atom in found.atoms_)


def test_rows_on_disk_give_the_same_bits(fitted, shards):
    again = model().fit(str(shards))
    assert again.criterion_ == fitted.criterion_ and again.data_digest_ == fitted.data_digest_
    np.testing.assert_array_equal(again.codes_.points, fitted.codes_.points)
    codes = again.encode(str(shards))
    np.testing.assert_array_equal(codes.labels, fitted.codes_.labels)
    np.testing.assert_array_equal(codes.amplitudes, fitted.codes_.amplitudes)


def test_codes_are_sparse_and_mean_the_same(fitted):
    codes = fitted.codes_
    dense = codes.dense()
    assert (dense.gates.sum(axis=1) == 1).all()
    np.testing.assert_array_equal(dense.gates.argmax(axis=1), codes.labels)
    np.testing.assert_allclose(fitted.decode(codes), fitted.decode(dense), atol=1e-12)
    np.testing.assert_allclose(fitted.inverse_transform(fitted.transform(DATA)),
                               fitted.predict(DATA), atol=1e-9)
    assert fitted.score(DATA) == pytest.approx(fitted.metrics(DATA).explained_variance)
    some = codes[10:20]
    np.testing.assert_array_equal(some.to_array(), dense[10:20].to_array())


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_codes_come_back_from_files(fitted, tmp_path, suffix):
    fitted.codes_.save(tmp_path / f"codes{suffix}")
    again = rs.Codes.load(tmp_path / f"codes{suffix}")
    assert type(again) is type(fitted.codes_)
    np.testing.assert_array_equal(again.points, fitted.codes_.points)


def test_a_fit_comes_back_from_its_file(fitted, tmp_path):
    fitted.save(tmp_path / "fit.safetensors")
    again = rs.load(tmp_path / "fit.safetensors")
    assert again.summary() == fitted.summary()
    np.testing.assert_array_equal(again.encode(DATA).points, fitted.codes_.points)
    np.testing.assert_array_equal(again.top_rows(2).index, fitted.top_rows(2).index)


def test_report_shows_some_rows_of_many(fitted, shards, tmp_path, monkeypatch):
    monkeypatch.setattr("reml_sae.estimators._shown.MOST_SHOWN", 60 * K)
    fitted.report(tmp_path / "page.html", str(shards), labels=[f"row {i}" for i in range(N)])
    page = (tmp_path / "page.html").read_text()
    assert f"of whose {N} rows this page shows and counts: 60 rows" in page and "row 899" in page
    with pytest.raises(InputError, match="different rows"):
        fitted.report(tmp_path / "page.html", DATA[::-1])


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_fit_goes_on_to_the_same_bits(fitted, tmp_path, after):
    def stop(row):
        if row.stage == "sweep" and row.iteration == after - 1:
            raise Stop

    with pytest.raises(Stop):
        model(checkpoint=tmp_path / "kept", callbacks=[stop]).fit(DATA)
    stages = []
    again = model(checkpoint=tmp_path / "kept",
                  callbacks=[lambda row: stages.append(row.stage)]).fit(DATA)
    assert again.criterion_ == fitted.criterion_ and stages[0] == "sweep"
    np.testing.assert_array_equal(again.codes_.points, fitted.codes_.points)


def test_a_fit_of_open_shapes_goes_on_to_the_same_bits(tmp_path):
    """Where circles end, and where flats have taken their places."""
    rng, p = np.random.default_rng(0), DATA.shape[1]
    cloud = 2.0 + rng.normal(size=(120, p)) * np.where(np.arange(p) < 2, 1.0, 0.1)
    circles = DATA[PLANT.labels < 3]
    Z, options = np.concatenate([circles, cloud]), {"n_atoms": 4, "topology": "auto"}
    alone = model(**options).fit(Z)
    assert any(atom.topology.name == "euclidean" for atom in alone.atoms_)
    for _ in range(2):
        again = model(**options, checkpoint=tmp_path / "kept").fit(Z)
        assert again.criterion_ == alone.criterion_


def test_a_shard_that_is_cut_off_is_named_and_nothing_is_lost(fitted, tmp_path, shards):
    rows = tmp_path / "rows"
    rows.mkdir()
    for path in shards.iterdir():
        (rows / path.name).write_bytes(path.read_bytes())
    whole = (rows / "part-1.npy").read_bytes()

    def cut(row):
        if row.stage == "sweep" and row.iteration == 1:
            (rows / "part-1.npy").write_bytes(whole[:len(whole) // 2])

    with pytest.raises(InputError, match=r"part-1\.npy"):
        model(checkpoint=tmp_path / "kept", callbacks=[cut]).fit(str(rows))
    (rows / "part-1.npy").write_bytes(whole)
    again = model(checkpoint=tmp_path / "kept").fit(str(rows))
    assert again.criterion_ == fitted.criterion_


def test_a_disk_that_fills_ends_the_checkpoint_not_the_fit(fitted, tmp_path, monkeypatch):
    def full(*arguments):
        raise InputError("the disk is full")

    monkeypatch.setattr("reml_sae.sweeps.checkpoint.write_artifact", full)
    with pytest.warns(DataWarning, match="without its checkpoint: the disk is full"):
        found = model(checkpoint=tmp_path / "kept").fit(DATA)
    assert found.criterion_ == fitted.criterion_


def test_a_checkpoint_of_other_rows_is_refused(tmp_path):
    model(checkpoint=tmp_path / "kept").fit(DATA)
    with pytest.raises(InputError, match="the rows"):
        model(checkpoint=tmp_path / "kept").fit(DATA + 1.0)


def test_a_damaged_checkpoint_is_of_no_use(tmp_path):
    path = tmp_path / "kept.safetensors"
    path.write_bytes(b"nothing")
    assert SweepCheckpoint(path).read([Circle(1)] * K, N) is None


def test_out_of_time_one_sweep_is_made_and_the_fit_goes_on(fitted, tmp_path):
    with pytest.warns(ConvergenceWarning, match="max_time ran out"):
        short = model(max_time=1e-6, checkpoint=tmp_path / "kept").fit(DATA)
    assert not short.converged_ and len(short.codes_) == N
    whole = model(checkpoint=tmp_path / "kept").fit(DATA)
    assert whole.criterion_ == fitted.criterion_


def test_auto_takes_sweeps_for_many_atoms_and_for_rows_beyond_memory(monkeypatch):
    calls = []
    monkeypatch.setattr("reml_sae.estimators.sae_manifold.fit_by_sweeps",
                        lambda *_: calls.append(1) or 1 / 0)
    for n_atoms, free in ((33, None), (6, 10)):
        monkeypatch.setattr("reml_sae.estimators._streaming.available_bytes", lambda f=free: f)
        with pytest.raises(ZeroDivisionError):
            model(solver="auto", n_atoms=n_atoms).fit(DATA)
    assert len(calls) == 2


REFUSED = {
    "assignment='topk'": {"assignment": "softmax"},
    "n_active=1": {"n_active": 2},
    "rings and flats alone": {"topology": "interval"},
    "a number of atoms": {"n_atoms": "auto"},
    "isotropic": {"noise": "factor"},
    "Gaussian": {"row_noise": "student_t"},
    "penalties=None": {"penalties": []},
    "Laplace": {"integration": "quadrature"},
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_sweeps_do_not_fit_is_refused_by_name(why):
    with pytest.raises(InputError, match=why):
        model(**REFUSED[why]).fit(DATA)


def test_a_device_is_for_sweeps_alone():
    with pytest.raises(InputError, match="sweeps alone"):
        model(solver="search", device="cuda").fit(DATA)


def test_rows_that_do_not_vary_are_refused():
    with pytest.raises(InputError, match="no variance"):
        model().fit(np.ones((100, 3)))


def test_threads_give_the_same_bits(monkeypatch):
    monkeypatch.setattr("reml_sae.sweeps.rows.CHUNK_ROWS", 100)
    monkeypatch.setattr("reml_sae.sweeps.backend.NumPyBackend.elements", 100)
    found = []
    for n_workers in (1, 3):
        monkeypatch.setattr("reml_sae.estimators._sweep_fit.ThreadRows",
                            lambda n=n_workers: ThreadRows(n))
        found.append(model().fit(DATA))
    assert found[0].criterion_ == found[1].criterion_


@pytest.mark.parametrize("room", [0, 10**9])
def test_a_device_fits_and_encodes_as_numpy_does(fitted, shards, monkeypatch, room):
    """Rows that have room on the device, and such as are read in every sweep; by torch's CPU."""
    pytest.importorskip("torch", reason="torch is not installed")
    monkeypatch.setattr("reml_sae.sweeps.backend.TorchBackend.room", room)
    found = model(device="cpu:0", random_state=0).fit(str(shards))
    assert found.converged_ and found.codes_.converged.all()
    # both end where the sweeps to come would gain less than a thousandth of a nat a row
    assert found.criterion_ == pytest.approx(fitted.criterion_, abs=2.0)
    assert found.dispersion_ == pytest.approx(fitted.dispersion_, rel=1e-3)
    codes = found.encode(DATA)
    np.testing.assert_array_equal(codes.labels, found.codes_.labels)
    np.testing.assert_allclose(codes.points, found.codes_.points, atol=1e-8)
    found._fitted.__dict__["device"] = "numpy"
    by_numpy = found.encode(DATA)
    assert (by_numpy.labels == codes.labels).mean() > 0.995
    same = by_numpy.labels == codes.labels
    np.testing.assert_allclose(by_numpy.amplitudes[same], codes.amplitudes[same], atol=1e-5)
