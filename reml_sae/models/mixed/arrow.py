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
from typing import Any, Self

import numpy as np

from reml_sae.engine import Theta
from reml_sae.errors import InputError
from reml_sae.families import Binomial, Family, get_family
from reml_sae.models.mixed.border import Border, check_rank, unpenalised, unpenalised_names
from reml_sae.models.mixed.covariance import Covariance, term_slices
from reml_sae.models.mixed.design import make_design
from reml_sae.models.mixed.grouped import GroupedModel
from reml_sae.models.mixed.moments import typical_eta
from reml_sae.models.mixed.point import MixedPoint
from reml_sae.models.mixed.separation import separating_columns, separation_message
from reml_sae.models.mixed.smooths import Smooth, bind_smooths
from reml_sae.models.mixed.start import best_psi, first_theta, joint_coefficients
from reml_sae.models.mixed.structure import MixedStructure
from reml_sae.typing import Array

METHODS = ("REML", "ML", "Laplace")


class MixedArrow(GroupedModel, MixedStructure):
    """What `MixedModel` is to the engine; its parameters are there.

    The formulas are those of the module.
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
        chosen = _family(family, n_trials, len(data.y))
        chosen.check(data.y)
        p = data.X.shape[1]
        names, smooths = _names(x_names, p, "x"), bind_smooths(penalties, p)
        check_rank(data.X, smooths, names)
        eta_scale = typical_eta(chosen, data, data.X @ unpenalised(smooths, p))
        scales = eta_scale / np.sqrt(np.mean(data.Z**2, axis=0))
        super().__init__(
            family=chosen, method=method, x_names=names,
            terms=_terms(covariance, sizes, z_names, scales),
            border=(Border.split(smooths, data.X, eta_scale) if method == "Laplace"
                    else Border.whole(smooths, p)),
            data=data, all_smooths=smooths, eta_scale=eta_scale)

    def rebuilt(
        self, *, method: str | None = None, first: tuple[int, int] | None = None
    ) -> Self:
        """The same data and priors by another method, or with an effect first in its term.

        Parameters
        ----------
        method : "REML", "ML" or "Laplace", optional
        first : (int, int), optional
            Number of a term, and of the effect of it that is moved.
        """
        data, begin, columns, names = self.data, 0, [], []
        for t, term in enumerate(self.terms):
            order = list(range(term.size))
            if first is not None and first[0] == t:
                order.insert(0, order.pop(first[1]))
            columns.append(data.Z[:, [begin + j for j in order]])
            names += [term.names[j] for j in order]
            begin += term.size
        made = type(self)(
            data.y, data.X, groups=data.labels[data.group] if columns else None,
            Z=columns or None, family=self.family, covariance=[t.kind for t in self.terms],
            penalties=[Smooth(s.columns, list(s.matrices), s.name) for s in self.all_smooths],
            method=method or self.method, offset=data.offset, x_names=self.x_names,
            z_names=names)
        made.layout = self.layout if first is None else None
        return made

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
            rho = self.first.without_fixed(self.outer)
            if self.outer_X.shape[1]:
                start = first_theta(self.joint, self.joint_rho(rho))
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
        coefficients = joint_coefficients(self.joint, start, self.joint_rho(rho))
        return self.border.outer_of(coefficients)

    def initial_theta(self) -> Theta:
        """State from which an inner solve starts."""
        if self._theta is None:
            self._theta = first_theta(self, self.initial_rho())
        return self._theta

    # --- protocol: the inner problem -------------------------------------------------------------

    def at(self, theta: Theta, rho: Array) -> MixedPoint:
        """The model at a state and outer parameters."""
        return MixedPoint(self, theta, np.asarray(rho, float))

    def refine_rows(self, theta: Theta, rho: Array, n_sweeps: int = 1) -> Theta:
        """The state itself: eta is linear in theta, so that joint steps need no refinement."""
        return theta


def _terms(
    covariance: str | Sequence[str], sizes: list[int], z_names: Sequence[str] | None, scales: Array
) -> tuple[Covariance, ...]:
    """Covariances of terms with these numbers of columns; ``scales`` (q,) are of all columns."""
    kinds = [covariance] * len(sizes) if isinstance(covariance, str) else list(covariance)
    if len(kinds) != len(sizes):
        raise InputError(f"covariance must be one name, or one for each of the {len(sizes)} "
                         f"terms of Z, got {covariance!r}")
    names = _names(z_names, sum(sizes), "z")
    terms, begin = [], 0
    for kind, size in zip(kinds, sizes, strict=True):
        own = slice(begin, begin + size)
        terms.append(Covariance(kind, names[own], scales[own]))
        begin += size
    return tuple(terms)


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
