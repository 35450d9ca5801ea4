"""Files that are whole or not there, and artifacts that say when they were changed."""

import copy
import os
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.errors import ArtifactError, InputError
from reml_sae.io import read_artifact, write_artifact, write_bytes_atomically


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    path = tmp_path_factory.mktemp("artifact") / "fit.safetensors"
    rs.SAEManifold(n_atoms=1, topology="linear", noise="isotropic", n_init=1).fit(
        planted_circles(40, 4, 1).Z).save(path)
    return path


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_rights_of_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_bytes_atomically(tmp_path / "file", b"content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    write_bytes_atomically(tmp_path / "file", b"before")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_bytes_atomically(tmp_path / "file", b"after")
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"before"


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    code = ("import os, sys, time; from reml_sae.io import write_bytes_atomically\n"
            "os.fsync = lambda descriptor: (print('here', flush=True), time.sleep(60))\n"
            "write_bytes_atomically(sys.argv[1], b'half')")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "file")],
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "here\n"
    write_bytes_atomically(tmp_path / "file", b"other")
    assert len(list(tmp_path.iterdir())) == 2, "the part of a process that lives is not touched"
    process.send_signal(signal.SIGKILL)
    process.wait()
    write_bytes_atomically(tmp_path / "file", b"whole")
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_every_flipped_byte_is_an_error(fitted, tmp_path):
    content = fitted.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.choice(len(content), 300, replace=False):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "changed").write_bytes(changed)
        try:
            rs.load(tmp_path / "changed")
        except ArtifactError:
            continue
        pytest.fail(f"byte {place} of {len(content)} was changed and the file was read")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_an_error(fitted, tmp_path, share):
    content = fitted.read_bytes()
    (tmp_path / "cut").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ArtifactError, match="cannot be read"):
        rs.load(tmp_path / "cut")


def places(value, path=()):
    """Paths to all plain values of nested lists and dicts."""
    if isinstance(value, dict):
        return [found for key in value for found in places(value[key], (*path, key))]
    if isinstance(value, list):
        return [found for index, item in enumerate(value)
                for found in places(item, (*path, index))]
    return [path]


def test_metadata_that_say_something_else_are_refused_or_harmless(fitted, tmp_path):
    """Whoever writes a file can write its checksum too: no foreign exception, no terabytes."""
    tensors, metadata = read_artifact(fitted)
    rng = np.random.default_rng(1)
    strange = [None, "x", -1, 10**9, 1e300, [], {}, True, [[[]]], {"kind": "ard"}]
    outcomes = {"read": 0, "refused": 0}
    chosen = places(metadata)
    for number in rng.permutation(len(chosen))[:150]:
        path = chosen[number]
        changed = copy.deepcopy(metadata)
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = strange[rng.integers(len(strange))]
        write_artifact(tmp_path / "changed", tensors, changed)
        try:
            rs.load(tmp_path / "changed").summary()
            outcomes["read"] += 1
        except ArtifactError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 75, "most are of a wrong type"


def keys(value, path=()):
    """Paths to all keys of nested lists and dicts."""
    inner = (value.items() if isinstance(value, dict)
             else enumerate(value) if isinstance(value, list) else ())
    own = [(*path, key) for key in value] if isinstance(value, dict) else []
    return own + [found for key, item in inner for found in keys(item, (*path, key))]


def test_metadata_without_a_key_are_refused_or_read(fitted, tmp_path):
    """What is read can be shown."""
    tensors, metadata = read_artifact(fitted)
    refused = 0
    chosen = keys(metadata)
    for number in np.random.default_rng(0).permutation(len(chosen))[:150]:
        changed = copy.deepcopy(metadata)
        inner = changed
        for key in chosen[number][:-1]:
            inner = inner[key]
        del inner[chosen[number][-1]]
        write_artifact(tmp_path / "changed", tensors, changed)
        try:
            rs.load(tmp_path / "changed").summary()
        except ArtifactError:
            refused += 1
    assert refused > 25


def test_metadata_without_the_explained_share_are_refused(fitted, tmp_path):
    tensors, metadata = read_artifact(fitted)
    (path,) = [path for path in keys(metadata) if path[-1] == "explained variance"]
    figures = metadata
    for key in path[:-1]:
        figures = figures[key]
    for wrong in ("much", float("nan"), None):
        figures["explained variance"] = wrong
        write_artifact(tmp_path / "changed", tensors, metadata)
        with pytest.raises(ArtifactError, match="explained variance"):
            rs.load(tmp_path / "changed")
    del figures["explained variance"]
    write_artifact(tmp_path / "changed", tensors, metadata)
    with pytest.raises(ArtifactError, match="explained variance"):
        rs.load(tmp_path / "changed")


def test_tensors_of_other_shapes_are_refused(fitted, tmp_path):
    tensors, metadata = read_artifact(fitted)
    for name, value in tensors.items():
        wrong = np.concatenate([value, value]) if value.size else np.ones((3, 3, 3, 3))
        for other in (wrong, None):
            changed = {**tensors, name: other}
            if other is None:
                del changed[name]
            write_artifact(tmp_path / "changed", changed, metadata)
            if other is None and name.endswith(("row_weights", "along", "across")):
                continue  # files from before they were kept have none
            with pytest.raises(ArtifactError):
                rs.load(tmp_path / "changed")
    for name in ("beta", "rho_", "coefficients.0"):
        changed = {**tensors, name: np.full_like(tensors[name], np.nan)}
        write_artifact(tmp_path / "changed", changed, metadata)
        with pytest.raises(ArtifactError, match=name):
            rs.load(tmp_path / "changed")


def test_sizes_in_a_file_are_bounded_before_anything_is_allocated(fitted, tmp_path):
    tensors, metadata = read_artifact(fitted)
    penalty = {"kind": "block_sparsity", "groups": [[0], [10**9]]}
    changed = {**metadata, "terms": [{"penalty": penalty, "target": "coordinates", "atom": 0}]}
    write_artifact(tmp_path / "changed", tensors, changed)
    with pytest.raises(ArtifactError, match="groups"):
        rs.load(tmp_path / "changed")
    for size in (10**8, 9_999):
        atoms = [{**metadata["atoms"][0],
                  "topology": {"topology": "circle", "n_harmonics": size}}]
        write_artifact(tmp_path / "changed", tensors, {**metadata, "atoms": atoms})
        with pytest.raises(ArtifactError, match=r"n_harmonics|coefficients"):
            rs.load(tmp_path / "changed")
