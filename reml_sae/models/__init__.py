"""What the engine fits: the protocol, the SAE-manifold model and the mixed model."""

from reml_sae.inner._protocol import (
    ArrowModel,
    Curvature,
    Factor,
    InnerModel,
    InnerPoint,
    LogDeterminant,
    ModelPoint,
    RowSampler,
    Theta,
)
from reml_sae.models.assignment import Assignment
from reml_sae.models.assignments import get_assignment
from reml_sae.models.fixed_decoders import FixedDecoders
from reml_sae.models.mixed import MixedModel
from reml_sae.models.mixed_posterior import (
    Prediction,
    RandomEffects,
    corrected_covariance,
    posterior_covariance,
    predict,
    random_effects,
)
from reml_sae.models.mixed_results import MixedSummary, mixed_summary
from reml_sae.models.mixed_smooths import Smooth
from reml_sae.models.nonlinear import NonlinearMixedModel
from reml_sae.models.nonlinear_mean import Curve
from reml_sae.models.row_lattice import check_integration
from reml_sae.models.sae import LOG_DISPERSION, Integration, SAEManifoldModel
from reml_sae.models.sae_start import column_weights, solve_beta, start_psi
from reml_sae.models.terms import PenaltyTerm, bind_penalty, check_priors, check_rows

__all__ = [
    "LOG_DISPERSION",
    "ArrowModel",
    "Assignment",
    "Curvature",
    "Curve",
    "Factor",
    "FixedDecoders",
    "InnerModel",
    "InnerPoint",
    "Integration",
    "LogDeterminant",
    "MixedModel",
    "MixedSummary",
    "ModelPoint",
    "NonlinearMixedModel",
    "PenaltyTerm",
    "Prediction",
    "RandomEffects",
    "RowSampler",
    "SAEManifoldModel",
    "Smooth",
    "Theta",
    "bind_penalty",
    "check_integration",
    "check_priors",
    "check_rows",
    "column_weights",
    "corrected_covariance",
    "get_assignment",
    "mixed_summary",
    "posterior_covariance",
    "predict",
    "random_effects",
    "solve_beta",
    "start_psi",
]
