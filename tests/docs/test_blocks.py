"""Every Python block of README and docs runs as it is written, and their links lead somewhere.

The blocks of a page run in order, in one namespace and an empty folder. One that cannot be run has
`<!-- no-run: reason -->` on the line before it.
"""

import re
import runpy
from pathlib import Path

import pytest

from reml_sae.diagnostics.report.advice import ADVICE

ROOT = Path(__file__).parents[2]
DOCS = sorted(page.name for page in (ROOT / "docs").glob("*.md"))
PAGES = ["README.md", *(f"docs/{page}" for page in DOCS)]
GALLERY = "docs/gallery.md"
"""`test_gallery` runs it."""
BLOCK = runpy.run_path(str(ROOT / "scripts" / "typed_docs.py"))["BLOCK"]


def blocks(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    found = list(BLOCK.finditer(text))
    assert len(found) == text.count("```python"), f"{page}: a block is not of this form"
    assert text.count("<!-- no-run") == sum(match["reason"] is not None for match in found)
    # so many empty lines before it that an error names the line of the page
    return ["\n" * text[: match.start("code")].count("\n") + match["code"]
            for match in found if match["reason"] is None]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page) and page != GALLERY])
def test_blocks_run(page, tmp_path, monkeypatch, capsys, fits_once):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page}
    for code in blocks(page):
        exec(compile(code, page, "exec"), names)
    pyplot.close("all")


def anchors(page):
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = path.parent / name if name else path
        assert there.is_file(), target
        assert not anchor or anchor in anchors(there), target


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("nav:")[1]
    assert sorted(re.findall(r"([\w-]+\.md)", menu)) == DOCS


def test_the_page_of_checks_says_what_the_report_says():
    page = (ROOT / "docs/diagnostics.md").read_text(encoding="utf-8")
    assert all(f"| *{name}* |" in page and f"| {text} |" in page for name, text in ADVICE.items())
