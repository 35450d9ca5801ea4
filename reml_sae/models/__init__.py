"""What the engine fits: the SAE-manifold model and the mixed models."""

from reml_sae.models.mixed import (
    FittedMixedModel,
    LikelihoodRatio,
    MixedModel,
    MixedSummary,
    Prediction,
    RandomEffects,
    Smooth,
    corrected_covariance,
    mixed_summary,
    posterior_covariance,
    predict,
    random_effects,
)
from reml_sae.models.nonlinear import Curve, NonlinearMixedModel
from reml_sae.models.sae import FixedDecoders, PenaltyTerm, SAEManifoldModel, bind_penalty

__all__ = [
    "Curve",
    "FittedMixedModel",
    "FixedDecoders",
    "LikelihoodRatio",
    "MixedModel",
    "MixedSummary",
    "NonlinearMixedModel",
    "PenaltyTerm",
    "Prediction",
    "RandomEffects",
    "SAEManifoldModel",
    "Smooth",
    "bind_penalty",
    "corrected_covariance",
    "mixed_summary",
    "posterior_covariance",
    "predict",
    "random_effects",
]
