"""Mixed models whose mean is a curve in its parameters."""

from reml_sae.models.nonlinear.mean import Curve
from reml_sae.models.nonlinear.model import NonlinearMixedModel

__all__ = [
    "Curve",
    "NonlinearMixedModel",
]
