"""Mixed models: groups are the rows of the arrow, fixed effects and smooths its border."""

from reml_sae.models.mixed.fitted import FittedMixedModel, LikelihoodRatio
from reml_sae.models.mixed.model import MixedModel
from reml_sae.models.mixed.posterior import (
    corrected_covariance,
    posterior_covariance,
    predict,
    random_effects,
)
from reml_sae.models.mixed.results import mixed_summary
from reml_sae.models.mixed.smooths import Smooth
from reml_sae.models.mixed.summary import MixedSummary
from reml_sae.models.mixed.tables import Prediction, RandomEffects

__all__ = [
    "FittedMixedModel",
    "LikelihoodRatio",
    "MixedModel",
    "MixedSummary",
    "Prediction",
    "RandomEffects",
    "Smooth",
    "corrected_covariance",
    "mixed_summary",
    "posterior_covariance",
    "predict",
    "random_effects",
]
