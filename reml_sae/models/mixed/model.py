"""Mixed models, additive models and their generalisations, as arrow models whose rows are groups.

    y_i ~ family(eta_i),   eta = offset + X beta + Z b_g,   b_g ~ N(0, Psi(rho)),
    beta_s ~ N(0, S_lambda(rho)^-) for every smooth s, flat on the null space of S_lambda

Three criteria, which differ in what of beta the Laplace approximation integrates:

    "REML"     all of beta and b. For Gaussian data the exact restricted likelihood (Patterson and
               Thompson 1971; Wood 2011).
    "ML"       b and the penalised directions of beta; the others are at the joint mode. Exact
               maximum likelihood for Gaussian data; for other families the criterion of one joint
               PIRLS (nAGQ = 0 in lme4).
    "Laplace"  as "ML", but the unpenalised directions of beta are outer parameters, at the optimum
               of the Laplace approximation itself (nAGQ = 1 in lme4). The same as "ML" for Gaussian
               data.

Crossed random effects go on the border: indicator columns in X with a `Smooth` whose matrix is the
identity, whose variance is 1 / lambda.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reml_sae.engine import Outer, OuterPart, Theta
from reml_sae.errors import InputError
from reml_sae.families import Binomial, Family, get_family
from reml_sae.models.family_part import family_part
from reml_sae.models.mixed.border import Border, check_rank, unpenalised, unpenalised_names
from reml_sae.models.mixed.covariance import Covariance, EffectsPrior, term_slices
from reml_sae.models.mixed.design import make_design
from reml_sae.models.mixed.grouped import GroupedModel, covariance_part, fixed_part
from reml_sae.models.mixed.point import MixedPoint
from reml_sae.models.mixed.separation import separating_columns, separation_message
from reml_sae.models.mixed.smooths import (
    LOG_STRENGTH_SPAN,
    Smooth,
    SmoothPrior,
    bind_smooths,
)
from reml_sae.models.mixed.start import (
    FirstRho,
    best_psi,
    first_theta,
    joint_coefficients,
    typical_eta,
)
from reml_sae.typing import Array

METHODS = ("REML", "ML", "Laplace")


class MixedModel(GroupedModel):
    """Arrow model of grouped observations.

    Parameters
    ----------
    y : (n,) array
        Responses; successes where the family is binomial.
    X : (n, P) array
        Fixed effects and the bases of smooths. A data frame's column names are kept.
    groups : (n,) array of labels, optional
        The group of each observation; groups may differ in size. None: no random effects.
    Z : (n, q) array, or list of such arrays, optional
        Columns of the random effects by group; each array of a list is a term of its own.
    family : str or Family
    covariance : "diagonal" or "full", or a list with one of them for each term
    penalties : sequence of Smooth
    method : "REML", "ML" or "Laplace"
    n_trials : int or (n,) array, optional
        Trials of a binomial response.
    offset : float or (n,) array, optional
    x_names, z_names : sequence of str, optional
        Names of the columns of X, and of all columns of Z.

    Examples
    --------
    >>> import numpy as np
    >>> from reml_sae import fit_reml
    >>> rng = np.random.default_rng(0)
    >>> g = np.repeat(np.arange(20), 5)
    >>> y = 1.0 + rng.normal(size=20)[g] + 0.5 * rng.normal(size=100)
    >>> model = MixedModel(y, np.ones(100), groups=g, Z=np.ones(100))
    >>> fit_reml(model).converged
    True
    """

    def __init__(
        self,
        y: Any,
        X: Any,
        *,
        groups: Any = None,
        Z: Any = None,
        family: str | Family = "gaussian",
        covariance: str | Sequence[str] = "diagonal",
        penalties: Sequence[Smooth] = (),
        method: str = "REML",
        n_trials: Any = None,
        offset: Any = None,
        x_names: Sequence[str] | None = None,
        z_names: Sequence[str] | None = None,
    ):
        if method not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        x_names = getattr(X, "columns", None) if x_names is None else x_names
        data, sizes = make_design(y, X, groups, Z, offset)
        self.method = method
        self.family = _family(family, n_trials, len(data.y))
        self.family.check(data.y)
        self.data = data
        """Responses, offset, groups, and X in full."""
        self.x_names = _names(x_names, data.X.shape[1], "x")
        self.all_smooths = bind_smooths(penalties, data.X.shape[1])
        check_rank(data.X, self.all_smooths, self.x_names)
        fixed = data.X @ unpenalised(self.all_smooths, data.X.shape[1])
        self.eta_scale = typical_eta(self.family, data, fixed)
        self.terms = self._make_terms(covariance, sizes, z_names)
        self._set_border(Border.split(self.all_smooths, data.X, self.eta_scale)
                         if method == "Laplace" else
                         Border.whole(self.all_smooths, data.X.shape[1]))
        self._lay_out(FirstRho.of(self))
        self._rho: Array | None = None
        self._theta: Theta | None = None

    # --- construction ----------------------------------------------------------------------------

    def _make_terms(
        self, covariance: str | Sequence[str], sizes: list[int], z_names: Sequence[str] | None
    ) -> tuple[Covariance, ...]:
        kinds = [covariance] * len(sizes) if isinstance(covariance, str) else list(covariance)
        if len(kinds) != len(sizes):
            raise InputError(f"covariance must be one name, or one for each of the {len(sizes)} "
                             f"terms of Z, got {covariance!r}")
        names = _names(z_names, sum(sizes), "z")
        scales = self.eta_scale / np.sqrt(np.mean(self.data.Z**2, axis=0))
        terms, begin = [], 0
        for kind, size in zip(kinds, sizes, strict=True):
            own = slice(begin, begin + size)
            terms.append(Covariance(kind, names[own], scales[own]))
            begin += size
        return tuple(terms)

    def _set_border(self, border: Border) -> None:
        """Choose the inner coefficients."""
        self.border = border
        self.smooths = border.smooths
        data = self.data
        self.outer_X: Array = data.X @ border.outer
        self.design = (replace(data, X=data.X @ border.inner) if self.method == "Laplace"
                       else data)

    def _lay_out(self, first: FirstRho) -> None:
        """Choose what rho consists of; the box of a strength lies around its first value."""
        self._first, count = first, len(first.smooths)
        smooths = OuterPart(
            "smooths", tuple(label for smooth in self.smooths for label in smooth.labels),
            first.smooths[:, None] + np.array([-LOG_STRENGTH_SPAN, LOG_STRENGTH_SPAN]),
            np.ones(count, bool))
        self.outer = Outer(
            (covariance_part(self.terms), smooths, fixed_part(self.outer_X.shape[1])),
            family_part(self.family))

    # --- protocol: structure ---------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """(n, 1)."""
        return len(self.data.y), 1

    @property
    def effective_dim(self) -> int:
        """Number of integrated parameters: effects, and the integrated directions of beta."""
        integrated = self.integrated(self.smooth_prior(np.zeros(len(self.outer))))
        return self.data.n_groups * self.data.Z.shape[1] + int(integrated.sum())

    def integrated(self, prior: SmoothPrior) -> NDArray[np.bool_]:
        """Which graded directions of the border the criterion integrates."""
        return prior.penalised if self.method == "ML" else np.ones_like(prior.penalised)

    def objection(self, limits: Sequence[tuple[str, str]]) -> str:
        """Separation of the data by columns that no prior holds, or binary groups of one.

        See `models.separation`. A smooth all of whose strengths ran to zero holds nothing.
        """
        binary = isinstance(self.family, Binomial) and bool((self.family.n_trials == 1).all())
        if binary and self.data.n_groups == len(self.data.y):
            return (f"{', '.join(self.outer.names[self.outer['covariance']])}: one binary "
                    "observation a group says nothing of the variance between groups; leave the "
                    "random effects out, or use groups that repeat")
        gone = {name for name, limit in limits if limit == "zero"}
        held = tuple(s for s in self.all_smooths if not gone.issuperset(s.labels))
        return separation_message(separating_columns(
            self.data.X @ unpenalised(held, len(self.x_names)),
            self.family.open_side(self.data.y), unpenalised_names(held, self.x_names)))

    def strengths(self, rho: Array) -> dict[str, float]:
        """Precisions and strengths of the quadratic priors, by name."""
        parts = (self.outer["covariance"], self.outer["smooths"])
        return {name: float(np.exp(value)) for part in parts
                for name, value in zip(self.outer.names[part], rho[part], strict=True)
                if name.startswith("log_")}

    # --- starts ----------------------------------------------------------------------------------

    def initial_rho(self) -> Array:
        """Outer parameters from which the outer loop starts."""
        if self._rho is None:
            rho = self._first.without_fixed(self.outer)
            if self.outer_X.shape[1]:
                start = self.joint().initial_theta()
                rho[self.outer["fixed"]] = self._joint_fixed(start, rho)
            self._rho = rho
        return self._rho.copy()

    def advance_rho(self, point: MixedPoint, rho: Array) -> Array:
        """Full covariances by a Fellner-Schall step, then the family, then fixed effects.

        The family's parameters go to their best values at eta, unless they are a dispersion with
        a step of its own; the fixed effects of "Laplace" to the joint mode.
        """
        moved = rho.copy()
        if self.family.n_psi and not self.family.has_dispersion:
            moved[self.outer.psi] = best_psi(self.family, self.data.y, point.eta, point.psi)
        slices = term_slices(self.terms, self.outer["covariance"].start)
        full = [term.kind == "full" for term in self.terms]
        if any(full):
            factors = point.stepped_factors()
            for term, own, factor in zip(self.terms, slices, factors, strict=True):
                if term.kind == "full":
                    moved[own] = term.parameters(factor)
        if self.outer_X.shape[1]:
            start = Theta(point.theta.xi, self.coefficients(point.theta, point.rho)[:, None])
            moved[self.outer["fixed"]] = self._joint_fixed(start, moved)
        return moved

    def _joint_fixed(self, start: Theta, rho: Array) -> Array:
        joint = self.joint()
        return self.border.outer_of(joint_coefficients(joint, start, self.joint_rho(rho)))

    def initial_theta(self) -> Theta:
        """State from which an inner solve starts."""
        if self._theta is None:
            self._theta = first_theta(self, self.initial_rho())
        return self._theta

    # --- protocol: the inner problem -------------------------------------------------------------

    def predictor(self, theta: Theta, rho: Array) -> Array:
        """Eta, (n,)."""
        eta = self.design.predictor(theta.xi, theta.beta[:, 0]) + self.data.offset
        return eta + self.outer_X @ rho[self.outer["fixed"]]

    def at(self, theta: Theta, rho: Array) -> MixedPoint:
        """The model at a state and outer parameters."""
        return MixedPoint(self, theta, np.asarray(rho, float))

    def objective(self, theta: Theta, rho: Array) -> float:
        """F alone, without the work for its derivatives."""
        effects = EffectsPrior.of(self.terms, rho[self.outer["covariance"]])
        beta = theta.beta[:, 0]
        value = float(self._loss(theta, rho).sum())
        value += 0.5 * float((effects.spherical(theta.xi) ** 2).sum())
        return value + 0.5 * float(self.smooth_prior(rho).energies(beta, beta).sum())

    def refine_rows(self, theta: Theta, rho: Array, n_sweeps: int = 1) -> Theta:
        """The state itself: eta is linear in theta, so that joint steps need no refinement."""
        return theta

    def row_objective(self, theta: Theta, rho: Array) -> Array:
        """The part of F that belongs to each group, (G,)."""
        effects = EffectsPrior.of(self.terms, rho[self.outer["covariance"]])
        loss = self.design.group_sums(self._loss(theta, rho))
        return loss + 0.5 * (effects.spherical(theta.xi) ** 2).sum(axis=1)

    def _loss(self, theta: Theta, rho: Array) -> Array:
        return self.family.loss(self.data.y, self.predictor(theta, rho), rho[self.outer.psi])

    def smooth_prior(self, rho: Array) -> SmoothPrior:
        """The prior of the smooths at outer parameters."""
        return SmoothPrior(self.smooths, self.design.X.shape[1], rho[self.outer["smooths"]])

    # --- coefficients in full --------------------------------------------------------------------

    def joint(self) -> MixedModel:
        """The model whose inner parameters hold all coefficients; itself but for "Laplace"."""
        if self.method != "Laplace":
            return self
        other = copy(self)
        other.method = "ML"
        other._set_border(Border.whole(self.all_smooths, self.data.X.shape[1]))
        other._lay_out(self._first)
        other._rho = other._theta = None
        return other

    def joint_rho(self, rho: Array) -> Array:
        """Outer parameters of the joint model: those but the fixed effects."""
        return np.delete(rho, self.outer["fixed"])

    def joint_point(self, theta: Theta, rho: Array) -> MixedPoint:
        """The joint model at the same effects, coefficients and priors."""
        beta = self.coefficients(theta, rho)[:, None]
        return self.joint().at(Theta(theta.xi, beta), self.joint_rho(rho))


def _names(names: Sequence[str] | None, count: int, letter: str) -> tuple[str, ...]:
    if names is None:
        return tuple(f"{letter}{j}" for j in range(count))
    out = tuple(str(name) for name in names)
    if len(out) != count or len(set(out)) != count:
        raise InputError(f"{letter}_names must be {count} distinct names, got {list(out)}")
    return out


def _family(family: str | Family, n_trials: Any, n: int) -> Family:
    if n_trials is None:
        return get_family(family)
    if family != "binomial":
        raise InputError("n_trials belongs to family='binomial'; a Binomial object has its own, "
                         f"and {family!r} has none")
    trials = np.asarray(n_trials)
    if trials.shape not in ((), (n,)):
        raise InputError(f"n_trials must be one number, or one for each of the {n} observations, "
                         f"got shape {trials.shape}")
    return Binomial(n_trials=n_trials)
