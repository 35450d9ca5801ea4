"""What fits any arrow model: the protocol, the inner solve, the criterion and the REML loop."""

from reml_sae.engine.criterion import CriterionValue, criterion, criterion_at
from reml_sae.engine.deadline import Deadline, Stopped, reason
from reml_sae.engine.inner import InnerSolution, InnerStatus, solve_inner
from reml_sae.engine.outer import Outer, OuterKey, OuterPart
from reml_sae.engine.pcg import PCGResult, preconditioned_cg
from reml_sae.engine.profile import CriterionProfile, grid_criterion, profile_criterion
from reml_sae.engine.protocol import (
    ArrowModel,
    InnerModel,
    InnerPoint,
    LogDeterminant,
    ModelPoint,
    RowSampler,
    Theta,
)
from reml_sae.engine.reml import FitResult, fit_reml
from reml_sae.engine.status import OuterStatus
from reml_sae.engine.trace import REMLTrace, TraceRow

__all__ = [
    "ArrowModel",
    "CriterionProfile",
    "CriterionValue",
    "Deadline",
    "FitResult",
    "InnerModel",
    "InnerPoint",
    "InnerSolution",
    "InnerStatus",
    "LogDeterminant",
    "ModelPoint",
    "Outer",
    "OuterKey",
    "OuterPart",
    "OuterStatus",
    "PCGResult",
    "REMLTrace",
    "RowSampler",
    "Stopped",
    "Theta",
    "TraceRow",
    "criterion",
    "criterion_at",
    "fit_reml",
    "grid_criterion",
    "preconditioned_cg",
    "profile_criterion",
    "reason",
    "solve_inner",
]
