"""Checks the Python blocks of README.md and docs with `mypy --strict`, those too that do not run.

    python scripts/typed_docs.py

The blocks of a page that run are one module, the others one each, but for what is said to be a
scheme. Names that a block takes to be the reader's are of any type.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(?:^<!-- no-run: (?P<reason>[^\n]+) -->\n)?^```python\n(?P<code>.*?)^```$",
                   re.MULTILINE | re.DOTALL)
SCHEME = "a scheme"
READERS = "from typing import Any\nimport numpy as np\nimport reml_sae as rs\n" + "".join(
    f"{name}: Any = None\n" for name in (
        "Z", "Z2", "t", "words", "data", "x", "y", "tree", "subject", "counts", "codes", "rows",
        "labels", "weights"))


def modules_of(page: Path) -> dict[str, str]:
    """Modules by name: what runs of a page, and each block that does not."""
    blocks = list(BLOCK.finditer(page.read_text(encoding="utf-8")))
    found = {"": "\n".join(block["code"] for block in blocks if block["reason"] is None)}
    found |= {f"_{number}": block["code"] for number, block in enumerate(blocks)
              if block["reason"] and not block["reason"].startswith(SCHEME)}
    return {f"page_{page.stem.lower()}{name}": code for name, code in found.items() if code}


def main() -> int:
    """Write the pages as modules, and check them."""
    from mypy import api

    with tempfile.TemporaryDirectory() as folder:
        modules = []
        for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
            for name, code in modules_of(page).items():
                module = Path(folder) / f"{name}.py"
                module.write_text(READERS + code, encoding="utf-8")
                modules.append(str(module))
        said, wrong, status = api.run([
            "--strict", "--ignore-missing-imports", "--follow-imports=silent",
            "--disable-error-code=no-redef", *modules])
    print(said, wrong, sep="", end="")
    return status


if __name__ == "__main__":
    sys.exit(main())
