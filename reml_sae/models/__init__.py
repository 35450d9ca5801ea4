"""What the engine fits: the protocol and the SAE-manifold model."""

from reml_sae.models._protocol import (
    ArrowModel,
    Curvature,
    Factor,
    InnerModel,
    InnerPoint,
    LogDeterminant,
    ModelPoint,
    Theta,
)
from reml_sae.models.fixed_decoders import FixedDecoders
from reml_sae.models.sae import LOG_DISPERSION, SAEManifoldModel
from reml_sae.models.terms import PenaltyTerm, bind_penalty, check_priors, check_rows

__all__ = [
    "LOG_DISPERSION",
    "ArrowModel",
    "Curvature",
    "Factor",
    "FixedDecoders",
    "InnerModel",
    "InnerPoint",
    "LogDeterminant",
    "ModelPoint",
    "PenaltyTerm",
    "SAEManifoldModel",
    "Theta",
    "bind_penalty",
    "check_priors",
    "check_rows",
]
