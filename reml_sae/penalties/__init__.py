"""Penalties: contract, manifest, registry, schedules."""

from reml_sae.check_report import CheckReport
from reml_sae.penalties._base import Penalty, PenaltyTier
from reml_sae.penalties._check import check_penalty
from reml_sae.penalties._curvature import RowCurvature, RowInverse
from reml_sae.penalties._matrix import MatrixPenalty, RowPenalty
from reml_sae.penalties._registry import from_config, get, register, registered_kinds
from reml_sae.penalties._schedule import ScalarWeightSchedule, TemperatureSchedule
from reml_sae.penalties._schema import schema
from reml_sae.penalties._simplex import log_simplex_partition
from reml_sae.penalties.activation import SmoothThresholdPenalty, TopKActivationPenalty
from reml_sae.penalties.ard import ARDPenalty
from reml_sae.penalties.composite import CompositePenalty
from reml_sae.penalties.concave import ScadMcpPenalty
from reml_sae.penalties.decoder_incoherence import DecoderIncoherencePenalty
from reml_sae.penalties.group_sparsity import BlockSparsityPenalty, MechanismSparsityPenalty
from reml_sae.penalties.hyperprior import LogStrengthPriorPenalty
from reml_sae.penalties.isometry import IsometryPenalty
from reml_sae.penalties.ivae import IvaeRidgeMeanGauge
from reml_sae.penalties.monotonicity import MonotonicityPenalty
from reml_sae.penalties.nested_prefix import NestedPrefixPenalty
from reml_sae.penalties.nuclear_norm import NuclearNormPenalty
from reml_sae.penalties.null_space import NullSpacePrior
from reml_sae.penalties.ordered_beta_bernoulli import OrderedBetaBernoulliPenalty
from reml_sae.penalties.orthogonality import BlockOrthogonalityPenalty, OrthogonalityPenalty
from reml_sae.penalties.quadratic import (
    DecoderQuadratic,
    DecoderRidgePenalty,
    HarmonicRoughnessPenalty,
    QuadraticPenalty,
)
from reml_sae.penalties.row_priors import (
    AuxConditionalPriorPenalty,
    ParametricAuxConditionalPriorPenalty,
)
from reml_sae.penalties.sheaf import SheafConsistencyPenalty
from reml_sae.penalties.softmax_entropy import SoftmaxAssignmentSparsityPenalty
from reml_sae.penalties.sparsity import SparsityPenalty
from reml_sae.penalties.total_variation import TotalVariationPenalty

__all__ = [
    "ARDPenalty",
    "AuxConditionalPriorPenalty",
    "BlockOrthogonalityPenalty",
    "BlockSparsityPenalty",
    "CheckReport",
    "CompositePenalty",
    "DecoderIncoherencePenalty",
    "DecoderQuadratic",
    "DecoderRidgePenalty",
    "HarmonicRoughnessPenalty",
    "IsometryPenalty",
    "IvaeRidgeMeanGauge",
    "LogStrengthPriorPenalty",
    "MatrixPenalty",
    "MechanismSparsityPenalty",
    "MonotonicityPenalty",
    "NestedPrefixPenalty",
    "NuclearNormPenalty",
    "NullSpacePrior",
    "OrderedBetaBernoulliPenalty",
    "OrthogonalityPenalty",
    "ParametricAuxConditionalPriorPenalty",
    "Penalty",
    "PenaltyTier",
    "QuadraticPenalty",
    "RowCurvature",
    "RowInverse",
    "RowPenalty",
    "ScadMcpPenalty",
    "ScalarWeightSchedule",
    "SheafConsistencyPenalty",
    "SmoothThresholdPenalty",
    "SoftmaxAssignmentSparsityPenalty",
    "SparsityPenalty",
    "TemperatureSchedule",
    "TopKActivationPenalty",
    "TotalVariationPenalty",
    "check_penalty",
    "from_config",
    "get",
    "log_simplex_partition",
    "register",
    "registered_kinds",
    "schema",
]
