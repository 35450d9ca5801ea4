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
from copy import copy
from typing import Any

import numpy as np

from reml_sae.engine import Outer, Theta
from reml_sae.errors import InputError
from reml_sae.families import Family, get_family
from reml_sae.linalg import batched_solve_psd
from reml_sae.models.family_part import family_part
from reml_sae.models.mixed.border import Border
from reml_sae.models.mixed.covariance import Covariance, EffectsPrior
from reml_sae.models.mixed.grouped import GroupedModel, covariance_part, fixed_part
from reml_sae.models.nonlinear.design import (
    PooledCurve,
    effect_columns,
    grouped_data,
    named_start,
)
from reml_sae.models.nonlinear.mean import Mean, check_mean, jets
from reml_sae.models.nonlinear.point import NonlinearPoint
from reml_sae.typing import Array

METHODS = ("REML", "ML", "Laplace")
EXPLAINED = 0.5
"""Share of what the curve of the mean parameters leaves that the effects have at the start."""


class NonlinearMixedModel(GroupedModel):
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
        self.mean, self.method, self.family = mean, method, get_family(family)
        self.data = grouped_data(y, groups)
        self.family.check(self.data.y)
        self.x_names, first = named_start(start)
        self.effect_columns = effect_columns(random, self.x_names)
        self.effect_map: Array = np.eye(len(first))[:, self.effect_columns]
        """E, (P, q)."""
        check_mean(mean, first, self.x_names, len(self.data.y))
        pooled = PooledCurve.fit(mean, self.family, self.data.y, first, self.x_names)
        self._pooled, self.eta_scale = pooled.beta, pooled.typical_rest(self.family, self.data.y)
        sizes = self.eta_scale / np.sqrt(np.mean(pooled.gradient**2, axis=0))
        names = tuple(self.x_names[c] for c in self.effect_columns)
        self.terms = (Covariance(covariance, names, sizes[self.effect_columns]),)
        # no coefficient has a prior: what `mixed_summary` and others ask of a `MixedModel`
        self.all_smooths = ()
        self._split = Border(np.zeros((len(first), 0)),
                             self.eta_scale * pooled.inverse_triangle(), ())
        self._set_border()
        self._rho: Array | None = None
        self._theta: Theta | None = None

    # --- construction ----------------------------------------------------------------------------

    def _set_border(self) -> None:
        """Choose the inner coefficients, and lay out rho."""
        p = len(self.x_names)
        self.border = self._split if self.method == "Laplace" else Border.whole((), p)
        self.integrated = np.full(self.border.inner.shape[1], self.method != "ML")
        """Which inner coefficients the criterion integrates."""
        self.outer = Outer((covariance_part(self.terms), fixed_part(self.border.outer.shape[1])),
                           family_part(self.family))

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
                psi[0] = np.log(self.eta_scale**2 * (1.0 - EXPLAINED))
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

    def parameters(self, theta: Theta, rho: Array) -> Array:
        """Phi, the parameters of every observation's curve, (n, P)."""
        groups = self.coefficients(theta, rho) + theta.xi @ self.effect_map.T
        return groups[self.data.group]

    def jets(self, phi: Array, order: int) -> tuple[Array, ...]:
        """The curve and its derivatives at ``phi`` (n, P); not finite outside its domain."""
        return jets(self.mean, phi, order)

    def predictor(self, theta: Theta, rho: Array) -> Array:
        """Eta, (n,)."""
        return self.jets(self.parameters(theta, rho), 0)[0]

    def at(self, theta: Theta, rho: Array) -> NonlinearPoint:
        """The model at a state and outer parameters."""
        return NonlinearPoint(self, theta, np.asarray(rho, float))

    def objective(self, theta: Theta, rho: Array) -> float:
        """F alone; infinite where the curve is not finite."""
        spherical = self._effects(rho).spherical(theta.xi)
        value = self._total_loss(self.predictor(theta, rho), rho[self.outer.psi])
        return value + 0.5 * float((spherical**2).sum())

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

    def _effects(self, rho: Array) -> EffectsPrior:
        return EffectsPrior.of(self.terms, rho[self.outer["covariance"]])

    def _total_loss(self, eta: Array, psi: Array) -> float:
        with np.errstate(over="ignore"):
            value = self._losses(eta, psi).sum()
        return float(value) if np.isfinite(value) else np.inf

    def _losses(self, eta: Array, psi: Array) -> Array:
        """Loss of every observation, infinite where its eta is not finite."""
        legal = np.isfinite(eta)
        loss = self.family.loss(self.data.y, np.where(legal, eta, 0.0), psi)
        return np.where(legal, loss, np.inf)

    def row_objective(self, theta: Theta, rho: Array) -> Array:
        """The part of F that belongs to each group, (G,); infinite where eta is not finite."""
        with np.errstate(over="ignore"):
            losses = self._losses(self.predictor(theta, rho), rho[self.outer.psi])
        spherical = self._effects(rho).spherical(theta.xi)
        return np.bincount(self.data.group, losses) + 0.5 * (spherical**2).sum(axis=1)

    # --- the joint problem of effects and coefficients -------------------------------------------

    def joint(self) -> NonlinearMixedModel:
        """The model whose inner parameters hold all coefficients; itself but for "Laplace"."""
        if self.method != "Laplace":
            return self
        other = copy(self)
        other.method = "ML"
        other._set_border()
        other._rho = other._theta = None
        return other

    def joint_point(self, theta: Theta, rho: Array) -> NonlinearPoint:
        """The joint model at the same effects, coefficients and priors."""
        beta = self.coefficients(theta, rho)[:, None]
        return self.joint().at(Theta(theta.xi, beta), np.delete(rho, self.outer["fixed"]))
