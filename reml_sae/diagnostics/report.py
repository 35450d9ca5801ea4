"""One self-contained HTML page of a fit."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from html import escape
from typing import Any

from reml_sae.diagnostics.check import Check
from reml_sae.io import write_bytes_atomically

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem }}
pre {{ background: #f6f6f4; padding: 1rem; overflow-x: auto }}
table {{ border-collapse: collapse }} td, th {{ padding: .25rem .8rem; text-align: left }}
tr:nth-child(even) {{ background: #f6f6f4 }}
.pass {{ color: #17692b }} .warn {{ color: #8a5a00 }} .fail {{ color: #a3161b; font-weight: 600 }}
img {{ max-width: 100% }}
</style></head><body>
<h1>{title}</h1>
<pre>{text}</pre>
<h2>Checks</h2>
<table><tr><th>status</th><th>check</th><th>figure</th><th></th></tr>
{checks}
</table>
{figures}
</body></html>
"""


def write_html(
    path: str | os.PathLike[str], title: str, text: str, checks: Sequence[Check],
    figures: Sequence[Any] = (),
) -> None:
    """Write a report, atomically.

    Parameters
    ----------
    path : path
    title, text : str
        Heading, and preformatted text under it.
    checks : sequence of Check
    figures : sequence of matplotlib figures
    """
    rows = "\n".join(
        f'<tr><td class="{check.status}">{check.status}</td><td>{escape(check.name)}</td>'
        f"<td>{check.figure:.4g}</td><td>{escape(check.message)}</td></tr>"
        for check in checks
    )
    images = "\n".join(f'<img alt="figure {i + 1}" src="data:image/png;base64,{_png(figure)}">'
                       for i, figure in enumerate(figures))
    page = PAGE.format(title=escape(title), text=escape(text), checks=rows, figures=images)
    write_bytes_atomically(path, page.encode())


def _png(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()
