"""The criterion, its adjoint gradient, the REML loop and its trace."""

from reml_sae.outer.criterion import CriterionValue, criterion, criterion_at
from reml_sae.outer.deadline import INTERRUPTED, OUT_OF_TIME, Deadline, OutOfTime, reason
from reml_sae.outer.profile import CriterionProfile, grid_criterion, profile_criterion
from reml_sae.outer.reml import FitResult, fit_reml
from reml_sae.outer.trace import REMLTrace, TraceRow

__all__ = [
    "INTERRUPTED",
    "OUT_OF_TIME",
    "CriterionProfile",
    "CriterionValue",
    "Deadline",
    "FitResult",
    "OutOfTime",
    "REMLTrace",
    "TraceRow",
    "criterion",
    "criterion_at",
    "fit_reml",
    "grid_criterion",
    "profile_criterion",
    "reason",
]
