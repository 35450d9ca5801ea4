"""What the card of an atom shows, as plain values that the page draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from reml_sae.diagnostics.report.geometry import Frame, curve, mesh, shown_coordinates
from reml_sae.diagnostics.report.rows import RowsOfFit
from reml_sae.rows import spread_index
from reml_sae.typing import Array

FULL_CARDS = 50
"""Atoms, the most evident first, with full cards; those of the others have fewer points."""
FULL_MESH, FEW_LINES = (12, 41), (6, 21)
POINTS, FEW_POINTS, TOP_ROWS, NEIGHBOURS, BINS = 400, 60, 8, 5, 24
DIGITS = 4


def card(k: int, rows: RowsOfFit, neighbours: list[dict[str, Any]], full: bool) -> dict[str, Any]:
    """The card of atom k."""
    model = rows.model
    atom, shape = model.atoms_[k], model.atoms_[k].topology
    mine = np.flatnonzero(rows.users[:, k])
    out: dict[str, Any] = {
        "atom": k, "full": full, "flat": shape.is_flat, "n": len(mine), "neighbours": neighbours,
        "rows": _top_rows(k, rows, mine), "amplitude": _amplitudes(k, rows, mine),
        "flags": [{"status": check.status, "text": f"{check.name}: {check.message}"}
                  for check in model.diagnostics_.checks
                  if check.status != "pass" and check.name.startswith(f"atom {k} ")],
    }
    if not shape.latent_dim:
        return {**out, "coordinates": [], "axes": []}
    carried = np.flatnonzero(rows.users[:, k] & model.codes_.gates[:, k])
    t = model.codes_.coordinates[k]
    out["coordinates"] = [
        {"name": name, **_histogram(values, cyclic)}
        for name, values, cyclic in shown_coordinates(shape, t[carried])]
    shown = carried[spread_index(len(carried), POINTS if full else FEW_POINTS)]
    lines = ([curve(shape, t[carried])] if shape.intrinsic_dim == 1
             else mesh(shape, *(FULL_MESH if full else FEW_LINES)))
    return {**out, **_drawing(k, atom, rows, lines, shown)}


def co_activation(users: NDArray[np.bool_]) -> list[list[dict[str, Any]]]:
    """For every atom the atoms that its rows use too: n_ij / sqrt(n_i n_j), largest first."""
    uses = csr_array(users.astype(float))
    both = (uses.T @ uses).toarray()
    counts = both.diagonal().copy()
    np.fill_diagonal(both, 0.0)
    cosine = both / np.sqrt(np.maximum(np.multiply.outer(counts, counts), 1.0))
    return [[{"atom": int(j), "cosine": _plain(cosine[k, j]), "n": int(both[k, j])}
             for j in np.argsort(-cosine[k], kind="stable")[:NEIGHBOURS] if both[k, j]]
            for k in range(len(cosine))]


def _drawing(
    k: int, atom: Any, rows: RowsOfFit, lines: list[Array], shown: NDArray[np.intp]
) -> dict[str, Any]:
    """Curve or mesh of an atom on its own axes, and the rows beside it."""
    shape = atom.topology
    frame = Frame.of(atom)
    own = rows.without_others(k, shown)
    if own is not None and len(frame.axes) == 1:
        frame = frame.with_axis(own - frame.centre)
    axes = [f"axis {j + 1}: {share:.1%} of the atom" if share else "residual: across the atom"
            for j, share in enumerate(frame.shares)]
    out: dict[str, Any] = {"axes": axes, "lines": [], "points": [], "at": [], "row": []}
    out["residual"] = len(axes) == 2 and not frame.shares[1]
    out["surface"] = shape.intrinsic_dim == 2 and len(frame.axes) == 3
    out["lines"] = [_plain(frame.project(shape.basis(line) @ atom.coefficients)) for line in lines]
    if own is not None:
        colour = shown_coordinates(shape, rows.model.codes_.coordinates[k][shown])[0]
        out |= {"points": _plain(frame.project(own)), "at": _plain(colour[1]),
                "row": shown.tolist(), "labels": [rows.label(i) for i in shown]}
    return out


def _top_rows(k: int, rows: RowsOfFit, mine: NDArray[np.intp]) -> dict[str, Any]:
    """Rows of the largest amplitude; where all are equal, rows spread along the coordinate."""
    codes = rows.model.codes_
    size, t = np.abs(codes.assignments[mine, k]), codes.coordinates[k][mine]
    if (len(mine) and np.ptp(size) > 1e-9) or not t.shape[1]:
        order, title = mine[np.argsort(-size, kind="stable")[:TOP_ROWS]], "Rows that use it most"
    else:
        along = np.argsort(t[:, 0], kind="stable")
        order = mine[along[spread_index(len(along), TOP_ROWS)]]
        title = "Rows along the coordinate"
    return {"title": title, "items": [
        {"row": int(i), "amplitude": _plain(codes.assignments[i, k]),
         "at": _plain(codes.coordinates[k][i]), "label": rows.label(i)} for i in order]}


def _amplitudes(k: int, rows: RowsOfFit, mine: NDArray[np.intp]) -> dict[str, Any] | None:
    values = rows.model.codes_.assignments[mine, k]
    if not len(values) or np.ptp(values) < 1e-9:
        return None
    return _histogram(values, False)


def _histogram(values: Array, cyclic: bool) -> dict[str, Any]:
    if cyclic:
        low, high = -np.pi, np.pi
    else:
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts = np.histogram(values, BINS, (low, high))[0]
    return {"low": _plain(low), "high": _plain(high), "counts": counts.tolist(), "cyclic": cyclic}


def _plain(values: Any) -> Any:
    """Numbers for JSON, of a few digits; no number where it is not finite."""
    if np.ndim(values):
        return [_plain(value) for value in values]
    return float(f"{float(values):.{DIGITS}g}") if np.isfinite(values) else None
