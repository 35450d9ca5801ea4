"""Kinds from other packages, and kinds registered in the running program."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from reml_sae import penalties as pen
from reml_sae.errors import RegistryError
from reml_sae.penalties import _registry

PACKAGE = Path(__file__).parent / "example_package"


def run(code, site):
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", code], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path}, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder with the example package installed, and one whose entry point cannot be imported."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps",
                    "--no-build-isolation", "--target", str(folder), str(PACKAGE)], check=True)
    broken = folder / "broken_example-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-example\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text(
        "[reml_sae.penalties]\nshattered = a_module_that_is_missing:Shattered\n")
    return folder


@pytest.fixture(scope="module")
def used(site):
    """What a process wrote that used the installed kind, and described it as a command."""
    return run("""
import numpy as np
from reml_sae import penalties as pen
from reml_sae.errors import RegistryError
assert "log_cosh" in pen.registered_kinds()
penalty = pen.from_config({"kind": "log_cosh", "latent_dim": 2, "scale": 0.5, "weight": 2.0})
assert penalty.is_learnable and penalty == pen.from_config(penalty.to_config())
target = np.random.default_rng(0).normal(size=(5, 2))
report = pen.check_penalty(penalty, target, np.array([0.3]))
print(report)
assert report.passed
x = np.linspace(-60.0, 60.0, 200_001)
one = pen.from_config({"kind": "log_cosh", "latent_dim": 1, "scale": 0.5, "weight": 2.0})
mass = (x[1] - x[0]) * np.exp(-one.row_values(x[:, None], np.array([0.3]))).sum()
assert abs(np.log(mass) - one.log_partition(np.array([0.3]), 1)[0]) < 1e-9
assert (penalty + pen.from_config({"kind": "ard", "latent_dim": 2})).rho_count() == 3
try:
    pen.from_config({"kind": "log_cosh", "latent_dim": 2, "scale": -1.0}, path="penalties[0]")
except RegistryError as error:
    assert str(error).startswith("penalties[0].scale must be"), error
else:
    raise AssertionError
print("as a command")
from reml_sae.cli import main
raise SystemExit(main(["penalties", "log_cosh"]))
""", site)


def test_an_installed_kind_is_one_of_the_kinds(used):
    assert "as a command" in used.stdout, used.stderr + used.stdout


def test_the_command_line_describes_it(used):
    assert used.returncode == 0, used.stderr
    said = used.stdout.partition("as a command")[2]
    assert "w sum log cosh(t / s)" in said
    assert "where the quadratic turns into" in " ".join(said.split())


def test_a_broken_entry_point_is_named_and_breaks_nothing_else(site):
    done = run("""
from reml_sae import penalties as pen
from reml_sae.errors import RegistryError
assert {"ard", "log_cosh"} <= set(pen.registered_kinds())
assert "shattered" not in pen.registered_kinds()
try:
    pen.from_config({"kind": "shattered"})
except RegistryError as error:
    print(error)
""", site)
    assert done.returncode == 0, done.stderr
    for text in (done.stdout, done.stderr):
        assert "'shattered' of package 'broken-example'" in text
        assert "a_module_that_is_missing" in text
    assert done.stderr.count("DataWarning") == 1


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(_registry.KINDS, "items", dict(_registry.KINDS.items))


def half_ridge():
    @pen.register
    @dataclass(frozen=True, kw_only=True, eq=False)
    class HalfRidge(pen.ARDPenalty):
        KIND_TAG: ClassVar[str] = "half_ridge"
        PYTHON_WRAPPER: ClassVar[str] = "HalfRidge"

    return HalfRidge


def test_a_kind_of_the_running_program(registry):
    first = half_ridge()
    penalty = pen.from_config({"kind": "half_ridge", "latent_dim": 1})
    assert type(penalty) is first
    assert pen.check_penalty(penalty, np.ones((3, 1)), np.zeros(1)).passed
    again = half_ridge()  # as a notebook cell that runs twice
    assert pen.get("half_ridge") is again is not first


@pytest.mark.parametrize(("cls", "message"), [
    (dict, "subclass of Penalty"),
    (type("Nameless", (pen.RowPenalty,), {}), r"Nameless must define KIND_TAG, .*row_values"),
])
def test_what_is_no_penalty_is_refused(cls, message):
    with pytest.raises(RegistryError, match=message):
        pen.register(cls)
