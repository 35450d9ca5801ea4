"""Fits of many atoms, one a row, by sweeps over the rows: all work is local to an atom."""

from reml_sae.sweeps.backend import Backend, get_backend
from reml_sae.sweeps.checkpoint import SweepCheckpoint
from reml_sae.sweeps.flats import SpanMoments, over_flat, with_flats
from reml_sae.sweeps.loop import SweepFit, fit_sweeps, is_swept
from reml_sae.sweeps.nodes import Fineness
from reml_sae.sweeps.policy import SweepPolicy
from reml_sae.sweeps.rows import RowCodes, SweepSums, sweep
from reml_sae.sweeps.standard import StandardRows
from reml_sae.sweeps.state import SweepKind, SweepState

__all__ = [
    "Backend", "Fineness", "RowCodes", "SpanMoments", "StandardRows", "SweepCheckpoint", "SweepFit",
    "SweepKind", "SweepPolicy", "SweepState", "SweepSums", "fit_sweeps", "get_backend", "is_swept",
    "over_flat", "sweep", "with_flats",
]
