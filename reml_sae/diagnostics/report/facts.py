"""What the head, the table of atoms and the sections on noise and trace show, as plain values."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from reml_sae.diagnostics.noise import atom_names, noise_lines, noise_shapes
from reml_sae.diagnostics.report.rows import RowsOfFit
from reml_sae.families import get_family
from reml_sae.families.noise import Diagonal, Factor

SHOWN_STRENGTHS = 24
SPECTRUM, SPECTRUM_ROWS, WORST_ROWS, BINS = 64, 1500, 8, 30


def head(rows: RowsOfFit, source: str, version: str) -> list[tuple[str, str]]:
    """Pairs of a name and its value."""
    model = rows.model
    n, k = model.codes_.assignments.shape
    defaults = {name: item.default for name, item in
                inspect.signature(type(model)).parameters.items()}
    given = {name: value for name, value in model.get_params(deep=False).items()
             if name not in ("topology", "random_state", "callbacks", "executor", "verbose")
             and repr(value) != repr(defaults[name])}
    family = get_family(model.family)
    noise = (noise_lines(model.noise_, model.dispersion_, model.diagnostics_.noise, k)
             if family.has_dispersion else [])
    seconds = model.trace_[-1].seconds if len(model.trace_) else None
    explained = next((f"{value:.4f}" for name, value in model.diagnostics_.figures.items()
                      if name.startswith("explained")), "")
    return [(name, value) for name, value in (
        ("Data", f"{source + ': ' if source else ''}{n} rows, {model.n_features_in_} columns"),
        ("Arguments", ", ".join(f"{name}={value!r}" for name, value in given.items())
         or "defaults"),
        ("Seed", repr(model.random_state)),
        ("Version", version),
        ("Time", _time(model.search_.seconds, seconds)),
        ("Search", "" if model.search_.tries is None else str(model.search_.tries)),
        ("Status", f"{'converged' if model.converged_ else 'NOT CONVERGED'}: {model.message_} "
                   f"({model.n_iter_} outer iterations)"),
        ("V", f"{model.criterion_:.3f} nats"),
        ("Effective degrees of freedom", f"{model.edf_:.1f}"),
        ("Explained", explained),
        ("Noise", "; ".join(line.strip() for line in noise)),
        ("Rows", "SHA-256 " + model.data_digest_ if model.data_digest_ else ""),
    ) if value]


def _time(whole: float | None, last: float | None) -> str:
    """Of the fit, where it was kept, and of the last REML fit in it."""
    parts = ([] if whole is None else [f"{whole:.1f} s"]) + (
        [] if last is None else [f"last REML fit {last:.1f} s"])
    return ", ".join(parts)


def table(rows: RowsOfFit, order: Sequence[int]) -> list[dict[str, Any]]:
    """One dictionary an atom, in an order of them; None where a figure is not known."""
    model = rows.model
    figures = {check.name: check.figure for check in model.diagnostics_.checks}
    out = []
    for k in order:
        atom = model.atoms_[k]
        mine = rows.users[:, k]
        count = int(mine.sum())
        out.append({
            "atom": k, "topology": atom.topology.label, "rows": count, "share": atom.share,
            "edf": atom.edf, "evidence": atom.evidence,
            "evidence_per_row": _known(atom.evidence_per_row), "over_flat": _known(atom.over_flat),
            "amplitude": float(model.codes_.assignments[mine, k].mean()) if count else None,
            "coverage": figures.get(f"atom {k} coverage"),
            "status": _worst([check.status for check in model.diagnostics_.checks
                              if check.name.startswith(f"atom {k} ")]),
        })
    return out


def trace(model: Any) -> dict[str, Any]:
    """V and the log strengths by outer iteration; the strengths that moved most."""
    steps = list(model.trace_)
    values = np.array([row.criterion for row in steps])
    names = list(steps[-1].rho) if steps else []
    moved = {name: float(np.ptp([row.rho[name] for row in steps])) for name in names}
    shown = sorted(names, key=lambda name: -moved[name])[:SHOWN_STRENGTHS]
    return {"iteration": [row.iteration for row in steps],
            "above": (values - values.min(initial=np.inf)).tolist(), "n_strengths": len(names),
            "strengths": {name: [round(row.rho[name], 4) for row in steps]
                          for name in names if name in shown}}


def noise(rows: RowsOfFit) -> dict[str, Any] | None:
    """Standard deviations of the noise, the largest first, and of the residuals beside them."""
    model = rows.model
    if not get_family(model.family).has_dispersion:
        return None
    series, p = [], model.n_features_in_
    for atoms, shape in noise_shapes(model.noise_, len(model.atoms_)):
        sd = float(np.sqrt(model.dispersion_) * np.exp(0.5 * model.noise_.log_size(atoms[0])))
        sds = np.full(p, sd)
        if isinstance(shape, Diagonal):
            sds = np.sort(sd * np.exp(0.5 * shape.log_variances))[::-1]
        elif isinstance(shape, Factor):
            sds *= np.sqrt(shape.floor)
            sds[: shape.rank] *= np.sqrt(shape.ratios)
        whose = f", {atom_names(atoms)}" if model.noise_.n_metrics > 1 else ""
        series.append({"name": f"{shape.kind} noise{whose}",
                       "sd": [float(f"{value:.4g}") for value in sds[:SPECTRUM]]})
    if rows.residual is not None:
        some = rows.residual[np.linspace(0, len(rows.residual) - 1, min(
            SPECTRUM_ROWS, len(rows.residual))).astype(np.intp)]
        sizes = np.linalg.svd(some, compute_uv=False)[:SPECTRUM] / np.sqrt(len(some))
        series.append({"name": "principal axes of the residuals",
                       "sd": [float(f"{value:.4g}") for value in sizes]})
    return {"series": series, "p": p}


def residuals(rows: RowsOfFit) -> dict[str, Any] | None:
    """Norms of the residuals and the rows with the largest; None without rows."""
    if rows.residual is None:
        return None
    size = np.sqrt((rows.residual**2).mean(axis=1))
    counts, edges = np.histogram(size, BINS)
    return {"low": float(edges[0]), "high": float(edges[-1]), "counts": counts.tolist(),
            "cyclic": False, "worst": [
                {"row": int(i), "size": float(size[i]), "label": rows.label(int(i))}
                for i in np.argsort(-size, kind="stable")[:WORST_ROWS]]}


def _known(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value


def _worst(states: list[str]) -> str:
    return next((state for state in ("fail", "warn") if state in states), "pass")
