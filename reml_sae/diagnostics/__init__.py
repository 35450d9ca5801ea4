"""Summary, checks and plots of a fit."""

from reml_sae.diagnostics.certificate import Certificate, laplace_certificate, pareto_shape
from reml_sae.diagnostics.check import Check
from reml_sae.diagnostics.checks import Diagnostics, diagnose
from reml_sae.diagnostics.circular import align_angles, circular_correlation
from reml_sae.diagnostics.noise import NoiseAccount, looks_at_shape
from reml_sae.diagnostics.plots import plot_atoms, plot_noise
from reml_sae.diagnostics.report import shows_rows, write_report
from reml_sae.diagnostics.summary import summary_text

__all__ = [
    "Certificate",
    "Check",
    "Diagnostics",
    "NoiseAccount",
    "align_angles",
    "circular_correlation",
    "diagnose",
    "laplace_certificate",
    "looks_at_shape",
    "pareto_shape",
    "plot_atoms",
    "plot_noise",
    "shows_rows",
    "summary_text",
    "write_report",
]
