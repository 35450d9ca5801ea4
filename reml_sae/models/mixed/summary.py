"""The table of a fitted mixed model: what lme4's and mgcv's summaries hold, in one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reml_sae.typing import Array


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
    group : str
        The grouping factor.
    """

    names: tuple[str, ...]
    sds: Array
    correlations: Array
    covariance: str
    edf: float
    group: str


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
    reference_df : float
        Rank of the test that the smooth is zero; see `wald`.
    statistic : float
        F where the dispersion is estimated, else chi-squared.
    p_value : float
        Approximate: the strengths are taken as known.
    """

    name: str
    n_coefficients: int
    null_dim: int
    edf: float
    strengths: tuple[float, ...]
    reference_df: float
    statistic: float
    p_value: float

    @property
    def sd(self) -> float | None:
        """lambda^-1/2, the sd of crossed effects; None with several strengths."""
        return self.strengths[0] ** -0.5 if len(self.strengths) == 1 else None


@dataclass(frozen=True, eq=False)
class MixedSummary:
    """Estimates of a mixed model; ``print`` shows the table.

    Attributes
    ----------
    formula : str
        Empty where the model was made of arrays.
    method, family, link : str
    n_observations, n_groups : int
    group_sizes : mapping of str to int
        Number of levels of every grouping factor.
    deviance : float
        2 V, with all constants: minus twice the (restricted) log-likelihood.
    n_parameters : int
        Unpenalised coefficients, and outer parameters.
    names : tuple of str
        Columns of X.
    coefficients, standard_errors : (P,) arrays
    degrees_of_freedom : (P,) array
        Of t, by Satterthwaite, where the family is Gaussian; else infinite, for z.
    p_values : (P,) array
        Of two-sided tests that a coefficient is 0.
    parametric : (P,) bool array
        Columns that no smooth owns.
    variance_components : tuple of VarianceComponent
    smooths : tuple of SmoothTerm
    family_parameters : mapping
        Outer parameters of the family, by name, on their natural scale.
    dispersion : float
        Residual variance of a Gaussian, dispersion of a scaled family, 1 for the others.
    scaled_residuals : (5,) array
        Minimum, quartiles and maximum of the Pearson residuals over the residual sd.
    edf : float
        Total.
    limits : tuple of (name, str)
    converged : bool
    message : str
    """

    formula: str
    method: str
    family: str
    link: str
    n_observations: int
    n_groups: int
    group_sizes: Mapping[str, int]
    deviance: float
    n_parameters: int
    names: tuple[str, ...]
    coefficients: Array
    standard_errors: Array
    degrees_of_freedom: Array
    p_values: Array
    parametric: NDArray[np.bool_]
    variance_components: tuple[VarianceComponent, ...]
    smooths: tuple[SmoothTerm, ...]
    family_parameters: Mapping[str, float]
    dispersion: float
    scaled_residuals: Array
    edf: float
    limits: tuple[tuple[str, str], ...]
    converged: bool
    message: str

    @property
    def log_likelihood(self) -> float:
        """-V, restricted by "REML"."""
        return -0.5 * self.deviance

    @property
    def aic(self) -> float:
        """2 V + 2 n_parameters."""
        return self.deviance + 2.0 * self.n_parameters

    @property
    def bic(self) -> float:
        """2 V + n_parameters log n."""
        return self.deviance + self.n_parameters * float(np.log(self.n_observations))

    def __str__(self) -> str:
        return "\n".join([*self._head(), *self._random(), *self._smooths(), *self._fixed(),
                          *self._tail()])

    __repr__ = __str__

    def _head(self) -> list[str]:
        groups = "".join(f", {size} {name}" for name, size in self.group_sizes.items())
        criterion = "REML criterion" if self.method == "REML" else "deviance"
        quantiles = _cells(f"{value:.4g}" for value in self.scaled_residuals)
        return [
            f"Mixed model by {self.method}: {self.family} family, {self.link} link",
            *([self.formula] if self.formula else []),
            f"{self.n_observations} observations{groups}",
            f"{criterion} 2 V = {self.deviance:.4f}, log-likelihood {self.log_likelihood:.4f}, "
            f"AIC {self.aic:.1f}, BIC {self.bic:.1f}, edf = {self.edf:.2f}",
            "converged" if self.converged else f"NOT CONVERGED: {self.message}",
            "", "Scaled residuals", f"  {'':16s}{_cells(('min', '1Q', 'median', '3Q', 'max'))}",
            f"  {'':16s}{quantiles}"]

    def _random(self) -> list[str]:
        rows = []
        for term in self.variance_components:
            for j, (name, sd) in enumerate(zip(term.names, term.sds, strict=True)):
                row = "".join(f"{r:8.3f}" for r in term.correlations[j, :j]) \
                    if term.covariance == "full" else ""
                rows.append((term.group if j == 0 else "", name, sd, row))
        if self.family == "gaussian":
            rows.append(("residual", "", np.sqrt(self.dispersion), ""))
        if not rows:
            return []
        return ["", "Random effects",
                f"  {'group':16s}{'effect':16s}{_cells(('variance', 'sd'))}  correlations",
                *(f"  {group:16s}{name:16s}{sd**2:12.5g}{sd:12.5g}  {row}".rstrip()
                  for group, name, sd, row in rows)]

    def _smooths(self) -> list[str]:
        if not self.smooths:
            return []
        test = "F" if self.family_parameters.get("dispersion") else "chi-sq"
        lines = ["", "Smooths (approximate tests, strengths as known)",
                 f"  {'':16s}{'k':>6s}{_cells(('edf', 'ref. df', test, 'p', 'sd'))}  lambda"]
        for term in self.smooths:
            cells = _cells((f"{term.edf:.3f}", f"{term.reference_df:.3f}",
                            f"{term.statistic:.4g}", _p(term.p_value),
                            "" if term.sd is None else f"{term.sd:.5g}"))
            strengths = ", ".join(f"{strength:.5g}" for strength in term.strengths)
            lines.append(f"  {term.name:16s}{term.n_coefficients:6d}{cells}  {strengths}")
        return lines

    def _fixed(self) -> list[str]:
        if not self.parametric.any():
            return []
        is_t = self.family == "gaussian"
        columns = ("estimate", "se", *(("df", "t") if is_t else ("z",)), "p")
        lines = ["", "Fixed effects", f"  {'':16s}{_cells(columns)}"]
        for j in np.flatnonzero(self.parametric):
            estimate, se = self.coefficients[j], self.standard_errors[j]
            df = (f"{self.degrees_of_freedom[j]:.2f}",) if is_t else ()
            lines.append(f"  {self.names[j]:16s}" + _cells((
                f"{estimate:.5g}", f"{se:.5g}", *df, f"{estimate / se:.3f}",
                _p(self.p_values[j]))))
        return lines

    def _tail(self) -> list[str]:
        lines = []
        if self.family != "gaussian" and self.family_parameters:
            pairs = (f"{name} = {value:.5g}" for name, value in self.family_parameters.items())
            lines += ["", "Family: " + ", ".join(pairs)]
        return lines + [f"{name} ran to its limit ({limit})" for name, limit in self.limits]


def _cells(texts: Iterable[str]) -> str:
    return "".join(f"{text:>12s}" for text in texts)


def _p(value: float) -> str:
    return "< 2e-16" if value < 2e-16 else f"{value:.3g}"
