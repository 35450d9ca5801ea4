"""The report of a fit: one self-contained HTML page."""

from reml_sae.diagnostics.report.page import shows_rows, write_checks, write_report

__all__ = ["shows_rows", "write_checks", "write_report"]
