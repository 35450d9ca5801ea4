"""What a fitted mixed model says: estimates, variance components and smooths, as one table.

Effective degrees of freedom are traces of H^-1 J^T W J on the joint problem (Wood 2017, section
5.4.2): with H = J^T W J + prior, those of a smooth on k coefficients are k - tr(G_ss S_lambda), and
those of G groups' effects are G q - sum_g tr(G_gg Psi^-1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reml_sae.models.mixed.model import MixedModel
from reml_sae.models.mixed.point import InverseBlocks, MixedPoint
from reml_sae.models.mixed.posterior import Fit, joint_point
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


@dataclass(frozen=True, eq=False)
class VarianceComponent:
    """One random-effect term.

    Attributes
    ----------
    names : tuple of str
        Its q effects.
    sds : (q,) array
        0 where the variance ran to its limit.
    correlations : (q, q) array
    covariance : "diagonal" or "full"
    edf : float
    """

    names: tuple[str, ...]
    sds: Array
    correlations: Array
    covariance: str
    edf: float


@dataclass(frozen=True)
class SmoothTerm:
    """One smooth, or the crossed effects that it stands for.

    Attributes
    ----------
    name : str
    n_coefficients : int
    null_dim : int
        Unpenalised directions.
    edf : float
    strengths : tuple of float
        lambda_j.
    """

    name: str
    n_coefficients: int
    null_dim: int
    edf: float
    strengths: tuple[float, ...]

    @property
    def sd(self) -> float | None:
        """lambda^-1/2, the sd of crossed effects; None with several strengths."""
        return self.strengths[0] ** -0.5 if len(self.strengths) == 1 else None


@dataclass(frozen=True, eq=False)
class MixedSummary:
    """Estimates of a mixed model; ``print`` shows the table.

    Attributes
    ----------
    method, family, link : str
    n_observations, n_groups : int
    deviance : float
        2 V, with all constants: minus twice the (restricted) log-likelihood.
    names : tuple of str
        Columns of X.
    coefficients, standard_errors : (P,) arrays
    parametric : (P,) bool array
        Columns that no smooth owns.
    variance_components : tuple of VarianceComponent
    smooths : tuple of SmoothTerm
    family_parameters : mapping
        Outer parameters of the family, by name, on their natural scale.
    dispersion : float
        Residual variance of a Gaussian, dispersion of a scaled family, 1 for the others.
    edf : float
        Total.
    limits : tuple of (name, str)
    converged : bool
    message : str
    """

    method: str
    family: str
    link: str
    n_observations: int
    n_groups: int
    deviance: float
    names: tuple[str, ...]
    coefficients: Array
    standard_errors: Array
    parametric: NDArray[np.bool_]
    variance_components: tuple[VarianceComponent, ...]
    smooths: tuple[SmoothTerm, ...]
    family_parameters: Mapping[str, float]
    dispersion: float
    edf: float
    limits: tuple[tuple[str, str], ...]
    converged: bool
    message: str

    def __str__(self) -> str:
        return "\n".join([*self._head(), *self._random(), *self._smooths(), *self._fixed(),
                          *self._tail()])

    def _head(self) -> list[str]:
        groups = f", {self.n_groups} groups" if self.n_groups else ""
        return [f"Mixed model by {self.method}: {self.family} family, {self.link} link",
                f"{self.n_observations} observations{groups}; 2 V = {self.deviance:.4f}, "
                f"edf = {self.edf:.2f}"]

    def _random(self) -> list[str]:
        lines = ["", "Random effects", f"  {'':16s}{'sd':>12s}  correlations"]
        for term in self.variance_components:
            for j, (name, sd) in enumerate(zip(term.names, term.sds, strict=True)):
                row = "".join(f"{r:8.3f}" for r in term.correlations[j, :j]) \
                    if term.covariance == "full" else ""
                lines.append(f"  {name:16s}{sd:12.5g}  {row}".rstrip())
        if self.family == "gaussian":
            lines.append(f"  {'residual':16s}{np.sqrt(self.dispersion):12.5g}")
        return lines if len(lines) > 3 else []

    def _smooths(self) -> list[str]:
        if not self.smooths:
            return []
        lines = ["", "Smooths", f"  {'':16s}{'k':>6s}{'edf':>10s}{'sd':>12s}  lambda"]
        for term in self.smooths:
            sd = "" if term.sd is None else f"{term.sd:.5g}"
            strengths = ", ".join(f"{strength:.5g}" for strength in term.strengths)
            lines.append(f"  {term.name:16s}{term.n_coefficients:6d}{term.edf:10.3f}{sd:>12s}  "
                         f"{strengths}")
        return lines

    def _fixed(self) -> list[str]:
        if not self.parametric.any():
            return []
        lines = ["", "Fixed effects", f"  {'':16s}{'estimate':>12s}{'se':>12s}{'ratio':>10s}"]
        for j in np.flatnonzero(self.parametric):
            estimate, se = self.coefficients[j], self.standard_errors[j]
            lines.append(f"  {self.names[j]:16s}{estimate:12.5g}{se:12.5g}{estimate / se:10.3f}")
        return lines

    def _tail(self) -> list[str]:
        lines = []
        if self.family != "gaussian" and self.family_parameters:
            pairs = (f"{name} = {value:.5g}" for name, value in self.family_parameters.items())
            lines += ["", "Family: " + ", ".join(pairs)]
        lines += [f"{name} ran to its limit ({limit})" for name, limit in self.limits]
        if not self.converged:
            lines += ["", f"NOT CONVERGED: {self.message}"]
        return lines


def mixed_summary(
    model: MixedModel, fit: FittedModel, *, curvature: Curvature = "majorizer"
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
    return MixedSummary(
        method=model.method, family=model.family.name, link=model.family.link,
        n_observations=len(model.data.y), n_groups=model.data.n_groups,
        deviance=2.0 * fit.criterion, names=model.x_names, coefficients=point.beta.copy(),
        standard_errors=np.sqrt(np.diagonal(blocks.border)),
        parametric=~np.isin(np.arange(len(point.beta)), owned),
        variance_components=_components(model, fit, point, blocks),
        smooths=_smooth_terms(model, point, blocks),
        family_parameters={name.removeprefix("log_"): float(np.exp(value)) for name, value
                           in zip(model.family.psi_names, point.psi, strict=True)},
        dispersion=model.family.dispersion(point.psi), edf=point.edf(curvature),
        limits=tuple(fit.limits), converged=fit.converged, message=fit.message,
    )


def _components(
    model: MixedModel, fit: FittedModel, point: MixedPoint, blocks: InverseBlocks
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
        out.append(VarianceComponent(term.names, sds, correlations, term.kind, float(edf)))
        column, parameter = column + term.size, parameter + len(term.labels)
    return tuple(out)


def _smooth_terms(
    model: MixedModel, point: MixedPoint, blocks: InverseBlocks
) -> tuple[SmoothTerm, ...]:
    penalised = point.smooths.traces(blocks.graded_border)
    return tuple(
        SmoothTerm(s.name, len(s.columns), s.null_basis.shape[1],
                   len(s.columns) - float(penalised[s.where].sum()),
                   tuple(point.smooths.strengths[s.where].tolist()))
        for s in model.all_smooths
    )
