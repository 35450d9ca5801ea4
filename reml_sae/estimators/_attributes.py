"""Types of what a fitted `SAEManifold` shows."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from reml_sae.assignments import Assignment
from reml_sae.diagnostics import Diagnostics
from reml_sae.discovery.record import SearchRecord
from reml_sae.engine import REMLTrace
from reml_sae.estimators._codes import Codes
from reml_sae.estimators._results import Atom
from reml_sae.families.noise import RowNoise
from reml_sae.models import PenaltyTerm
from reml_sae.models.sae.model import Integration
from reml_sae.typing import Array


class FittedAttributes:
    """What `SAEManifold` documents, and `FittedSAE.attributes` sets; absent before a fit."""

    atoms_: list[Atom]
    codes_: Codes
    rho_: Array
    rho_names_: tuple[str, ...]
    penalties_: tuple[PenaltyTerm, ...]
    strengths_: dict[str, float]
    dispersion_: float
    df_: float
    criterion_: float
    gradient_: Array
    limits_: tuple[tuple[str, str], ...]
    edf_: float
    converged_: bool
    message_: str
    n_iter_: int
    trace_: REMLTrace
    diagnostics_: Diagnostics
    assignment_: Assignment
    integration_: Integration
    search_: SearchRecord
    mean_: Array
    offset_: Array
    intercept_: Array
    scale_: float
    noise_: RowNoise
    n_features_in_: int
    feature_names_in_: NDArray[Any]
    data_digest_: str | None
