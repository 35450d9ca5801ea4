"""The page: head and tables as HTML, drawings as data that its script draws when they are seen.

All texts are escaped, the page asks for nothing from elsewhere, and without a script its tables
can be read. What belongs to one atom is a card, drawn when it comes into view, so that a page of
500 atoms opens at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from reml_sae._version import __version__
from reml_sae.diagnostics.check import Check
from reml_sae.diagnostics.report import facts
from reml_sae.diagnostics.report.advice import advice
from reml_sae.diagnostics.report.cards import FULL_CARDS, card, co_activation
from reml_sae.diagnostics.report.rows import RowsOfFit
from reml_sae.errors import InputError
from reml_sae.io import write_bytes_atomically
from reml_sae.typing import Array

WITH_ROWS = '<meta name="reml-sae-rows" content="shown">'
"""How a page says that it shows rows of the data."""
COLUMNS = (
    ("atom", "atom", "number, with a link to its card"),
    ("topology", "topology", "shape, with the number of basis functions"),
    ("rows", "rows", "rows that use it; of shares, rows whose largest share it is"),
    ("share", "share", "mean amplitude over all rows"),
    ("amplitude", "amplitude", "mean amplitude over its own rows"),
    ("edf", "edf", "effective degrees of freedom of the decoder"),
    ("evidence", "evidence", "nats of V that the curve earns over its centre alone"),
    ("evidence_per_row", "a row", "evidence over the number of rows"),
    ("over_flat", "over flat", "nats a row by which V rises with the best flat in the place of the "
     "curve; below zero the curve is not needed"),
    ("coverage", "coverage", "share of the cells of the shape that hold a row"),
    ("status", "checks", "worst of the checks of the atom"),
)

TEXTS, NUMBER = ("atom", "topology", "status"), ' class="number-head"'
SORTED = ' aria-sort="descending"'
"""The column by which table and cards are in order at first."""


def write_report(
    path: str | os.PathLike[str], model: Any, Z: Array | None = None,
    labels: Sequence[str] | None = None, source: str = "", force: bool = False,
) -> None:
    """Write the report of a fit as one self-contained HTML page, atomically.

    Parameters
    ----------
    path : path
    model : fitted SAEManifold
    Z : (N, p) array, optional
        The training rows, in the units of the fit. Without them curves and codes are shown, but no
        rows beside the curves and no residuals.
    labels : sequence of N str, optional
        A text for every row.
    source : str
        What the data are called.
    force : bool
        Whether a page without rows may take the place of one with rows.

    Raises
    ------
    InputError
        Where there is not one text a row, the folder does not exist, or the page that is there
        shows rows and this one would not.
    """
    if Z is None and not force and shows_rows(path):
        raise InputError(f"{os.fspath(path)} shows rows of the data and a report without them "
                         "would not; give the rows, or force it")
    rows = RowsOfFit(model, Z, labels)
    data = {"trace": facts.trace(model), "noise": facts.noise(rows),
            "residuals": facts.residuals(rows)}
    order = sorted(range(len(model.atoms_)), key=lambda k: -model.atoms_[k].evidence)
    near = co_activation(rows.users if not model.assignment_.is_mixture else model.codes_.gates)
    cards = [card(k, rows, near[k], place < FULL_CARDS) for place, k in enumerate(order)]
    sections = {
        "Atoms": _atoms(facts.table(rows, order)), "Cards": _cards(cards, rows),
        "Residuals": _residuals(data["residuals"]), "Noise": _noise(data["noise"]),
        "Checks": _checks(model.diagnostics_.checks), "Trace of V": '<figure id="trace"></figure>',
        "Summary": f"<pre>{escape(model.summary())}</pre>"}
    _write(path, "SAE-manifold fit", WITH_ROWS if Z is not None else "",
           _head(facts.head(rows, source, __version__)) + _sections(sections),
           {**data, "cards": cards})


def write_checks(path: str | os.PathLike[str], text: str, checks: Sequence[Check]) -> None:
    """Write checks alone, and a preformatted text under them, as such a page."""
    body = f"<h2>Checks</h2>{_checks(checks)}<pre>{escape(text)}</pre>"
    _write(path, "Diagnostics", "", body, {})


def shows_rows(path: str | os.PathLike[str]) -> bool:
    """Whether there is a report at a path that shows rows of the data."""
    page = Path(path)
    return page.is_file() and WITH_ROWS in page.read_text(encoding="utf-8", errors="replace")[:2000]


def _write(path: str | os.PathLike[str], title: str, meta: str, body: str, data: Any) -> None:
    folder = files("reml_sae.diagnostics.report") / "assets"
    # a "<" in a text would end the script that holds the data
    text = json.dumps(data, separators=(",", ":"), default=_number).replace("<", "\\u003c")
    page = Template((folder / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title), meta=meta, body=body, data=text,
        style=(folder / "page.css").read_text(encoding="utf-8"),
        script=(folder / "page.js").read_text(encoding="utf-8"))
    write_bytes_atomically(path, page.encode())


def _number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written to the page")


def _sections(contents: Mapping[str, str]) -> str:
    """Those that are not empty under their titles, and links to them before, past 500 atoms."""
    ids = {title: f"section-{title.split()[0].lower()}" for title, text in contents.items() if text}
    links = "".join(f'<a href="#{place}">{title}</a>' for title, place in ids.items())
    return f'<nav aria-label="Sections">{links}</nav>' + "".join(
        f'<section id="{place}"><h2>{title}</h2>{contents[title]}</section>'
        for title, place in ids.items())


def _head(pairs: Sequence[tuple[str, str]]) -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return f'<dl class="head">{items}</dl>'


def _atoms(table: list[dict[str, Any]]) -> str:
    heads = "".join(
        f'<th scope="col"{"" if name in TEXTS else NUMBER} title="{escape(help_)}"'
        f'{SORTED if name == "evidence" else ""}>'
        f'<button type="button">{escape(shown)}</button></th>' for name, shown, help_ in COLUMNS)
    rows = "".join(f"<tr>{''.join(_cell(name, item[name]) for name, _, _ in COLUMNS)}</tr>"
                   for item in table)
    shapes = sorted({item["topology"].split("(")[0] for item in table})
    options = "".join(f"<option>{escape(shape)}</option>" for shape in shapes)
    return (
        '<form class="filter" role="search">'
        '<label>Filter <input type="search" id="filter" placeholder="shape or number"></label>'
        f'<label>Shape <select id="shape"><option value="">all</option>{options}</select></label>'
        '<label>Checks <select id="state"><option value="">all</option><option>pass</option>'
        '<option>warn</option><option>fail</option></select></label>'
        f'<output id="count">{len(table)} of {len(table)}</output></form>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table of atoms">'
        f'<table id="atoms"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        f"<details><summary>What the columns mean</summary><dl>"
        f"{''.join(f'<dt>{escape(s)}</dt><dd>{escape(h)}</dd>' for _, s, h in COLUMNS)}"
        "</dl></details>")


def _cell(name: str, value: Any) -> str:
    if name == "atom":
        return f'<td data-value="{value}"><a href="#atom-{value}">{value}</a></td>'
    if name == "status":
        return f'<td data-value="{value}" class="{value}">{value}</td>'
    if isinstance(value, str):
        return f'<td data-value="{escape(value)}">{escape(value)}</td>'
    if value is None:
        return '<td class="number" data-value="">-</td>'
    digits = {"rows": "d", "edf": ".1f", "evidence": ".1f"}.get(name, ".3f")
    return f'<td class="number" data-value="{value!r}">{value:{digits}}</td>'


def _cards(cards: list[dict[str, Any]], rows: RowsOfFit) -> str:
    out = []
    for item in cards:
        k, atom = item["atom"], rows.model.atoms_[item["atom"]]
        title = f"Atom {k}: {atom.topology.label}"
        line = (f"{item['n']} rows, share {atom.share:.3f}, edf {atom.edf:.1f}, evidence "
                f"{atom.evidence:.1f} nats")
        if item["full"]:
            out.append(f'<article class="card" id="atom-{k}" data-atom="{k}"><h3>{escape(title)}'
                       f'</h3><p>{line}</p><div class="body"></div></article>')
        else:
            out.append(f'<details class="card" id="atom-{k}" data-atom="{k}"><summary>'
                       f'{escape(title)} <span>{line}</span></summary><div class="body"></div>'
                       "</details>")
    note = ("" if rows.Z is not None else "<p>Written without the rows of the data: no rows beside "
            "the curves, no residuals. <code>reml-sae report FOLDER --data FILE</code> adds "
            "them.</p>")
    return f"{note}<div class=\"cards\">{''.join(out)}</div>"


def _residuals(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    worst = "".join(f'<tr><td class="number">{item["row"]}</td><td class="number">'
                    f'{item["size"]:.4g}</td><td>{escape(item["label"])}</td></tr>'
                    for item in found["worst"])
    return ('<div class="pair"><figure id="residuals"></figure><table>'
            f"<caption>Rows that are described worst</caption><tr><th{NUMBER}>row</th>"
            f"<th{NUMBER}>root mean square</th><th></th></tr>{worst}</table></div>")


def _noise(found: dict[str, Any] | None) -> str:
    return "" if found is None else '<figure id="noise"></figure>'


def _checks(checks: Sequence[Check]) -> str:
    order = {"fail": 0, "warn": 1, "pass": 2}
    rows = "".join(
        f'<tr><td class="{check.status}">{check.status}</td><td>{escape(check.name)}</td>'
        f'<td class="number">{check.figure:.4g}</td><td>{escape(check.message)}</td>'
        f"<td>{escape(advice(check) if check.status != 'pass' else '')}</td></tr>"
        for check in sorted(checks, key=lambda check: order[check.status]))
    return ('<div class="scroll" tabindex="0" role="region" '
            'aria-label="Checks"><table><tr><th>status</th><th>check</th><th>figure</th>'
            f"<th>what was found</th><th>what to do</th></tr>{rows}</table></div>")
