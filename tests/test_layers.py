"""Imports only go down: the contract of pyproject.toml, and no optional package in the core."""

import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

import reml_sae as rs


def test_layers():
    pytest.importorskip("importlinter")
    found = subprocess.run([sys.executable, "-c", "from importlinter.cli import lint_imports; "
                            "raise SystemExit(lint_imports())"], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_the_picture_of_the_layers_is_that_of_the_contract():
    root = Path(__file__).parents[1]
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (c["layers"] for c in contracts["contracts"] if c["type"] == "layers")
    picture = (root / "CONTRIBUTING.md").read_text().split("```mermaid")[1].split("```")[0]
    boxes = dict(re.findall(r'(\w+)\["<b>(.+?)</b>', picture))
    assert [box.split(" · ") for box in boxes.values()] == [
        [package.removeprefix("reml_sae.") for package in layer.split(" | ")] for layer in layers]
    arrows = [pair for line in picture.splitlines() if "-->" in line
              for pair in pairwise(line.split(" --> "))]
    assert [(a.strip(), b.strip()) for a, b in arrows] == list(pairwise(boxes))


def imported(code, among):
    """Which of some packages a fresh interpreter has imported after the code."""
    code += f"\nimport sys; print('imported:', *sorted({set(among)} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return found.stdout.rpartition("imported:")[2].split()


def test_import_needs_the_core_only():
    assert imported("from reml_sae import *\nimport reml_sae.commands",
                    ["matplotlib", "torch", "jax", "scipy"]) == ["scipy"]


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["fit", "--help"]])
def test_the_command_line_imports_nothing_to_answer_what_it_is(arguments):
    code = f"from reml_sae.cli import main\ntry: main({arguments})\nexcept SystemExit: pass"
    assert imported(code, ["numpy", "scipy", "sklearn", "argparse"]) == ["argparse"]


def test_public_names():
    """Each is imported on first use, and known before."""
    assert imported("import reml_sae\nassert dir(reml_sae) == sorted(reml_sae.__all__)",
                    ["numpy"]) == []
    for name in rs.__all__:
        assert getattr(rs, name) is not None
    assert rs.criterion is rs.engine.criterion and rs.load.__module__.startswith("reml_sae")
    with pytest.raises(AttributeError, match="no attribute 'SAEManifolds'"):
        _ = rs.SAEManifolds


def test_missing_extra_says_the_command():
    from reml_sae.errors import MissingDependencyError, require

    with pytest.raises(MissingDependencyError, match=r"pip install 'reml-sae\[plot\]'"):
        require("no_such_package", "plot", "a figure")
