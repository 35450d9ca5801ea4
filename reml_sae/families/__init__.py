"""Likelihoods: loss, score, IRLS weights and dispersion (DESIGN A1, A4)."""

from reml_sae.families._base import Family
from reml_sae.families.gaussian import Gaussian

__all__ = ["Family", "Gaussian"]
