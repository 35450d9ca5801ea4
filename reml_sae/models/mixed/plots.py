"""Panels of a fitted mixed model: its residuals, their quantiles, and its smooths."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import norm as normal

from reml_sae.errors import require
from reml_sae.models.mixed.arrow import MixedArrow
from reml_sae.typing import Array

BAND = 1.959963984540054
PANEL = (4.0, 3.2)
"""Width and height in inches."""
GRID = 200


def plot_fit(
    model: MixedArrow, beta: Array, covariance: Array, eta: Array, residuals: Array
) -> Any:
    """Scaled residuals against eta, their normal quantiles, and each smooth of a formula.

    Parameters
    ----------
    model : MixedModel
    beta : (P,) array
    covariance : (P, P) array
    eta, residuals : (n,) arrays
    """
    pyplot = require("matplotlib.pyplot", "plot", "FittedMixedModel.plot")
    smooths = () if model.layout is None else model.layout.smooths
    count = 2 + len(smooths)
    figure, axes = pyplot.subplots(1, count, figsize=(count * PANEL[0], PANEL[1]),
                                   layout="constrained")
    axes[0].plot(eta, residuals, ".")
    axes[0].axhline(0.0, color="0.6", linewidth=1)
    axes[0].set(xlabel="linear predictor", ylabel="scaled residual")
    n = len(residuals)
    quantiles = normal.ppf((np.arange(n) + 0.5) / n)
    axes[1].plot(quantiles, np.sort(residuals), ".")
    axes[1].axline((0.0, 0.0), slope=1.0, color="0.6", linewidth=1)
    axes[1].set(xlabel="normal quantile", ylabel="scaled residual")
    bound = {s.name: s.columns for s in model.all_smooths}
    for (part, spline), panel in zip(smooths, axes[2:], strict=True):
        own = bound[part.name]
        x = np.linspace(*spline.ends, GRID)
        basis = spline.columns(x)
        value = basis @ beta[own]
        half = BAND * np.sqrt(np.einsum("nk,kl,nl->n", basis, covariance[np.ix_(own, own)], basis))
        panel.plot(x, value)
        panel.fill_between(x, value - half, value + half, alpha=0.25)
        panel.set(xlabel=part.variable, ylabel=part.name)
    return figure
