"""Nonlinear mixed models (Lindstrom and Bates 1990, Biometrics 46), as arrow models of groups.

    y_i ~ family(eta_i),    eta_i = f_i(beta + E b_g(i)),    b_g ~ N(0, Psi(rho))

E picks the parameters that have a random effect. The three methods are those of `MixedModel`:

    "REML"     Laplace in (b, beta) around their joint mode, flat prior on beta
    "ML"       Laplace in b, beta at the joint mode of (b, beta)
    "Laplace"  Laplace in b, beta maximises that approximation (TMB; nlmer)

f is not linear in b, so all three are approximations for Gaussian data too, and "ML" differs from
"Laplace". By "Laplace" beta = R gamma, with gamma among the outer parameters: R makes the columns
of df/dgamma orthogonal at the start, each of the typical size of what effects explain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reml_sae.engine import Theta
from reml_sae.errors import InputError
from reml_sae.families import Family, get_family
from reml_sae.linalg import batched_solve_psd
from reml_sae.models.mixed.border import Border
from reml_sae.models.mixed.covariance import Covariance
from reml_sae.models.mixed.grouped import GroupedModel
from reml_sae.models.nonlinear.design import (
    PooledCurve,
    effect_columns,
    grouped_data,
    named_start,
)
from reml_sae.models.nonlinear.mean import Mean, check_mean
from reml_sae.models.nonlinear.point import NonlinearPoint
from reml_sae.models.nonlinear.structure import NonlinearStructure
from reml_sae.typing import Array

METHODS = ("REML", "ML", "Laplace")
EXPLAINED = 0.5
"""Share of what the curve of the mean parameters leaves that the effects have at the start."""


class NonlinearMixedModel(GroupedModel, NonlinearStructure):
    """Arrow model of grouped observations on nonlinear curves.

    Memory is a few arrays (n, P, P), and with curvature="exact" of (n, P, P, P).

    Parameters
    ----------
    y : (n,) array
    mean : Mean
        ``mean(parameters, order)`` returns eta and its derivatives up to ``order`` at parameters
        (n, P), a row for each observation: a tuple of arrays (n,), (n, P), (n, P, P) and
        (n, P, P, P). `Curve` makes it from a formula. The derivatives are checked near ``start``.
    groups : (n,) array of labels
    random : sequence of str or int
        Names or numbers of the parameters that have a random effect.
    start : mapping of names to numbers, or (P,) array
        Where the search for the parameters starts; a mapping names them, in the order of the
        columns of ``parameters``.
    family : str or Family
    covariance : "diagonal" or "full"
    method : "REML", "ML" or "Laplace"

    Examples
    --------
    >>> import numpy as np
    >>> from reml_sae import fit_reml
    >>> from reml_sae.models import Curve
    >>> rng = np.random.default_rng(0)
    >>> x, g = np.tile(np.linspace(0.0, 3.0, 6), 12), np.repeat(np.arange(12), 6)
    >>> y = (3.0 + rng.normal(size=12)[g]) * np.exp(-0.7 * x) + 0.1 * rng.normal(size=72)
    >>> mean = Curve(lambda size, rate: size * np.exp(-rate * x))
    >>> model = NonlinearMixedModel(y, mean, g, ["size"], {"size": 2.0, "rate": 1.0})
    >>> fit_reml(model).converged
    True
    """

    def __init__(
        self,
        y: Any,
        mean: Mean,
        groups: Any,
        random: Sequence[str] | Sequence[int],
        start: Mapping[str, float] | Sequence[float] | Array,
        *,
        family: str | Family = "gaussian",
        covariance: str = "diagonal",
        method: str = "REML",
    ):
        if method not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        if not callable(mean):
            raise InputError(f"mean must be a callable mean(parameters, order), got {mean!r}; "
                             "Curve makes one from a formula")
        chosen, data = get_family(family), grouped_data(y, groups)
        chosen.check(data.y)
        names, first = named_start(start)
        columns = effect_columns(random, names)
        check_mean(mean, first, names, len(data.y))
        pooled = PooledCurve.fit(mean, chosen, data.y, first, names)
        self._pooled = pooled.beta
        self._eta_scale = pooled.typical_rest(chosen, data.y)
        sizes = self._eta_scale / np.sqrt(np.mean(pooled.gradient**2, axis=0))
        p = len(first)
        super().__init__(
            family=chosen, method=method, x_names=names,
            terms=(Covariance(covariance, tuple(names[c] for c in columns), sizes[columns]),),
            border=(Border(np.zeros((p, 0)), self._eta_scale * pooled.inverse_triangle(), ())
                    if method == "Laplace" else Border.whole((), p)),
            data=data, mean=mean, effect_columns=columns)

    # --- protocol: structure ---------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """(n, 1)."""
        return len(self.data.y), 1

    @property
    def effective_dim(self) -> int:
        """Number of integrated parameters."""
        return self.data.n_groups * len(self.effect_columns) + int(self.integrated.sum())

    def strengths(self, rho: Array) -> dict[str, float]:
        """Precisions of the effects, by name."""
        return {name: float(np.exp(value)) for name, value in self.outer.named(rho).items()
                if name.startswith("log_precision")}

    # --- starts ----------------------------------------------------------------------------------

    def initial_rho(self) -> Array:
        """Outer parameters from which the outer loop starts."""
        if self._rho is None:
            rho = np.zeros(len(self.outer))
            rho[self.outer["covariance"]] = self.terms[0].start(
                EXPLAINED / len(self.effect_columns))
            rho[self.outer["fixed"]] = self.border.outer_of(self._pooled)
            psi = np.array(self.family.initial_psi(self.data.y), float)
            if self.family.has_dispersion:
                psi[0] = np.log(self._eta_scale**2 * (1.0 - EXPLAINED))
            box = self.family.psi_bounds()
            rho[self.outer.psi] = np.clip(psi, box[:, 0], box[:, 1])
            self._rho = rho
        return self._rho.copy()

    def initial_theta(self) -> Theta:
        """State from which an inner solve starts: no effects, coefficients of the pooled fit."""
        if self._theta is None:
            effects = np.zeros((self.data.n_groups, len(self.effect_columns)))
            self._theta = Theta(effects, (self.border.inner.T @ self._pooled)[:, None])
        return self._theta

    # --- protocol: the inner problem -------------------------------------------------------------

    def at(self, theta: Theta, rho: Array) -> NonlinearPoint:
        """The model at a state and outer parameters."""
        return NonlinearPoint(self, theta, np.asarray(rho, float))

    def refine_rows(self, theta: Theta, rho: Array, n_sweeps: int = 1) -> Theta:
        """Gauss-Newton steps of every group at fixed coefficients; no group's part of F rises.

        All groups at once, each with a length of step of its own, which `solve_inner` has not.
        """
        for _ in range(n_sweeps):
            point = self.at(theta, rho)
            L = point.effects.factor
            step = batched_solve_psd(point.matrix("majorizer").rows, -point.gradient().xi @ L)
            step = step @ L.T
            own = self.row_objective(theta, rho)
            waiting, xi = np.ones(len(own), bool), theta.xi.copy()
            for factor in (1.0, 0.3, 0.1):
                trial = Theta(np.where(waiting[:, None], theta.xi + factor * step, xi), theta.beta)
                better = waiting & (self.row_objective(trial, rho) < own)
                xi[better] = trial.xi[better]
                waiting &= ~better
            theta = Theta(xi, theta.beta)
        return theta
