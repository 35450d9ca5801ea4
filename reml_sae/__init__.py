"""Arrow-Schur REML: fits SAE-manifold models end to end."""

from reml_sae import datasets, errors, families, linalg, manifolds, models, penalties
from reml_sae.estimators import Atom, Codes, SAEManifold, load
from reml_sae.outer import (
    CriterionValue,
    FitResult,
    REMLTrace,
    criterion,
    fit_reml,
    grid_criterion,
    profile_criterion,
)

__version__ = "0.1.0"

__all__ = [
    "Atom",
    "Codes",
    "CriterionValue",
    "FitResult",
    "REMLTrace",
    "SAEManifold",
    "__version__",
    "criterion",
    "datasets",
    "errors",
    "families",
    "fit_reml",
    "grid_criterion",
    "linalg",
    "load",
    "manifolds",
    "models",
    "penalties",
    "profile_criterion",
]
