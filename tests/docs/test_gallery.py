"""The gallery shows what its code prints and draws."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def words_and_numbers(page):
    return NUMBER.sub("#", page).split(), [float(text) for text in NUMBER.findall(page)]


def test_the_page_says_what_its_code_prints(tmp_path, fits_once):
    pytest.importorskip("matplotlib")
    gallery = runpy.run_path(str(ROOT / "scripts" / "gallery.py"))
    page = gallery["PAGE"].read_text(encoding="utf-8")
    assert len(gallery["ENTRY"].findall(page)) == page.count("```python")
    words, numbers = words_and_numbers(page)
    found_words, found_numbers = words_and_numbers(gallery["run"](page, tmp_path))
    assert found_words == words
    # last digits differ between machines
    assert found_numbers == pytest.approx(numbers, rel=0.02, abs=0.02)
    drawn = sorted(path.name for path in (tmp_path / "images").iterdir())
    shown = sorted(path.name for path in (ROOT / "docs" / "images").glob("gallery_*.png"))
    assert drawn == shown and all(
        (ROOT / "docs" / "images" / name).stat().st_size < 100_000 for name in shown)
