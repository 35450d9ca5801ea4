"""The SAE-manifold as an arrow model: coordinates and amplitudes are rows, decoders the border."""

from reml_sae.models.sae.fixed_decoders import FixedDecoders
from reml_sae.models.sae.model import SAEManifoldModel
from reml_sae.models.sae.terms import PenaltyTerm, bind_penalty

__all__ = [
    "FixedDecoders",
    "PenaltyTerm",
    "SAEManifoldModel",
    "bind_penalty",
]
