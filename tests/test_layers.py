"""Imports only go down: the contract of pyproject.toml, and no optional package in the core."""

import subprocess
import sys

import pytest


def test_layers():
    pytest.importorskip("importlinter")
    found = subprocess.run([sys.executable, "-c", "from importlinter.cli import lint_imports; "
                            "raise SystemExit(lint_imports())"], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_import_needs_the_core_only():
    code = ("import sys, reml_sae; "
            "print([m for m in ('matplotlib', 'torch', 'jax') if m in sys.modules])")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_missing_extra_says_the_command():
    from reml_sae.errors import MissingDependencyError, require

    with pytest.raises(MissingDependencyError, match=r"pip install 'reml-sae\[plot\]'"):
        require("no_such_package", "plot", "a figure")
