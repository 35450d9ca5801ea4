"""The command line, run as a user runs it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.cli import main
from reml_sae.datasets import planted_circles
from reml_sae.diagnostics import shows_rows

pytestmark = pytest.mark.usefixtures("searches_once")

DATA = planted_circles(120, 8, 2, noise_sd=0.05)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("cli")
    np.save(base / "Z.npy", DATA.Z)
    assert main(["fit", str(base / "Z.npy"), "-k", "2", "-o", str(base / "out")]) == 0
    return base


def test_fit_writes_what_load_reads(folder):
    assert {item.name for item in (folder / "out").iterdir()} == {
        "fit.safetensors", "summary.txt", "report.html"}
    model = rs.load(folder / "out" / "fit.safetensors")
    assert model.converged_ and len(model.atoms_) == 2
    assert shows_rows(folder / "out" / "report.html")


def test_report(folder, capsys):
    (folder / "labels.txt").write_text("".join(f"row {i} <&>\n" for i in range(120)))
    assert main(["report", str(folder / "out"), "--data", str(folder / "Z.npy"),
                 "--labels", str(folder / "labels.txt")]) == 0
    assert "outer convergence" in capsys.readouterr().out
    page = (folder / "out" / "report.html").read_text()
    assert str(folder / "Z.npy") in page and " &lt;&amp;&gt;</td>" in page


def test_a_report_without_rows_does_not_replace_one_with_rows(folder, tmp_path, capsys):
    copy = shutil.copytree(folder / "out", tmp_path / "copy")
    before = (copy / "report.html").read_bytes()
    assert main(["report", str(copy)]) == 0
    said = capsys.readouterr()
    assert "outer convergence" in said.out and "--force" in said.err
    assert (copy / "report.html").read_bytes() == before
    assert main(["report", str(copy), "--force"]) == 0
    assert not shows_rows(copy / "report.html")


def test_rows_of_extreme_norm_are_named(tmp_path, capsys):
    Z = DATA.Z.copy()
    Z[[3, 8]] *= 100.0
    np.save(tmp_path / "Z.npy", Z)
    assert main(["fit", str(tmp_path / "Z.npy"), "-k", "1", "--topology", "linear", "--noise",
                 "isotropic", "-o", str(tmp_path / "out")]) == 0
    assert "DataWarning: Z: rows" in capsys.readouterr().err
    report = (tmp_path / "out" / "report.html").read_text()
    assert "rows of extreme norm" in report and "(2 of 120) hold" in report


def test_encode(folder, capsys):
    target = folder / "codes.npz"
    assert main(["encode", str(folder / "out"), str(folder / "Z.npy"), "-o", str(target)]) == 0
    with np.load(target) as codes:
        assert codes["assignments"].shape == (120, 2)
        assert codes["coordinates_1"].shape == (120, 1)


def test_encode_shards_by_workers(folder, tmp_path):
    (tmp_path / "shards").mkdir()
    for number in range(2):
        np.save(tmp_path / "shards" / f"{number}.npy", DATA.Z[60 * number:60 * (number + 1)])
    target = tmp_path / "codes.npz"
    assert main(["encode", str(folder / "out"), str(tmp_path / "shards"), "-o", str(target),
                 "--workers", "2"]) == 0
    expected = rs.load(folder / "out" / "fit.safetensors").encode(DATA.Z)
    with np.load(target) as codes:
        np.testing.assert_array_equal(codes["assignments"], expected.assignments)


def test_config_file_and_compare(folder, capsys):
    (folder / "fit.toml").write_text('n_atoms = 1\ntopology = "linear"\nnoise = "isotropic"\n')
    assert main(["fit", str(folder / "Z.npy"), "--config", str(folder / "fit.toml"),
                 "-o", str(folder / "other")]) == 0
    capsys.readouterr()
    assert main(["compare", str(folder / "other"), str(folder / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(str(folder / "out")) and " 0.000 " in lines[1]


def test_penalties(capsys):
    assert main(["penalties"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(rs.penalties.registered_kinds())
    entropy = next(line for line in lines if line.startswith("softmax_assignment_sparsity "))
    assert entropy.split()[1] == "psi" and "w sum_i H(a_i)" in entropy


def test_output_that_nobody_reads_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run([sys.executable, "-m", "reml_sae.cli", "penalties"], stdout=writer,
                           stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert found.returncode == 0 and not found.stderr


def test_help_names_the_default_number_of_atoms(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"{rs.SAEManifold().n_atoms} by default" in said


def test_one_penalty(capsys):
    assert main(["penalties", "ard"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ard  (ARDPenalty)")
    assert "P           sum_j [alpha_j / 2 ||t_j||^2" in out
    row = next(line for line in out.splitlines() if line.startswith("latent_dim "))
    assert row.split() == ["latent_dim", "int", "required", "d", ">=", "1."]


def test_penalties_as_json(capsys):
    assert main(["penalties", "ard", "--json"]) == 0
    ard = json.loads(capsys.readouterr().out)
    assert (ard["kind"], ard["class"], ard["tier"], ard["proper"]) == (
        "ard", "ARDPenalty", "psi", True)
    assert ard["fields"][0] == {"name": "latent_dim", "type": "int", "required": True,
                                "description": "d >= 1."}
    assert main(["penalties", "--json"]) == 0
    assert ard in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("arguments", "message"), [
    (["fit", "nowhere.npy", "-o", "out"], "no such file"),
    (["fit", "Z.npy", "-k", "0", "-o", "out"], "n_atoms"),
    (["fit", "Z.npy", "--topology", "circel", "-o", "out"], "'circle'"),
    (["fit", "Z.npy", "--config", "bad.json", "-o", "out"], "unknown name 'atoms'"),
    (["fit", "Z.npy", "--config", "none.toml", "-o", "out"], "no such file"),
    (["report", "nowhere"], "no such file"),
    (["fit", "Z.npy", "--labels", "short.txt", "-o", "out"], "has 1 lines"),
    (["fit", "Z.npy", "--labels", "none.txt", "-o", "out"], "no such file"),
    (["penalties", "adr"], "'ard'"),
    (["encode", "out", "Z.npy", "-o", "codes.txt"], ".npz"),
    (["encode", "out", "Z.npy", "-o", "codes.npz", "--workers", "0"], "at least 1 worker"),
])
def test_bad_input_is_named_and_nothing_is_written(
    arguments, message, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    np.save("Z.npy", DATA.Z)
    (tmp_path / "bad.json").write_text(json.dumps({"atoms": 3}))
    (tmp_path / "short.txt").write_text("one line\n")
    if arguments[0] == "encode":
        arguments = [arguments[0], str(folder / "out"), *arguments[2:]]
    before = sorted(tmp_path.iterdir())
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_unknown_command():
    with pytest.raises(SystemExit):
        main(["frobnicate"])


# --- fits of other rows ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def others(folder):
    """Matrices of the shape of Z.npy, or nearly, that are not it."""
    rng = np.random.default_rng(0)
    changed = DATA.Z.copy()
    changed[17, 3] = np.nextafter(changed[17, 3], np.inf)
    matrices = {"other": planted_circles(120, 8, 2, noise_sd=0.05, random_state=1).Z,
                "permuted": rng.permutation(DATA.Z), "one bit": changed,
                "scaled": 2.0 * DATA.Z, "fewer": DATA.Z[:-1], "narrower": DATA.Z[:, :-1],
                "reshaped": DATA.Z.reshape(240, 4)}
    for name, Z in matrices.items():
        np.save(folder / f"{name}.npy", Z)
    return list(matrices)


OTHERS = ["other", "permuted", "one bit", "scaled", "fewer", "narrower", "reshaped"]


@pytest.mark.parametrize("name", OTHERS)
def test_report_refuses_other_rows(name, folder, others, capsys):
    before = (folder / "out" / "report.html").read_bytes()
    data = str(folder / f"{name}.npy")
    assert main(["report", str(folder / "out"), "--data", data]) == 2
    said = capsys.readouterr()
    assert data in said.err and ("different rows" in said.err or "features" in said.err)
    assert (folder / "out" / "report.html").read_bytes() == before


def test_report_takes_the_same_rows_from_another_file(folder, capsys):
    from safetensors.numpy import save_file

    save_file({"z": np.asfortranarray(DATA.Z).copy()}, folder / "same.safetensors")
    assert main(["report", str(folder / "out"), "--data", str(folder / "same.safetensors")]) == 0


def with_digest(source, target, digest):
    """A copy of a fit that claims to be of rows with another digest, or keeps none."""
    from reml_sae.io import read_artifact, write_artifact

    tensors, metadata = read_artifact(source / "fit.safetensors")
    if digest is None:
        del metadata["scalars"]["data_digest_"]
    else:
        metadata["scalars"]["data_digest_"] = digest
    target.mkdir()
    write_artifact(target / "fit.safetensors", tensors, metadata)
    return str(target)


def test_compare_refuses_fits_of_other_rows(folder, others, tmp_path, capsys):
    settings = ["-k", "1", "--n-init", "1", "--max-outer", "1", "--topology", "linear"]
    for name in ("other", "permuted"):
        main(["fit", str(folder / f"{name}.npy"), *settings, "-o", str(tmp_path / name)])
        capsys.readouterr()
        # the one that differs is named wherever it stands
        for order in ((folder / "out", folder / "out", tmp_path / name),
                      (tmp_path / name, folder / "out")):
            assert main(["compare", *map(str, order)]) == 2
            said = capsys.readouterr()
            assert str(folder / "out") in said.err and str(tmp_path / name) in said.err
            assert not said.out


def test_fits_without_a_digest_are_named(folder, tmp_path, capsys):
    old = with_digest(folder / "out", tmp_path / "old", None)
    assert main(["report", old]) == 0
    for arguments in (["compare", str(folder / "out"), old],
                      ["report", old, "--data", str(folder / "Z.npy")]):
        capsys.readouterr()
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert old in err and "fit it again" in err


def test_max_time(folder, tmp_path, capsys):
    assert main(["fit", str(folder / "Z.npy"), "-k", "2", "--max-time", "1e-6", "-o",
                 str(tmp_path / "out")]) == 3
    said = capsys.readouterr()
    assert "max_time ran out" in said.err and "NOT CONVERGED" in said.out
    model = rs.load(tmp_path / "out" / "fit.safetensors")
    assert model.max_time == 1e-6 and not model.converged_


# --- how a command ends ----------------------------------------------------------------------


def test_what_cannot_be_written_is_refused_before_the_work(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rs.SAEManifold, "fit", lambda *_: pytest.fail("the work was begun"))
    (tmp_path / "file").write_text("taken")
    data = str(folder / "Z.npy")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(["fit", data, "-k", "1", "-o", str(out)]) == 2
        assert "is a file" in capsys.readouterr().err
    monkeypatch.setattr(rs.SAEManifold, "transform", lambda *_: pytest.fail("the work was begun"))
    for out in ("codes.txt", "nowhere/codes.npz"):
        assert main(["encode", str(folder / "out"), data, "-o", str(tmp_path / out)]) == 2
    assert (tmp_path / "file").read_text() == "taken" and len(list(tmp_path.iterdir())) == 1


def test_a_fit_whose_folder_is_lost_is_kept_elsewhere(folder, tmp_path, monkeypatch, capsys):
    """The folder became a file while the fit went on."""
    fit, out = rs.SAEManifold.fit, tmp_path / "out"

    def fit_then_lose(model, Z):
        fitted = fit(model, Z)
        shutil.rmtree(out, ignore_errors=True)
        out.write_text("taken")
        return fitted

    monkeypatch.setattr(rs.SAEManifold, "fit", fit_then_lose)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["fit", str(folder / "Z.npy"), "-k", "1", "--noise", "isotropic", "-q", "-o",
                 str(out)]) in (0, 3)
    kept = Path(capsys.readouterr().err.rpartition("The fit was kept in ")[2].strip())
    assert kept.parent == tmp_path and len(rs.load(kept / "fit.safetensors").atoms_) == 1


@pytest.mark.parametrize("place", ["before", "after"])
def test_loudness_is_heard_on_either_side_of_the_command(place, folder, tmp_path, capsys):
    arguments = ["fit", str(folder / "Z.npy"), "-k", "1", "--topology", "linear", "--noise",
                 "isotropic", "-o", str(tmp_path / "out")]
    assert main(["-q", *arguments] if place == "before" else [*arguments, "--quiet"]) == 0
    said = capsys.readouterr()
    assert said.out == "" and said.err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_fit_that_is_stopped_keeps_its_best_state(number, folder, tmp_path):
    np.save(tmp_path / "Z.npy", planted_circles(150, 8, 1, noise_sd=0.3).Z)
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "reml_sae.cli", "-v", "fit", str(tmp_path / "Z.npy"), "-k", "1",
         "--n-init", "1", "-o", str(out)], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "V =" in line or "V=" in line or "criterion" in line:
            break
    process.send_signal(number)
    process.stderr.read()
    assert process.wait() == 130
    model = rs.load(out / "fit.safetensors")
    assert not model.converged_ and "interrupted" in model.message_
    assert (out / "checkpoint").is_dir()


def test_a_fit_goes_on_where_it_was_stopped(folder, tmp_path, capsys):
    out = str(tmp_path / "out")
    again = ["fit", str(folder / "Z.npy"), "-k", "2", "-o", out]
    assert main([*again, "--max-time", "1e-6"]) == 3
    assert main(again) == 2
    assert "add --resume" in capsys.readouterr().err
    assert main([*again, "--resume", "-k", "3"]) == 2
    assert "differs in n_atoms" in capsys.readouterr().err
    assert main([*again, "--resume"]) == 0
    assert not (tmp_path / "out" / "checkpoint").exists()
    whole = rs.load(folder / "out" / "fit.safetensors")
    assert rs.load(tmp_path / "out" / "fit.safetensors").criterion_ == whole.criterion_


def test_what_was_stopped_does_not_replace_a_better_fit(folder, tmp_path, capsys):
    out = str(shutil.copytree(folder / "out", tmp_path / "out"))
    before = (tmp_path / "out" / "fit.safetensors").read_bytes()
    assert main(["fit", str(folder / "Z.npy"), "-k", "1", "--max-time", "1e-6", "--overwrite",
                 "-o", out]) == 3
    assert "is kept" in capsys.readouterr().err
    assert (tmp_path / "out" / "fit.safetensors").read_bytes() == before


def test_a_fit_replaces_another_when_it_is_told_to(folder, tmp_path, monkeypatch, capsys):
    out = shutil.copytree(folder / "out", tmp_path / "out")
    again = ["fit", str(folder / "Z.npy"), "-k", "1", "--n-init", "1", "-q", "-o", str(out)]
    fit, before = rs.SAEManifold.fit, (out / "fit.safetensors").read_bytes()
    monkeypatch.setattr(rs.SAEManifold, "fit", lambda *_: pytest.fail("the work was begun"))
    for more in ([], ["--resume"]):
        assert main([*again, *more]) == 2
        assert "add --overwrite to replace it" in capsys.readouterr().err
    assert (out / "fit.safetensors").read_bytes() == before
    monkeypatch.setattr(rs.SAEManifold, "fit", fit)
    assert main([*again, "--max-time", "1e-6", "--overwrite"]) == 3
    assert (out / "checkpoint").exists()
    assert main([*again, "--overwrite", "--topology", "linear"]) == 0  # other than the stopped one
    assert len(rs.load(out).atoms_) == 1 and not (out / "checkpoint").exists()


def test_rows_are_held_once_and_refused_before_they_are_read(folder, tmp_path, monkeypatch, capsys):
    from reml_sae.estimators import _streaming

    seen = []
    monkeypatch.setattr(rs.SAEManifold, "fit", lambda model, Z: seen.append(Z) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["fit", str(folder / "Z.npy"), "-k", "2", "-o", str(tmp_path / "out")])
    assert isinstance(seen[0], rs.io.RowSource)  # a header that was read, no rows
    monkeypatch.undo()
    monkeypatch.setattr(_streaming, "available_bytes", lambda: 1000)
    assert main(["fit", str(folder / "Z.npy"), "-k", "2", "-o", str(tmp_path / "out")]) == 2
    assert "120 rows of 8 numbers" in capsys.readouterr().err


def test_every_command_hears_quiet(folder, tmp_path, capsys):
    data, out = str(folder / "Z.npy"), str(folder / "out")
    for arguments in (["encode", out, data, "-o", str(tmp_path / "codes.npz")],
                      ["report", out, "--data", data, "--force"], ["compare", out],
                      ["export", out, "-o", str(tmp_path / "sae")]):
        assert main([*arguments, "-q"]) == 0
        assert capsys.readouterr().out == ""
    assert main(["export", out, "-o", str(tmp_path / "more"), "--anchors", "100000000"]) == 2
    assert "at most 1000" in capsys.readouterr().err and not (tmp_path / "more").exists()
