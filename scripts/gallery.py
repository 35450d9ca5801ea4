"""Runs the code of docs/gallery.md and writes what it prints, and its pictures, into the page.

    python scripts/gallery.py

Every Python block is followed by a text block with its output, and by a picture of the variable
``figure`` where the page has one there. `tests/docs/test_gallery.py` runs the same.
"""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "gallery.md"
ENTRY = re.compile(
    r"```python\n(?P<code>.*?)```\n\n```text\n(?P<output>.*?)```\n"
    r"(?P<picture>\n!\[[^\]]*\]\((?P<path>[^)]+)\)\n)?", re.DOTALL)
DOTS_PER_INCH = 72


def run(page: str, folder: Path) -> str:
    """The page with the outputs of its blocks, whose pictures are written below a folder."""
    import matplotlib
    from matplotlib import pyplot

    matplotlib.use("agg")
    names: dict[str, Any] = {"__name__": "gallery"}

    def renewed(entry: re.Match[str]) -> str:
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile(entry["code"], str(PAGE), "exec"), names)
        if entry["path"]:
            path = folder / entry["path"]
            path.parent.mkdir(exist_ok=True)
            names["figure"].savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
            pyplot.close("all")
        output = "".join(f"{line.rstrip()}\n" for line in printed.getvalue().splitlines())
        return (f"```python\n{entry['code']}```\n\n```text\n{output}```\n"
                f"{entry['picture'] or ''}")

    return ENTRY.sub(renewed, page)


if __name__ == "__main__":
    PAGE.write_text(run(PAGE.read_text(encoding="utf-8"), DOCS), encoding="utf-8")
