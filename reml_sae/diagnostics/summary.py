"""The text table of a fit, in the manner of mgcv's summary."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

import numpy as np

from reml_sae.diagnostics.check import Check
from reml_sae.diagnostics.checks import explained_name
from reml_sae.diagnostics.noise import noise_lines
from reml_sae.diagnostics.report.advice import advice
from reml_sae.families import Family, get_family

WIDTH = 100
"""Columns of the lines on checks."""
LIMITS = {"infinite": "infinite: what it penalises is gone", "zero": "zero: it does nothing"}
"""What a strength at a limit is."""


def summary_text(model: Any) -> str:
    """Summary of a fitted `SAEManifold`."""
    n, k = len(model.codes_), len(model.atoms_)
    family = get_family(model.family)
    width = max(len(atom.topology.label) for atom in model.atoms_)
    lines = [
        f"SAE-manifold, {family.name.replace('_', ' ').capitalize()} family, "
        f"{model.assignment_.name.replace('_', ' ')} assignment",
        f"rows {n}, columns {model.n_features_in_}, atoms {k}",
        "",
        "Atoms:",
        f"  {'':>3} {'topology':<{width}}{'rows':>7}{'share':>8}{'edf':>10}{'evidence':>12}"
        f"{'a row':>9}{'over flat':>11}",
    ]
    counts = model.codes_.counts(model.assignment_)
    for j, (atom, count) in enumerate(zip(model.atoms_, counts, strict=True)):
        lines.append(f"  {j:>3} {atom.topology.label:<{width}}{count:>7}{atom.share:>8.3f}"
                     f"{atom.edf:>10.2f} {atom.evidence:>11.1f}"
                     f"{_figure(atom.evidence_per_row):>9}{_figure(atom.over_flat):>11}")
    lines += model.search_.lines()
    if model.strengths_:
        lines += ["", "Strengths (data scaled to unit root mean square):"]
    limits = dict(model.limits_)
    for name, value in model.strengths_.items():
        note = f"  -> {LIMITS[limits[name]]}" if name in limits else ""
        lines.append(f"  {name:<48}{value:>12.4g}{note}")
    held = [term for term in model.penalties_ if not term.penalty.rho_count()]
    if held:
        lines += ["", "Weights that are held, not chosen:"]
    for term in held:
        note = "" if term.penalty.is_normalised else "  a potential without normaliser"
        lines.append(f"  {term.label:<48}{term.penalty.weight:>12.4g}{note}")
    backend = model.diagnostics_.figures.get("sparse backend")
    if backend is not None:
        lines += ["", f"Rows are coupled along a graph; sparse Cholesky by {backend}"]
    if family.has_dispersion:
        lines += ["", "Noise:", *noise_lines(model.noise_, model.dispersion_,
                                             model.diagnostics_.noise, k), *_row_lines(model)]
    explained = explained_name(family)
    share = model.diagnostics_.figures[explained]
    status = "converged" if model.converged_ else "NOT CONVERGED"
    lines += [
        "",
        f"{_own_parameters(model, family)}edf {model.edf_:.1f}",
        f"{explained} {share:.4f}   V = {model.criterion_:.4f} nats",
        f"{status}: {model.message_} ({model.n_iter_} outer iterations)",
    ]
    for check in model.diagnostics_.checks:
        if check.status != "pass":
            lines += _flagged(check)
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:.3f}"


def _flagged(check: Check) -> list[str]:
    """A check that does not pass: what was found, and what it asks the reader to do."""
    found = f"{check.status}: {check.name} ({check.figure:.3g}): {check.message}"
    todo = advice(check)
    return ["", *wrap(found, WIDTH, subsequent_indent="      "),
            *wrap(todo, WIDTH, initial_indent="   -> ", subsequent_indent="      ")]


def _row_lines(model: Any) -> list[str]:
    """How unequal the scales of rows are, where they may be."""
    if model.row_noise == "gaussian":
        return []
    if np.isinf(model.df_):
        return ["  rows have one scale: the degrees of freedom ran to their limit, the Gaussian"]
    weights = model.codes_.weights
    return [f"  rows have scales of their own: a t with {model.df_:.4g} degrees of freedom; "
            f"weights from {weights.min():.3g} to {weights.max():.3g}"]


def _own_parameters(model: Any, family: Family) -> str:
    """The family's own outer parameters, each with three spaces behind it."""
    if family.has_dispersion:
        mean = " (geometric mean)" if model.noise_.kind != "isotropic" else ""
        return (f"dispersion {model.dispersion_:.6g}   "
                f"noise sd {np.sqrt(model.dispersion_):.6g}{mean}   ")
    values = dict(zip(model.rho_names_, model.rho_, strict=True))
    psi = np.array([values[name] for name in family.psi_names])
    return "".join(f"{name} {value:.6g}   " for name, value in family.natural(psi).items())
