"""Every Python block of the documentation runs as it is written, and its links lead somewhere.

The blocks of a page run in order, in one namespace and an empty folder. One that cannot be run has
`<!-- no-run: reason -->` on the line before it.
"""

import re
from pathlib import Path

import pytest

from reml_sae.diagnostics.report.advice import ADVICE

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(page.name for page in DOCS.glob("*.md"))
BLOCK = re.compile(r"(?:^<!-- no-run: (?P<reason>[^\n]+) -->\n)?^```python\n(?P<code>.*?)^```$",
                   re.MULTILINE | re.DOTALL)


def blocks(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    found = list(BLOCK.finditer(text))
    assert len(found) == text.count("```python"), f"{page}: a block is not of this form"
    assert text.count("<!-- no-run") == sum(match["reason"] is not None for match in found)
    # so many empty lines before it that an error names the line of the page
    return ["\n" * text[: match.start("code")].count("\n") + match["code"]
            for match in found if match["reason"] is None]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_blocks_run(page, tmp_path, monkeypatch, capsys):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": f"docs.{page}"}
    for code in blocks(page):
        exec(compile(code, page, "exec"), names)
    pyplot.close("all")


def anchors(page):
    titles = re.findall(r"^#+ (.+)$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", (DOCS / page).read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        assert not name or (DOCS / name).is_file(), target
        assert not anchor or anchor in anchors(name or page), target


def test_every_page_is_in_the_menu():
    menu = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8").split("nav:")[1]
    assert sorted(re.findall(r"([\w-]+\.md)", menu)) == PAGES


def test_the_page_of_checks_says_what_the_report_says():
    page = (DOCS / "diagnostics.md").read_text(encoding="utf-8")
    assert all(f"| *{name}* |" in page and f"| {text} |" in page for name, text in ADVICE.items())
