"""Every example runs; those of the calendar in tests/estimators/test_calendar.py."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted(path for path in (Path(__file__).parent.parent / "examples").glob("*.py")
                  if path.stem not in ("dates", "weekdays"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    assert "V =" in capsys.readouterr().out
