"""What a fitted mixed model says: estimates, variance components and smooths, as one table.

Effective degrees of freedom are traces of H^-1 J^T W J on the joint problem (Wood 2017, section
5.4.2): with H = J^T W J + prior, those of a smooth on k coefficients are k - tr(G_ss S_lambda), and
those of G groups' effects are G q - sum_g tr(G_gg Psi^-1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy.stats import t as t_law

from reml_sae.families import Gaussian, ScaledFamily
from reml_sae.models.mixed.arrow import MixedArrow
from reml_sae.models.mixed.border import unpenalised
from reml_sae.models.mixed.grouped import InverseBlocks
from reml_sae.models.mixed.layout import RandomLayout
from reml_sae.models.mixed.point import MixedPoint
from reml_sae.models.mixed.posterior import Fit, joint_point
from reml_sae.models.mixed.summary import MixedSummary, SmoothTerm, VarianceComponent
from reml_sae.models.mixed.wald import satterthwaite, smooth_tests
from reml_sae.typing import Array, Curvature

ZERO_SD = 1e-2
"""An sd whose precision ran to its limit and that is below this share of its scale prints as 0."""


class FittedModel(Fit, Protocol):
    """What the summary uses of a `FitResult`."""

    @property
    def criterion(self) -> float:
        """V at the fit."""
        ...

    @property
    def converged(self) -> bool:
        """Whether the search ended at an optimum."""
        ...

    @property
    def message(self) -> str:
        """Why it ended."""
        ...

    @property
    def limits(self) -> Sequence[tuple[str, str]]:
        """Outer parameters that ran to a limit."""
        ...


def mixed_summary(
    model: MixedArrow, fit: FittedModel, *, curvature: Curvature = "majorizer"
) -> MixedSummary:
    """Estimates of a fitted mixed model.

    Parameters
    ----------
    model : MixedModel
    fit : FitResult
        Made by ``fit_reml(model)``.
    curvature : "majorizer" or "exact"
        Of standard errors and degrees of freedom: with expected or with observed weights.
    """
    point = joint_point(model, fit)
    blocks = point.whole_inverse(curvature)
    owned = np.concatenate([np.zeros(0, np.intp), *(s.columns for s in model.all_smooths)])
    variances = np.diagonal(blocks.border).copy()
    df = np.full(len(variances), np.inf)
    if isinstance(model.family, Gaussian) and fit.converged:
        df = satterthwaite(model, fit, variances, curvature)
    errors, edf = np.sqrt(variances), point.edf(curvature)
    crossed = () if model.layout is None else model.layout.crossed
    return MixedSummary(
        formula="" if model.layout is None else model.layout.formula.text,
        method=model.method, family=model.family.name, link=model.family.link,
        n_observations=len(model.data.y), n_groups=model.data.n_groups,
        group_sizes=group_sizes(model), deviance=2.0 * fit.criterion,
        n_parameters=n_parameters(model), names=model.x_names, coefficients=point.beta.copy(),
        standard_errors=errors, degrees_of_freedom=df,
        p_values=2.0 * t_law.sf(np.abs(point.beta) / errors, df),
        parametric=~np.isin(np.arange(len(point.beta)), owned),
        variance_components=(*_components(model, fit, point, blocks),
                             *_crossed(model, fit, crossed, point, blocks)),
        smooths=_smooth_terms(model, crossed, point, blocks, len(model.data.y) - edf),
        family_parameters=model.family.natural(point.psi),
        dispersion=model.family.dispersion(point.psi),
        scaled_residuals=np.quantile(
            pearson_residuals(model, point.eta, point.psi), np.linspace(0.0, 1.0, 5)),
        edf=edf, limits=tuple(fit.limits), converged=fit.converged, message=fit.message,
    )


def pearson_residuals(model: MixedArrow, eta: Array, psi: Array) -> Array:
    """Residuals over the sds of the responses, (n,)."""
    family = model.family
    return np.asarray((model.data.y - family.mean(eta)) / np.sqrt(family.variance(eta, psi)))


def group_sizes(model: MixedArrow) -> dict[str, int]:
    """Number of levels of every grouping factor, by its name."""
    sizes = {}
    if model.data.n_groups:
        sizes[_row_factor(model)] = model.data.n_groups
    if model.layout is not None:
        sizes |= {term.group: len(term.levels) for term in model.layout.crossed}
    return sizes


def n_parameters(model: MixedArrow) -> int:
    """Number of unpenalised coefficients and of outer parameters."""
    free = unpenalised(model.all_smooths, len(model.x_names)).shape[1]
    fixed = model.outer["fixed"]
    return free + len(model.outer) - (fixed.stop - fixed.start)


def _row_factor(model: MixedArrow) -> str:
    return "groups" if model.layout is None else model.layout.rows[0].group


def _components(
    model: MixedArrow, fit: FittedModel, point: MixedPoint, blocks: InverseBlocks
) -> tuple[VarianceComponent, ...]:
    rho = point.rho[point.structure.outer["covariance"]]
    infinite = {name for name, limit in fit.limits if limit == "infinite"}
    shrunk = np.einsum("gqq->q", blocks.spherical_rows)
    out = []
    column = parameter = 0
    for term in model.terms:
        own = rho[parameter : parameter + len(term.labels)]
        L = term.factor(own)
        sds = np.sqrt((L**2).sum(axis=1))
        correlations = np.clip((L @ L.T) / np.outer(sds, sds), -1.0, 1.0)
        at_limit = np.array([label in infinite for label in term.labels[: term.size]])
        sds = np.where(at_limit & (sds < ZERO_SD * term.scales), 0.0, sds)
        edf = model.data.n_groups * term.size - shrunk[column : column + term.size].sum()
        out.append(VarianceComponent(term.names, sds, correlations, term.kind, float(edf),
                                     _row_factor(model)))
        column, parameter = column + term.size, parameter + len(term.labels)
    return tuple(out)


def _crossed(
    model: MixedArrow, fit: FittedModel, crossed: Sequence[RandomLayout], point: MixedPoint,
    blocks: InverseBlocks,
) -> list[VarianceComponent]:
    """The random effects on the border, whose variances are 1 / lambda."""
    infinite = {name for name, limit in fit.limits if limit == "infinite"}
    shrunk = point.smooths.traces(blocks.graded_border)
    smooths = {s.name: s for s in model.all_smooths}
    out = []
    for term in crossed:
        own = [smooths[name] for name in term.smooth_names()]
        sds = np.array([0.0 if s.labels[0] in infinite
                        else point.smooths.strengths[s.where][0] ** -0.5 for s in own])
        edf = sum(len(s.columns) - float(shrunk[s.where].sum()) for s in own)
        out.append(VarianceComponent(term.names, sds, np.eye(len(own)), "diagonal", edf,
                                     term.group))
    return out


def _smooth_terms(
    model: MixedArrow, crossed: Sequence[RandomLayout], point: MixedPoint, blocks: InverseBlocks,
    residual_df: float,
) -> tuple[SmoothTerm, ...]:
    random = {name for term in crossed for name in term.smooth_names()}
    smooths = tuple(s for s in model.all_smooths if s.name not in random)
    penalised = point.smooths.traces(blocks.graded_border)
    scaled = isinstance(model.family, ScaledFamily)
    tests = smooth_tests(point, blocks, smooths, residual_df if scaled else None)
    return tuple(
        SmoothTerm(s.name, len(s.columns), s.null_basis.shape[1],
                   len(s.columns) - float(penalised[s.where].sum()),
                   tuple(point.smooths.strengths[s.where].tolist()),
                   test.reference_df, test.statistic, test.p_value)
        for s, test in zip(smooths, tests, strict=True)
    )
