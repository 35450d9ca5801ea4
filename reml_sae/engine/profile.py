"""V along one outer parameter, the others free (`profile_criterion`) or held (`grid_criterion`).

V is a negative log marginal likelihood, so 2 (V - min V) is a likelihood ratio, and the values at
which the profile stays below a chi-squared quantile are a confidence interval.

V is defined at a mode of theta. Where the inner solve did not converge it is infinite here, and
what is read off a profile leaves such points out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.stats import chi2

from reml_sae.engine.criterion import at_mode, criterion
from reml_sae.engine.protocol import ArrowModel, Theta
from reml_sae.errors import InnerConvergenceError, InputError, NotPositiveDefiniteError, require
from reml_sae.typing import Array, Curvature

SLOPE = 1e-6
"""Slope of V for each entry of the data at which a search has converged whatever it says."""


@dataclass(frozen=True)
class CriterionProfile:
    """V minimised over all outer parameters but one.

    Attributes
    ----------
    name : str
    values : (n,) array
        Rising values of the parameter.
    criterion : (n,) array
        V; infinite where no inner solve converged.
    rho : (n, n_rho) array
        Where the minimum is.
    converged : (n,) array of bool
        Whether the inner solve converged, and the search for the minimum; V is an upper bound where
        only the search did not.
    """

    name: str
    values: Array
    criterion: Array
    rho: Array
    converged: NDArray[np.bool_]

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Likelihood-ratio interval, by linear interpolation; infinite where the profile is open.

        Parameters
        ----------
        level : float in (0, 1)

        Raises
        ------
        InnerConvergenceError
            Where no point converged.
        """
        if not 0.0 < level < 1.0:
            raise InputError(f"level must lie in (0, 1), got {level!r}")
        values, criterion = self._converged()
        best = int(np.argmin(criterion))
        excess = 2.0 * (criterion - criterion[best]) - float(chi2.ppf(level, 1))
        ends = []
        for step, beyond in ((-1, -np.inf), (1, np.inf)):
            i = best
            while 0 <= i + step < len(excess) and excess[i + step] < 0.0:
                i += step
            if not 0 <= i + step < len(excess):
                ends.append(beyond)
                continue
            share = excess[i] / (excess[i] - excess[i + step])
            ends.append(float(values[i] + share * (values[i + step] - values[i])))
        return ends[0], ends[1]

    def _converged(self) -> tuple[Array, Array]:
        """Values of the parameter and V where both searches converged."""
        if not self.converged.any():
            raise InnerConvergenceError(
                f"no point of the profile along {self.name} converged, so nothing can be read off "
                "it; take values nearer the fit")
        return self.values[self.converged], self.criterion[self.converged]

    def plot(self, axes: Any = None) -> Any:
        """Draw V above its minimum where it converged; returns the matplotlib figure."""
        values, criterion = self._converged()
        if axes is None:
            pyplot = require("matplotlib.pyplot", "plot", "CriterionProfile.plot")
            _, axes = pyplot.subplots(figsize=(5, 3.6), layout="constrained")
        axes.plot(values, criterion - criterion.min(), ".-")
        axes.axhline(0.5 * chi2.ppf(0.95, 1), color="0.6", linewidth=1, linestyle="--")
        axes.set(xlabel=self.name, ylabel="V above its minimum (nats)")
        return axes.figure


def profile_criterion(
    model: ArrowModel,
    rho: Array,
    name: str,
    values: ArrayLike,
    *,
    curvature: Curvature = "majorizer",
    tol: float = 1e-8,
) -> CriterionProfile:
    """Profile V along one outer parameter.

    Parameters
    ----------
    model : ArrowModel
        At the state of a fit, from which the inner solves start.
    rho : (n_rho,) array
        The fitted outer parameters.
    name : str
        One of ``model.outer.names``.
    values : (n,) array-like
    curvature : "majorizer" or "exact"
    tol : float
        Newton decrement of the inner solves.

    Returns
    -------
    CriterionProfile
        Found outwards from the fitted value, each minimum from that of its neighbour.
    """
    held = model.outer.place(name)
    at = np.unique(np.asarray(values, float))
    if not at.size or not np.isfinite(at).all():
        raise InputError("values must be finite numbers, at least one")
    rho = np.asarray(rho, float)
    free = np.arange(len(rho)) != held
    bounds = model.outer.bounds[free]
    found = np.full(len(at), np.inf)
    where, converged = np.tile(rho, (len(at), 1)), np.zeros(len(at), bool)
    where[:, held] = at
    split = int(np.searchsorted(at, rho[held]))
    for order in (range(split, len(at)), range(split - 1, -1, -1)):
        start, theta = rho[free], model.initial_theta()
        for i in order:
            point = where[i]

            def objective(x: Array, point: Array = point, theta: Theta = theta
                          ) -> tuple[float, Array]:
                trial = point.copy()
                trial[free] = x
                try:
                    value = at_mode(model, criterion(model, trial, theta=theta,
                                                     curvature=curvature, tol=tol))
                except (InnerConvergenceError, NotPositiveDefiniteError):
                    return np.inf, np.zeros_like(x)
                return value.value, value.gradient[free]

            if free.any():
                result = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds,
                                  options={"ftol": 1e-13, "gtol": 1e-7})
                point[free], found[i] = result.x, float(result.fun)
                converged[i] = np.isfinite(found[i]) and (
                    result.success or _is_flat(result.x, result.jac, bounds, model.shape))
            else:
                found[i] = objective(start)[0]
                converged[i] = np.isfinite(found[i])
            if np.isfinite(found[i]):
                start = point[free]
                theta = criterion(model, point, theta=theta, curvature=curvature, gradient=False,
                                  tol=tol).inner.theta
    return CriterionProfile(name, at, found, where, converged)


def grid_criterion(
    model: ArrowModel,
    rho: Array,
    axes: Mapping[str, ArrayLike],
    *,
    curvature: Curvature = "majorizer",
    tol: float = 1e-8,
) -> Array:
    """V on a grid of some outer parameters, the others held.

    Parameters
    ----------
    model : ArrowModel
    rho : (n_rho,) array
        The parameters that are held.
    axes : mapping of names to values
    curvature : "majorizer" or "exact"
    tol : float

    Returns
    -------
    array with one axis for each name, in order; infinite where the inner solve did not converge
    """
    places = [model.outer.place(name) for name in axes]
    ticks = [np.atleast_1d(np.asarray(values, float)) for values in axes.values()]
    out = np.full([len(tick) for tick in ticks], np.inf)
    for index in product(*(range(len(tick)) for tick in ticks)):
        trial = np.array(rho, float)
        trial[places] = [tick[i] for tick, i in zip(ticks, index, strict=True)]
        try:
            out[index] = at_mode(model, criterion(
                model, trial, curvature=curvature, gradient=False, tol=tol)).value
        except (InnerConvergenceError, NotPositiveDefiniteError):
            continue
    return out


def _is_flat(x: Array, slope: Array, bounds: Array, shape: tuple[int, int]) -> bool:
    """Whether V cannot fall within the box; a search may end so without its own tests being met."""
    low, high = bounds.T
    inward = np.where(((x <= low) & (slope > 0)) | ((x >= high) & (slope < 0)), 0.0, slope)
    return bool(np.abs(inward).max(initial=0.0) <= SLOPE * (1.0 + np.prod(shape)))
