"""Likelihoods: loss, observed derivatives, IRLS weights and dispersion (DESIGN A1, A4)."""

from reml_sae.families._base import GAUSSIAN_STEP, LOG_DISPERSION, Family, ScaledFamily
from reml_sae.families._registry import get_family, registered_families, with_row_noise
from reml_sae.families.binomial import Binomial
from reml_sae.families.gamma import Gamma
from reml_sae.families.gaussian import Gaussian, WeightedGaussian
from reml_sae.families.negative_binomial import NegativeBinomial
from reml_sae.families.poisson import Poisson
from reml_sae.families.student_t import StudentT
from reml_sae.families.student_t_rows import StudentTRows, row_degrees
from reml_sae.families.tweedie import Tweedie

__all__ = [
    "GAUSSIAN_STEP",
    "LOG_DISPERSION",
    "Binomial",
    "Family",
    "Gamma",
    "Gaussian",
    "NegativeBinomial",
    "Poisson",
    "ScaledFamily",
    "StudentT",
    "StudentTRows",
    "Tweedie",
    "WeightedGaussian",
    "get_family",
    "registered_families",
    "row_degrees",
    "with_row_noise",
]
