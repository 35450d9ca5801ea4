"""The mixed model as a statistician meets it: from arrays or from a formula, and fitted."""

from __future__ import annotations

from typing import Any, Self

from reml_sae.engine import fit_reml
from reml_sae.errors import InputError
from reml_sae.families import Binomial, Family, Gaussian, WeightedGaussian, get_family
from reml_sae.models.mixed.arrow import MixedArrow
from reml_sae.models.mixed.fitted import FittedMixedModel
from reml_sae.models.mixed.formula import parse_formula
from reml_sae.models.mixed.layout import Layout, column_or
from reml_sae.typing import Curvature


class MixedModel(MixedArrow):
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
    >>> rng = np.random.default_rng(0)
    >>> g = np.repeat(np.arange(20), 5)
    >>> y = 1.0 + rng.normal(size=20)[g] + 0.5 * rng.normal(size=100)
    >>> model = MixedModel(y, np.ones(100), groups=g, Z=np.ones(100))
    >>> model.fit().converged
    True
    """

    @classmethod
    def from_formula(
        cls,
        formula: str,
        data: Any,
        *,
        family: str | Family = "gaussian",
        method: str = "REML",
        weights: Any = None,
        offset: Any = None,
    ) -> Self:
        """The model of a formula in the notation of lme4 and mgcv.

        Parameters
        ----------
        formula : str
            ``y ~ x + s(t, k=12) + (x | g)``: fixed effects as formulaic reads them, P-splines
            ``s(t)``, and random effects ``(1 | g)``, ``(x | g)``, ``(x || g)``, ``(1 | a:b)`` or
            ``(1 | a/b)``, crossed or nested, of which one factor's may be correlated. Successes and
            failures are ``cbind(successes, failures)``.
        data : pandas.DataFrame
        family : str or Family
        method : "REML", "ML" or "Laplace"
        weights : str or (n,) array, optional
            Of Gaussian observations, whose variances are the dispersion over these: a column, an
            expression of columns, or numbers.
        offset : str, float or (n,) array, optional
            Predictions for new data need a column or an expression.

        Raises
        ------
        MissingDependencyError
            Without formulaic.
        InputError
            Naming the term that cannot be read, or the variable and row that are missing.
        """
        parsed = parse_formula(formula)
        layout = Layout.of(parsed, data, offset)
        arrays = layout.evaluate(data)
        y, trials = layout.response(data)
        family = get_family(family)
        if trials is not None:
            if not isinstance(family, Binomial):
                raise InputError("cbind(successes, failures) is the response of the binomial "
                                 f"family, got {family.name}")
            family = Binomial(n_trials=trials)
        if weights is not None:
            if not isinstance(family, Gaussian):
                raise InputError("weights are for the gaussian family; write numbers of trials as "
                                 "cbind(successes, failures), and exposures as an offset")
            family = WeightedGaussian(column_or(weights, data))
        model = cls(
            y, arrays.X, groups=arrays.groups, Z=arrays.Z, family=family,
            covariance=["full" if t.correlated and len(t.names) > 1 else "diagonal"
                        for t in layout.rows],
            penalties=layout.penalties, method=method,
            offset=offset if arrays.offset is None else arrays.offset,
            x_names=layout.x_names, z_names=layout.z_names)
        model.layout = layout
        return model

    def __repr__(self) -> str:
        text = self.layout.formula.text if self.layout else "from arrays"
        return (f"<MixedModel {text} by {self.method} ({self.family.name}): {len(self.data.y)} "
                "observations, not fitted>")

    def fit(self, *, curvature: Curvature = "majorizer", **options: Any) -> FittedMixedModel:
        """Fit by `reml_sae.fit_reml`.

        Parameters
        ----------
        curvature : "majorizer" or "exact"
            Expected weights, as lme4 has them, or observed ones, as mgcv and TMB do.
        **options
            Of `reml_sae.fit_reml`.
        """
        return FittedMixedModel(self, fit_reml(self, curvature=curvature, **options), curvature)
