"""How rows use atoms: what a gate decides, and its amplitudes with their derivatives."""

from reml_sae.assignments._base import Amplitudes, Assignment, ElementwiseAmplitudes, LogitPrior
from reml_sae.assignments._registry import get_assignment
from reml_sae.assignments.gates import OrderedBetaBernoulli, ThresholdGate, TopK
from reml_sae.assignments.softmax import SoftmaxAmplitudes, SoftmaxChart

__all__ = [
    "Amplitudes",
    "Assignment",
    "ElementwiseAmplitudes",
    "LogitPrior",
    "OrderedBetaBernoulli",
    "SoftmaxAmplitudes",
    "SoftmaxChart",
    "ThresholdGate",
    "TopK",
    "get_assignment",
]
