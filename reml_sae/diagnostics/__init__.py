"""Summary, checks and plots of a fit."""

from reml_sae.diagnostics.checks import Check, Diagnostics, diagnose
from reml_sae.diagnostics.summary import summary_text

__all__ = ["Check", "Diagnostics", "diagnose", "summary_text"]
