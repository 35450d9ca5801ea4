"""Penalties: contract, manifest, registry, schedules."""

from reml_sae.penalties._base import Curvature, Penalty, PenaltyTier
from reml_sae.penalties._check import CheckReport, check_penalty
from reml_sae.penalties._curvature import RowCurvature, RowInverse
from reml_sae.penalties._matrix import MatrixPenalty, RowPenalty
from reml_sae.penalties._registry import from_config, get, register, registered_kinds
from reml_sae.penalties._schedule import ScalarWeightSchedule, TemperatureSchedule
from reml_sae.penalties._simplex import log_simplex_partition
from reml_sae.penalties.ard import ARDPenalty
from reml_sae.penalties.quadratic import DecoderQuadratic, HarmonicRoughnessPenalty, QuadraticPenalty
from reml_sae.penalties.softmax_entropy import SoftmaxAssignmentSparsityPenalty

__all__ = [
    "ARDPenalty",
    "CheckReport",
    "Curvature",
    "DecoderQuadratic",
    "HarmonicRoughnessPenalty",
    "MatrixPenalty",
    "Penalty",
    "PenaltyTier",
    "QuadraticPenalty",
    "RowCurvature",
    "RowInverse",
    "RowPenalty",
    "ScalarWeightSchedule",
    "SoftmaxAssignmentSparsityPenalty",
    "TemperatureSchedule",
    "check_penalty",
    "from_config",
    "get",
    "log_simplex_partition",
    "register",
    "registered_kinds",
]
