"""A search that was stopped goes on from its checkpoint, to the bits of one that was not."""

import itertools
import os
import signal
import subprocess
import sys
import time
import warnings
from functools import cache

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.discovery import journal
from reml_sae.errors import ConvergenceWarning, DataWarning, InputError
from reml_sae.io import read_artifact, write_artifact
from reml_sae.manifolds import Circle, Interval

pytestmark = pytest.mark.usefixtures("searches_once")

Z = planted_circles(60, 5, 2, noise_sd=0.1).Z
CASES = {
    "one": {"n_atoms": 1, "topology": Circle(1), "noise": "isotropic"},
    "softmax": {"n_atoms": 2, "topology": Circle(1), "noise": "isotropic"},
    "quadrature": {"n_atoms": 2, "assignment": "topk", "topology": Circle(1),
                   "noise": "isotropic"},
    "penalty on rho": {"n_atoms": 1, "topology": Interval(5), "noise": "isotropic",
                       "integration": "laplace"},
    "noise": {"n_atoms": 1, "topology": Circle(1), "noise": "diagonal"},
}


def fitted(**options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rs.SAEManifold(n_init=2, **options).fit(Z)


@cache
def whole(case):
    """The fit of a case that was never stopped, and how many REML fits it needs."""
    made = []
    with pytest.MonkeyPatch.context() as patch:
        fit_reml = journal.fit_reml
        patch.setattr(journal, "fit_reml", lambda model, **options: (
            made.append(options), fit_reml(model, **options))[1])
        return fitted(**CASES[case]), len(made)


def same(one, other):
    return (one.criterion_ == other.criterion_ and one.message_ == other.message_
            and np.array_equal(one.rho_, other.rho_)
            and np.array_equal(one.codes_.assignments, other.codes_.assignments)
            and all(np.array_equal(a.coefficients, b.coefficients) and a.evidence == b.evidence
                    for a, b in zip(one.atoms_, other.atoms_, strict=True)))


@pytest.mark.parametrize("case", ["softmax", "quadrature", "penalty on rho", "noise"])
def test_resumed_to_the_same_bits(case, tmp_path, monkeypatch):
    expected, needed = whole(case)
    assert needed > 3
    fit_reml, made = journal.fit_reml, []

    def dies(model, **options):
        made.append(options)
        if len(made) in (2, needed):
            raise MemoryError("killed")
        return fit_reml(model, **options)

    monkeypatch.setattr(journal, "fit_reml", dies)
    for _ in range(2):
        with pytest.raises(MemoryError):
            fitted(**CASES[case], checkpoint=tmp_path / "search")
    resumed = fitted(**CASES[case], checkpoint=tmp_path / "search")
    assert same(expected, resumed)
    assert len(made) == needed + 2, "no fit is made twice"
    assert same(expected, fitted(**CASES[case], checkpoint=tmp_path / "search"))
    assert len(made) == needed + 2, "one that has ended reads its result"
    journal.remove_checkpoint(tmp_path / "search")
    assert not (tmp_path / "search").exists()


def test_out_of_time_again_and_again(tmp_path):
    options = {**CASES["one"], "checkpoint": str(tmp_path / "search")}
    for _ in range(3):
        with pytest.warns(ConvergenceWarning, match="max_time"):
            rs.SAEManifold(n_init=2, max_time=1e-9, **options).fit(Z)
    assert same(whole("one")[0], fitted(**options))


def test_a_killed_process(tmp_path):
    """SIGKILL at random moments; what it was writing is whole or not there."""
    code = ("import numpy as np, sys, reml_sae as rs\n"
            "rs.SAEManifold(n_init=2, n_atoms=2, assignment='topk', noise='isotropic', "
            "topology=rs.manifolds.Circle(1), checkpoint=sys.argv[2]).fit(np.load(sys.argv[1]))")
    np.save(tmp_path / "Z.npy", Z)
    folder = tmp_path / "search"
    for least in (1, 3):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "Z.npy"),
                                    str(folder)], stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(folder.glob("0*"))) < least:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(list(folder.glob("0*.safetensors"))) >= 3
    assert same(whole("quadrature")[0], fitted(**CASES["quadrature"], checkpoint=folder))


def test_another_search_is_refused_and_left_as_it_is(tmp_path):
    folder = tmp_path / "search"
    with pytest.warns(ConvergenceWarning):
        rs.SAEManifold(n_atoms=2, max_time=1e-9, checkpoint=folder).fit(Z)
    kept = sorted(os.listdir(folder))
    for change, name in (({"n_atoms": 3}, "n_atoms"), ({"tol": 1e-5}, "tol")):
        with pytest.raises(InputError, match=f"differs in {name}"):
            rs.SAEManifold(**{"n_atoms": 2, "checkpoint": folder, **change}).fit(Z)
    with pytest.raises(InputError, match="differs in the rows"):
        rs.SAEManifold(n_atoms=2, checkpoint=folder).fit(2.0 * Z)
    assert sorted(os.listdir(folder)) == kept
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="holds something else"):
        rs.SAEManifold(n_atoms=2, checkpoint=tmp_path / "other").fit(Z)
    with pytest.raises(InputError, match="is a file"):
        rs.SAEManifold(n_atoms=2, checkpoint=tmp_path / "other" / "thesis.tex").fit(Z)
    with pytest.raises(InputError, match="checkpoint must be a path"):
        rs.SAEManifold(n_atoms=2, checkpoint=3).fit(Z)


def test_a_disk_that_fills_ends_the_checkpoint_and_not_the_fit(tmp_path, monkeypatch):
    write, written = journal.write_artifact, []

    def fills(path, tensors, metadata):
        written.append(path)
        if len(written) > 2:
            raise InputError("no space left")
        write(path, tensors, metadata)

    monkeypatch.setattr(journal, "write_artifact", fills)
    with pytest.warns(DataWarning, match="goes on without its checkpoint: no space left"):
        model = rs.SAEManifold(n_init=2, **CASES["one"], checkpoint=tmp_path / "search").fit(Z)
    assert same(whole("one")[0], model) and len(written) == 3


def kept(folder):
    """A checkpoint of a search that was stopped."""
    rows = itertools.count()

    def stop(row):
        if next(rows) == 6:
            raise KeyboardInterrupt

    with pytest.warns(ConvergenceWarning, match="Fit again to go on"):
        rs.SAEManifold(n_init=2, **CASES["one"], callbacks=[stop], checkpoint=folder).fit(Z)
    return sorted(folder.glob("0*.safetensors"))


def test_damaged_entries_are_made_anew(tmp_path):
    expected, folder = whole("one")[0], tmp_path / "search"
    entry, *_ = kept(folder)
    tensors, metadata = read_artifact(entry)
    (folder / ".000001.safetensors.elsewhere-1.abcd.part").write_bytes(b"half")
    for changed, said in (
            (tensors, {}),
            ({**tensors, "beta": np.full_like(tensors["beta"], np.nan)}, metadata),
            ({**tensors, "rho": tensors["rho"] - 800.0}, metadata),  # its exponentials underflow
            (tensors, {**metadata, "status": "FOO"}),
            (tensors, {**metadata, "trace": [{}]})):
        write_artifact(entry, changed, said)
        assert same(expected, fitted(**CASES["one"], checkpoint=folder))
    entry.write_bytes(entry.read_bytes()[:100])
    assert same(expected, fitted(**CASES["one"], checkpoint=folder))


def test_what_means_the_same_is_the_same_search(tmp_path):
    kept(tmp_path / "search")
    options = {**CASES["one"], "n_init": np.int64(2), "n_atoms": np.int64(1), "max_time": 1e-9,
               "tol": np.float64(1e-6), "checkpoint": str(tmp_path / "search")}
    with pytest.warns(ConvergenceWarning):
        rs.SAEManifold(**options).fit(Z)
    one, other = np.ones((len(Z), 3, 3)), np.ones((len(Z), 3, 3))
    other[50] = np.nextafter(1.0, 2.0)
    assert journal.fingerprint(one) == journal.fingerprint(one.copy())
    assert journal.fingerprint(one) != journal.fingerprint(other)
    assert journal.fingerprint({"a": 1, "b": 2}) == journal.fingerprint({"b": 2, "a": 1})
