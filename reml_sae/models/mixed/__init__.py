"""Mixed models: groups are the rows of the arrow, fixed effects and smooths its border."""

from reml_sae.models.mixed.model import MixedModel
from reml_sae.models.mixed.posterior import (
    Prediction,
    RandomEffects,
    corrected_covariance,
    posterior_covariance,
    predict,
    random_effects,
)
from reml_sae.models.mixed.results import MixedSummary, mixed_summary
from reml_sae.models.mixed.smooths import Smooth

__all__ = [
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
