"""A fitted mixed model, with the verbs of lme4 and mgcv."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import chi2
from scipy.stats import norm as normal

from reml_sae.engine import FitResult, fit_reml
from reml_sae.errors import DataWarning, InputError
from reml_sae.families import Binomial, Gaussian
from reml_sae.models.mixed.arrow import MixedArrow
from reml_sae.models.mixed.border import unpenalised
from reml_sae.models.mixed.layout import NewData, RandomLayout
from reml_sae.models.mixed.plots import plot_fit
from reml_sae.models.mixed.point import MixedPoint
from reml_sae.models.mixed.posterior import (
    crossed_columns,
    joint_point,
    predict,
    random_effects,
)
from reml_sae.models.mixed.results import (
    group_sizes,
    mixed_summary,
    n_parameters,
    pearson_residuals,
)
from reml_sae.models.mixed.sd_profile import sd_intervals
from reml_sae.models.mixed.summary import MixedSummary
from reml_sae.models.mixed.tables import Prediction, RandomEffects
from reml_sae.typing import Array, Curvature


@dataclass(frozen=True)
class LikelihoodRatio:
    """Likelihood-ratio test of two nested models; ``print`` shows the table.

    Attributes
    ----------
    parameters, aic, bic, log_likelihood : pairs
        Of the smaller model and of the larger one.
    statistic : float
        Twice the difference of the log-likelihoods.
    df : int
    p_value : float
        By chi-squared; too large where a variance is zero under the smaller model.
    refitted : str
        The method by which both were fitted again, or "".
    """

    parameters: tuple[int, int]
    aic: tuple[float, float]
    bic: tuple[float, float]
    log_likelihood: tuple[float, float]
    statistic: float
    df: int
    p_value: float
    refitted: str

    def __str__(self) -> str:
        note = [f"fitted again by {self.refitted}: REML criteria of different fixed effects are "
                "not comparable"] if self.refitted else []
        rows = zip(("smaller", "larger"), self.parameters, self.aic, self.bic,
                   self.log_likelihood, strict=True)
        return "\n".join([
            *note, f"{'':8s}{'npar':>6s}{'AIC':>12s}{'BIC':>12s}{'logLik':>12s}",
            *(f"{name:8s}{k:6d}{aic:12.2f}{bic:12.2f}{value:12.3f}"
              for name, k, aic, bic, value in rows),
            f"chi-squared {self.statistic:.4f} on {self.df} df, p = {self.p_value:.4g}"])

    __repr__ = __str__


@dataclass(frozen=True, eq=False, repr=False)
class FittedMixedModel:
    """What `MixedModel.fit` returns; ``print`` says how the fit ended.

    Attributes
    ----------
    model : MixedModel
    fit : FitResult
    curvature : "majorizer" or "exact"
    """

    model: MixedArrow
    fit: FitResult
    curvature: Curvature

    def __str__(self) -> str:
        model = self.model
        text = model.layout.formula.text if model.layout else "from arrays"
        groups = "".join(f", {size} {name}" for name, size in group_sizes(model).items())
        end = "converged" if self.converged else f"NOT CONVERGED: {self.fit.message}"
        return (f"Mixed model {text} by {model.method} ({model.family.name}): {end}; "
                f"2 V = {2.0 * self.fit.criterion:.4f}, {len(model.data.y)} observations{groups}")

    __repr__ = __str__

    @property
    def converged(self) -> bool:
        """Whether the fit is at an optimum of V."""
        return self.fit.converged

    @property
    def point(self) -> MixedPoint:
        """The joint problem at the fit."""
        return joint_point(self.model, self.fit)

    # --- estimates -------------------------------------------------------------------------------

    def summary(self) -> MixedSummary:
        """All estimates; ``print`` shows them."""
        return mixed_summary(self.model, self.fit, curvature=self.curvature)

    @property
    def fixef(self) -> dict[str, float]:
        """Fixed effects by name."""
        owned = {int(c) for s in self.model.all_smooths for c in s.columns}
        return {name: float(value) for j, (name, value) in enumerate(
            zip(self.model.x_names, self.point.beta, strict=True)) if j not in owned}

    @property
    def ranef(self) -> dict[str, RandomEffects]:
        """Conditional modes of the random effects, by grouping factor."""
        out = {}
        names = iter(group_sizes(self.model))
        if self.model.data.n_groups:
            out[next(names)] = random_effects(self.model, self.fit, curvature=self.curvature)
        for name in names:
            out[name] = self._crossed_effects(name)
        return out

    def _crossed_effects(self, group: str) -> RandomEffects:
        """Those of a factor whose effects are on the border, one term after another."""
        point = self.point
        smooths = {s.name: s for s in self.model.all_smooths}
        terms = [t for t in self._crossed if t.group == group]
        columns = np.stack([smooths[name].columns for t in terms for name in t.smooth_names()], 1)
        given = point.inverse_blocks(self.curvature, crossed_columns(self.model)).border
        whole = point.whole_inverse(self.curvature).border
        sds = [np.sqrt(np.diagonal(V))[columns] for V in (given, whole)]
        names = tuple(name for t in terms for name in t.names)
        return RandomEffects(terms[0].levels, names, point.beta[columns], *sds)

    @property
    def _crossed(self) -> tuple[RandomLayout, ...]:
        return self.model.layout.crossed if self.model.layout else ()

    @property
    def sigma(self) -> float:
        """Residual sd of a Gaussian; root of the dispersion of others."""
        return float(np.sqrt(self.model.family.dispersion(self.point.psi)))

    # --- fit -------------------------------------------------------------------------------------

    @property
    def log_likelihood(self) -> float:
        """-V, restricted by "REML"."""
        return -self.fit.criterion

    @property
    def aic(self) -> float:
        """2 V + 2 k with k unpenalised coefficients and outer parameters."""
        return 2.0 * (self.fit.criterion + n_parameters(self.model))

    @property
    def bic(self) -> float:
        """2 V + k log n."""
        return 2.0 * self.fit.criterion + n_parameters(self.model) * float(
            np.log(len(self.model.data.y)))

    def fitted(self) -> Array:
        """Means of the responses, (n,); of one trial where the family is binomial."""
        return self.model.family.mean(self.point.eta) / self._trials

    def residuals(self, type: str = "response") -> Array:
        """Residuals (n,).

        Parameters
        ----------
        type : "response", "pearson" or "deviance"
            Pearson residuals are over the root of the variance function, as R's: the dispersion is
            not divided out.
        """
        point, family, y = self.point, self.model.family, self.model.data.y
        if type == "response":
            return y / self._trials - self.fitted()
        if type == "pearson":
            return self.sigma * pearson_residuals(self.model, point.eta, point.psi)
        if type == "deviance":
            deviance = np.maximum(family.deviance(y, point.eta, point.psi), 0.0)
            return np.sign(y - family.mean(point.eta)) * np.sqrt(deviance)
        raise InputError(f"type must be 'response', 'pearson' or 'deviance', got {type!r}")

    @property
    def _trials(self) -> Any:
        family = self.model.family
        return family.n_trials if isinstance(family, Binomial) else 1.0

    def plot(self) -> Any:
        """Draw residuals, their quantiles and smooths with bands; returns the matplotlib figure."""
        point = self.point
        return plot_fit(self.model, point.beta, point.whole_inverse(self.curvature).border,
                        point.eta, pearson_residuals(self.model, point.eta, point.psi))

    # --- comparison ------------------------------------------------------------------------------

    def anova(self, other: FittedMixedModel) -> LikelihoodRatio:
        """Likelihood-ratio test against a model nested in this one, or that this one is nested in.

        Fits by REML whose fixed effects differ are made again by maximum likelihood ("ML" for a
        Gaussian, "Laplace" for the others), as lme4 does.

        Raises
        ------
        InputError
            Where responses, families or methods differ.
        """
        pair, refitted = [self, other], ""
        a, b = self.model, other.model
        if not np.array_equal(a.data.y, b.data.y):
            raise InputError("the models have different responses; compare fits of the same data")
        if type(a.family) is not type(b.family) or self.curvature != other.curvature:
            raise InputError("the models must have the same family and curvature, got "
                             f"{a.family.name} and {b.family.name}, {self.curvature} and "
                             f"{other.curvature}")
        if a.method != b.method:
            raise InputError(f"the models are fitted by {a.method} and by {b.method}, whose "
                             "criteria are not comparable; fit both by one")
        if a.method == "REML" and not _same_fixed(a, b):
            refitted = "ML" if isinstance(a.family, Gaussian) else "Laplace"
            pair = [replace(one, model=model, fit=fit_reml(model, curvature=one.curvature))
                    for one in pair for model in [one.model.rebuilt(method=refitted)]]
        small, large = sorted(pair, key=lambda one: n_parameters(one.model))
        df = n_parameters(large.model) - n_parameters(small.model)
        statistic = 2.0 * (large.log_likelihood - small.log_likelihood)
        return LikelihoodRatio(
            (n_parameters(small.model), n_parameters(large.model)), (small.aic, large.aic),
            (small.bic, large.bic), (small.log_likelihood, large.log_likelihood), statistic, df,
            float(chi2.sf(statistic, df)) if df else float("nan"), refitted)

    def confint(self, level: float = 0.95, method: str = "wald") -> dict[str, tuple[float, float]]:
        """Confidence intervals by name.

        Parameters
        ----------
        level : float in (0, 1)
        method : "wald" or "profile"
            "wald": fixed effects, estimate +- z se. "profile": sds of the random effects and of the
            residual, by the profile of V: of the likelihood where the method is "ML", as lme4's,
            of the restricted likelihood where it is "REML".
        """
        if not 0.0 < level < 1.0:
            raise InputError(f"level must lie in (0, 1), got {level!r}")
        if method == "profile":
            return sd_intervals(self.model, self.fit, level, self.curvature)
        if method != "wald":
            raise InputError(f"method must be 'wald' or 'profile', got {method!r}")
        errors = np.sqrt(np.diagonal(self.point.whole_inverse(self.curvature).border))
        z = float(normal.ppf(0.5 + 0.5 * level))
        half = dict(zip(self.model.x_names, (z * errors).tolist(), strict=True))
        return {name: (value - half[name], value + half[name])
                for name, value in self.fixef.items()}

    # --- prediction ------------------------------------------------------------------------------

    def predict(
        self, newdata: Any = None, interval: str | None = None, *, re_form: bool = True,
        level: float = 0.95, offset: Any = None,
    ) -> Prediction:
        """Predictions with posterior sds; `Prediction.mean` is on the scale of the response.

        Parameters
        ----------
        newdata : pandas.DataFrame, optional
            Of a model from a formula; None: the data of the fit.
        interval : None, "confidence" or "prediction"
            Of the mean, or of a new Gaussian response of weight 1.
        re_form : bool
            Whether random effects are in it. Without them they are 0, with no variance.
        level : float in (0, 1)
        offset : (n,) array, optional
            Of new data, where that of the fit was an array.

        Warns
        -----
        DataWarning
            Where a level was not in the fit: its effect is 0, with the variance of the prior.
        """
        if interval not in (None, "confidence", "prediction"):
            raise InputError("interval must be None, 'confidence' or 'prediction', got "
                             f"{interval!r}")
        if not 0.0 < level < 1.0:
            raise InputError(f"level must lie in (0, 1), got {level!r}")
        arrays = self._arrays(newdata, re_form, offset)
        out = predict(self.model, self.fit, arrays.X, Z=arrays.Z, groups=arrays.groups,
                      offset=arrays.offset, curvature=self.curvature)
        if newdata is not None and re_form:
            out = replace(out, se=np.sqrt(out.se**2 + self._unseen(newdata)))
        if interval is None:
            return out
        z = float(normal.ppf(0.5 + 0.5 * level))
        if interval == "confidence":
            family = Binomial() if isinstance(self.model.family, Binomial) else self.model.family
            low, high = out.band(z)
            return replace(out, lower=family.mean(low), upper=family.mean(high))
        if not isinstance(self.model.family, Gaussian):
            raise InputError("interval='prediction' is for the gaussian family, got "
                             f"{self.model.family.name}; 'confidence' is that of its mean")
        half = z * np.sqrt(out.se**2 + self.sigma**2)
        return replace(out, lower=out.mean - half, upper=out.mean + half)

    def _arrays(self, newdata: Any, random: bool, offset: Any) -> NewData:
        data, layout = self.model.data, self.model.layout
        if newdata is None:
            X = data.X if random else data.X * ~crossed_columns(self.model)
            use = random and data.n_groups > 0
            return NewData(X, [data.Z] if use else None,
                           data.labels[data.group] if use else None, data.offset)
        if layout is None:
            raise InputError("newdata is for models from a formula; a model from arrays predicts "
                             "by reml_sae.models.predict(model, result.fit, X, Z=.., groups=..)")
        arrays = layout.evaluate(newdata, random=random)
        if arrays.offset is None:
            if offset is None:
                raise InputError("the offset of the fit was an array; give that of newdata too, or "
                                 "fit with the name of a column")
            return replace(arrays, offset=np.broadcast_to(offset, (len(newdata),)))
        return arrays

    def _unseen(self, newdata: Any) -> Array:
        """Prior variance (n,) of crossed effects of new levels; warns of all new levels."""
        variance, layout = np.zeros(len(newdata)), self.model.layout
        assert layout is not None
        new: dict[str, list[str]] = {}
        summary = self.point.smooths
        strengths = {s.name: float(summary.strengths[s.where][0]) for s in self.model.all_smooths}
        for term in (*layout.rows, *layout.crossed):
            labels = term.labels(newdata)
            unseen = ~np.isin(labels, term.levels)
            if unseen.any():
                new[term.group] = sorted(map(str, np.unique(labels[unseen])))
            if term in layout.crossed:
                columns = term.columns(newdata)
                for name, column in zip(term.smooth_names(), columns.T, strict=True):
                    variance += np.where(unseen, column**2 / strengths[name], 0.0)
        for group, levels in new.items():
            warnings.warn(f"{group} has levels that were not in the fit: {', '.join(levels[:5])}"
                          f"{' and others' if len(levels) > 5 else ''}; their effects are 0",
                          DataWarning, stacklevel=3)
        return variance


def _same_fixed(a: MixedArrow, b: MixedArrow) -> bool:
    one, two = (m.data.X @ unpenalised(m.all_smooths, len(m.x_names)) for m in (a, b))
    return one.shape == two.shape and bool(np.allclose(one, two))
