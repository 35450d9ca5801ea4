"""Intervals of standard deviations by the profile of V.

The sd of the first effect of a term is an outer parameter, exp(-l / 2): for each effect of a full
covariance the profile is that of the same model with the effect first. With z(l) the signed root of
2 (V(l) - min V), the ends are where |z| reaches the normal quantile, by monotone interpolation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.stats import norm as normal

from reml_sae.engine import FitResult, Theta, profile_criterion
from reml_sae.models.mixed.arrow import MixedArrow
from reml_sae.models.mixed.covariance import term_slices
from reml_sae.typing import Array, Curvature

LARGEST_RISE = 60.0
"""Change of a log precision beyond which an end is open: an sd of 0, or infinity."""
REFINEMENTS, RESOLUTION = 8, 1e-3
"""Most evaluations at an interpolated end, and the log precision within which they stop."""
POINTS = np.array([0.35, 0.7, 1.0])
"""Where a profile is evaluated, as shares of the distance to its outermost point."""


def sd_intervals(
    model: MixedArrow, fit: FitResult, level: float, curvature: Curvature
) -> dict[str, tuple[float, float]]:
    """Intervals of the sds of all random effects, and of a Gaussian's residual, by name."""
    target = float(normal.ppf(0.5 + 0.5 * level))
    state = model.with_state(fit.theta, fit.rho)
    group = "groups" if model.layout is None else model.layout.rows[0].group if model.terms else ""
    out = {}
    for t, (term, own) in enumerate(zip(
            model.terms, term_slices(model.terms, model.outer["covariance"].start), strict=True)):
        for j, name in enumerate(term.names):
            moved, rho = state, fit.rho
            if term.kind == "full" and j:
                moved, rho = _first(state, fit, t, j, own)
            out[f"sd[{name} | {group}]"] = _ends(
                moved, rho, f"log_precision[{name}]", target, curvature, -0.5)
    random = [] if model.layout is None else [
        name for term in model.layout.crossed for name in term.smooth_names()]
    for name in random:
        out[f"sd[{name}]"] = _ends(state, fit.rho, f"log_lambda[{name}]", target, curvature, -0.5)
    if model.family.name == "gaussian":
        out["sd[residual]"] = _ends(state, fit.rho, "log_dispersion", target, curvature, 0.5)
    return out


def _first(
    model: MixedArrow, fit: FitResult, t: int, j: int, own: slice
) -> tuple[MixedArrow, Array]:
    """The model with effect j of term t first, and its rho."""
    moved = model.rebuilt(first=(t, j))
    order = [j, *(k for k in range(model.terms[t].size) if k != j)]
    L = model.terms[t].factor(fit.rho[own])[order]
    rho = fit.rho.copy()
    rho[own] = moved.terms[t].parameters(np.asarray(np.linalg.cholesky(L @ L.T), float))
    begin = sum(term.size for term in model.terms[:t])
    columns = np.arange(fit.theta.xi.shape[1])
    columns[begin : begin + len(order)] = begin + np.array(order)
    return moved.with_state(Theta(fit.theta.xi[:, columns], fit.theta.beta), rho), rho


def _ends(
    model: Any, rho: Array, name: str, target: float, curvature: Curvature, power: float
) -> tuple[float, float]:
    """Ends of exp(power * parameter), in rising order."""
    fitted = float(rho[model.outer.place(name)])
    low, high = model.outer.bounds[model.outer.place(name)]

    def values(at: Array) -> Array:
        return profile_criterion(model, rho, name, at, curvature=curvature).criterion

    best = float(values(np.array([fitted]))[0])
    ends = []
    for side, bound in ((-1.0, low), (1.0, high)):
        known = {0.0: 0.0}

        def learn(steps: Array, side: float = side, known: dict[float, float] = known) -> None:
            rise = values(np.sort(fitted + side * steps))[:: int(side)]
            known |= zip(steps.tolist(), np.sqrt(np.maximum(2.0 * (rise - best), 0.0)), strict=True)

        reach, end = 1.0, np.inf
        while reach <= min(LARGEST_RISE, abs(bound - fitted)):
            learn(reach * POINTS[reach * POINTS > max(known)])
            if max(known.values()) >= target:
                for _ in range(REFINEMENTS):
                    end = _crossing(known, target)
                    if min(abs(end - step) for step in known) < RESOLUTION:
                        break
                    learn(np.array([end]))
                break
            reach *= 1.6
        ends.append(fitted + side * end)
    first, last = sorted(float(np.exp(power * end)) for end in ends)
    return first, last


def _crossing(known: dict[float, float], target: float) -> float:
    """Where the signed root reaches the target, from its values at some steps."""
    at = np.array(sorted(known))
    roots = np.array([known[step] for step in at.tolist()])
    # where V is flat, as towards a variance of zero, the root does not rise
    rising = np.isfinite(roots) & (roots > np.concatenate([[-1.0], np.maximum.accumulate(
        np.where(np.isfinite(roots), roots, -1.0))[:-1]]))
    return float(PchipInterpolator(roots[rising], at[rising])(target))
